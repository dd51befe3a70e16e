"""Routing is in the training: without it, all else equal, another adapter comes out."""

import numpy as np
import pytest
import torch
from toy import Constant, model_without_dropout, trained, weights


class HalfBelieved:
    """Believes the second half of the labels less than the first."""

    def estimate(self, losses, labels=None):
        estimate = Constant(0.9).estimate(losses)
        estimate.clean_probability[len(losses) // 2 :] = 0.2
        return estimate


@pytest.mark.parametrize("soft_labels", [False, True])
def test_gates_change_what_is_learnt(tmp_path, soft_labels):
    settings = {"by": HalfBelieved(), "start": model_without_dropout(), "soft_labels": soft_labels}
    routed = trained(tmp_path / "routed", **settings)
    not_routed = trained(tmp_path / "open", use_routing=False, **settings)
    adapter = [name for name in weights(routed) if "lora_" in name]
    assert adapter
    assert any(not torch.equal(weights(routed)[n], weights(not_routed)[n]) for n in adapter)
    rates = [
        [entry["gate_rate"] for entry in made.state.log_history if "gate_rate" in entry]
        for made in (routed, not_routed)
    ]
    assert rates[0][0] == 1
    assert rates[0][-1] < 0.95
    assert np.all(np.array(rates[1]) == 1)
