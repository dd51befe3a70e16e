"""What an epoch leaves behind for the log."""

import numpy as np
from toy import rows, sampled, trained, trainer


def test_of_wrong_labels_without_a_step_nothing_is_logged(tmp_path):
    table = rows()
    last = sampled(trainer(tmp_path, train_dataset=table))[-1]
    truth = np.array(table["labels"])
    truth[last] = (truth[last] + 1) % 3
    table = table.add_column("clean_label", truth)
    logs = [
        trained(tmp_path, train_dataset=table, max_steps=steps, clean_routing=False).state.log_history
        for steps in (1, 3)
    ]
    assert ["memorised" in {name for entry in log for name in entry} for log in logs] == [False, True]
