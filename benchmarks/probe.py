"""What a linear probe knows of wrong labels, before any training and after every epoch on the given labels.

Run it with `python benchmarks/probe.py --data banking77/train.csv --kind symmetric --rate 0.6`, on a
table with the columns text and label; a column clean_label, if there is one, takes the place of --kind.
Trains as the warm-up of `recommended` does, on all rows (MiniLM, LoRA r = 8, batches of 32, at most 64
tokens, peak learning rate 1e-3 of a schedule over ten epochs). Prints how many true labels the model's own
head predicts, and how many the probe, for rows that it has not seen; how well the probe ranks wrong labels
(average precision); the noise rate and the kind of noise that it estimates.
"""

import argparse
import tempfile

from sklearn.metrics import average_precision_score
from transformers import TrainerCallback

from clear_peft.trainer import CleaRTrainer
from warm_up import NoisyRows, arguments, begin, logits_of, noisy_rows, trainer_of


class Epochs(TrainerCallback):
    """Prints a line for every epoch, and stops after some."""

    def __init__(self, trainer: CleaRTrainer, data: NoisyRows, last: int) -> None:
        self.trainer, self.data, self.last = trainer, data, last

    def show(self, epoch: int) -> None:
        """What head and probe make of the rows now."""
        estimate, data = self.trainer.estimate, self.data
        quality = estimate.train
        precision = average_precision_score(data.wrong, -quality.clean_probability) if data.wrong.any() else 0
        known = f"{(quality.predicted == data.clean).mean():6.1%}"
        head = f"{'-':>6}"  # before training it is not yet the one that training begins with
        if epoch:
            head = f"{(logits_of(self.trainer, data).argmax(axis=1) == data.clean).mean():6.1%}"
        judged = f"{precision:9.3f}  {quality.noise_rate:9.1%}  {estimate.parameters['noise']}"
        print(f"{epoch:5}", head, known, judged, sep="  ", flush=True)

    def on_epoch_end(self, args, state, control, **_) -> None:
        """An epoch is over, and has been judged."""
        self.show(round(state.epoch))
        control.should_training_stop = state.epoch >= self.last


def main(options: argparse.Namespace) -> None:
    """Train, ask, print."""
    data = noisy_rows(options)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(data, options, options.seed, folder)
        epochs = Epochs(trainer, data, options.epochs)
        trainer.add_callback(epochs)
        print("epoch    head   probe  precision  estimated  noise")
        epochs.show(0)
        if options.epochs:
            trainer.train()


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument(
        "--epochs", type=int, default=0, choices=range(11), metavar="0..10", help="0 trains nothing"
    )
    begin(main, parser)
