"""Which estimator knows the wrong labels best, epoch by epoch, by true labels of training rows.

Run it with `python benchmarks/estimators.py --data trec6/train.csv --kind symmetric --rate 0.6`, on a table
with the columns text and label; a column clean_label, if there is one, takes the place of --kind. Trains two
adapters, which differ in their seed, on the given labels (MiniLM, LoRA r = 8, batches of 32, at most 64
tokens, peak learning rate 1e-3 of a schedule over ten epochs), and lets every
estimator judge all rows by the weights at the end of each epoch. Prints how each ranks the wrong labels
(average precision, rows of equal probability by their loss), and the share of wrong labels that it estimates:

  raw         two Gaussians on the losses, fitted to the end
  log odds    two Gaussians on the losses' log odds
  smoothed    the same, losses averaged over epochs (weight 0.7 for those before)
  paper       two Gaussians on the losses, fitted as the authors of CleaR do
  events      share of the epochs in which another class was predicted; wrong where it is above a half
  other       two Gaussians on the log odds of the other adapter's losses (Co-teaching's exchange)
  differ      how far the two adapters' predictions are apart (Jensen-Shannon), which estimates no share
  probe       a linear probe on the features and a noise model (ours)
"""

import argparse
import tempfile
from dataclasses import dataclass

import numpy as np
from scipy.special import rel_entr, softmax
from sklearn.metrics import average_precision_score
from transformers import TrainerCallback

from clear_peft.label_quality import GaussianLossMixture, PaperMixture, smooth
from clear_peft.trainer import CleaRTrainer
from warm_up import NoisyRows, arguments, begin, logits_of, noisy_rows, trainer_of

RAW = GaussianLossMixture(scale="loss", monotone=False)
LOG_ODDS = GaussianLossMixture()
PAPER = PaperMixture()


class Observer(TrainerCallback):
    """Keeps what an adapter predicts after each epoch, and what the probe says of its features."""

    def __init__(self, trainer: CleaRTrainer, data: NoisyRows, last: int) -> None:
        self.trainer, self.data, self.last = trainer, data, last
        self.predicted: list[np.ndarray] = []
        self.probed: list[np.ndarray] = []

    def on_epoch_end(self, args, state, control, **_) -> None:
        """An epoch is over."""
        logits = logits_of(self.trainer, self.data)
        self.predicted.append(softmax(logits.astype(np.float64), axis=1))
        self.probed.append(self.trainer.estimate.train.clean_probability)
        control.should_training_stop = state.epoch >= self.last


@dataclass(frozen=True)
class Verdict:
    """What an estimator says after an epoch: clean probabilities, the losses that they are of, a share."""

    clean: np.ndarray
    losses: np.ndarray
    share: float | None


def verdicts(one: Observer, other: Observer, epoch: int, smoothed: np.ndarray) -> dict[str, Verdict]:
    """Every estimator's, by name; ``smoothed`` are the first adapter's losses over the epochs."""
    labels = one.data.labels
    losses, others = (losses_of(side.predicted[epoch - 1], labels) for side in (one, other))
    events = np.mean([p.argmax(axis=1) != labels for p in one.predicted[:epoch]], axis=0)
    apart = jensen_shannon(one.predicted[epoch - 1], other.predicted[epoch - 1])

    def of(clean: np.ndarray, losses: np.ndarray) -> Verdict:
        return Verdict(clean, losses, float((1 - clean).mean()))

    return {
        "raw": of(RAW.estimate(losses).clean_probability, losses),
        "log odds": of(LOG_ODDS.estimate(losses).clean_probability, losses),
        "smoothed": of(LOG_ODDS.estimate(smoothed).clean_probability, smoothed),
        "paper": of(PAPER.estimate(losses).clean_probability, losses),
        "events": Verdict(1 - events, losses, float((events > 0.5).mean())),
        "other": of(LOG_ODDS.estimate(others).clean_probability, others),
        "differ": Verdict(-apart, losses, None),
        "probe": of(one.probed[epoch - 1], losses),
    }


def main(options: argparse.Namespace) -> None:
    """Train twice, judge, print."""
    data = noisy_rows(options)
    one, other = (observed(data, options, options.seed + offset) for offset in (0, 1))
    smoothed = np.full(len(data.labels), np.nan)
    for epoch in range(1, options.epochs + 1):
        smoothed = smooth(smoothed, losses_of(one.predicted[epoch - 1], data.labels), 0.7)
        found = verdicts(one, other, epoch, smoothed)
        if epoch == 1:
            print("epoch", *(f"{name:>13}" for name in found))
        cells = []
        for verdict in found.values():
            suspicion = np.empty(len(data.labels))
            suspicion[np.lexsort((verdict.losses, -verdict.clean))] = np.arange(len(data.labels))
            precision = f"{average_precision_score(data.wrong, suspicion):.3f}" if data.wrong.any() else "-"
            share = "-" if verdict.share is None else f"{verdict.share:.3f}"
            cells.append(f"{precision} {share:>5}")
        print(f"{epoch:5}", *(f"{cell:>13}" for cell in cells), flush=True)


def observed(data: NoisyRows, options, seed: int) -> Observer:
    """Train an adapter and keep what it said."""
    with tempfile.TemporaryDirectory() as folder:
        # all judge by the same weights, and not the probe alone by averaged ones
        trainer = trainer_of(data, options, seed, folder, ema_epochs=0.0)
        observer = Observer(trainer, data, options.epochs)
        trainer.add_callback(observer)
        trainer.train()
    return observer


def losses_of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross entropies of the given labels, (N,)."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-30))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Divergence of two predictions for each row, in nats, (N,)."""
    middle = (p + q) / 2
    return (rel_entr(p, middle).sum(axis=1) + rel_entr(q, middle).sum(axis=1)) / 2


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument(
        "--epochs", type=int, default=4, choices=range(1, 11), metavar="1..10", help="of the ten"
    )
    begin(main, parser)
