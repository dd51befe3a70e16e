"""Which estimator knows the wrong labels best, epoch by epoch, by true labels of training rows.

Run it with `python benchmarks/estimators.py --data trec6/train.csv --kind symmetric --rate 0.6`, on a table
with the columns text and label; a column clean_label, if there is one, takes the place of --kind. Trains two
adapters, which differ in their seed, on the given labels (MiniLM, LoRA r = 8, batches of 32, at most 64
tokens, peak learning rate 1e-3 of a schedule over ten epochs, the head begins as a probe), and lets every
estimator judge all rows after each epoch. Prints how each ranks the wrong labels (average precision), and the
share of wrong labels that it estimates:

  raw         two Gaussians on the losses (the paper's)
  log odds    two Gaussians on the losses' log odds
  smoothed    the same, losses averaged over epochs (weight 0.7 for those before)
  class-wise  log odds, each class's mean taken away
  beta        two Beta distributions
  events      share of the epochs in which another class was predicted; wrong where it is above a half
  other       two Gaussians on the log odds of the other adapter's losses (Co-teaching's exchange)
  differ      how far the two adapters' predictions are apart (Jensen-Shannon), which estimates no share
  probe       a linear probe on the features and a noise model (ours)
"""

import tempfile

import numpy as np
from scipy.special import rel_entr, softmax
from sklearn.metrics import average_precision_score
from transformers import TrainerCallback

from clear_peft.cleanliness import BetaMixtureCleanliness, GaussianMixtureCleanliness, smooth
from clear_peft.training import CleaRTrainer
from warm_up import NoisyRows, arguments, logits_of, noisy_rows, trainer_of

RAW = GaussianMixtureCleanliness(scale="loss", monotone=False)
LOG_ODDS = GaussianMixtureCleanliness()
CLASS_WISE = GaussianMixtureCleanliness(class_wise=True)


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
        self.probed.append(self.trainer.cleanliness.clean_probability)
        control.should_training_stop = state.epoch >= self.last


def main() -> None:
    """Train twice, judge, print."""
    parser = arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=4, help="of the ten")
    options = parser.parse_args()
    data = noisy_rows(options)
    one, other = (observed(data, options, options.seed + offset) for offset in (0, 1))
    names = ("raw", "log odds", "smoothed", "class-wise", "beta", "events", "other", "differ", "probe")
    print("epoch", *(f"{name:>13}" for name in names))
    smoothed = None
    for epoch in range(1, options.epochs + 1):
        losses, others = (losses_of(side.predicted[epoch - 1], data.labels) for side in (one, other))
        smoothed = losses if smoothed is None else smooth(smoothed, losses, 0.7)
        events = np.mean([p.argmax(axis=1) != data.labels for p in one.predicted[:epoch]], axis=0)
        apart = jensen_shannon(one.predicted[epoch - 1], other.predicted[epoch - 1])
        verdicts = [
            RAW.estimate(losses).clean_probability,
            LOG_ODDS.estimate(losses).clean_probability,
            LOG_ODDS.estimate(smoothed).clean_probability,
            CLASS_WISE.estimate(losses, data.labels).clean_probability,
            BetaMixtureCleanliness().estimate(losses).clean_probability,
            1 - events,
            LOG_ODDS.estimate(others).clean_probability,
            -apart,
            one.probed[epoch - 1],
        ]
        shares = [f"{(v < 0.5).mean() if i == 5 else (1 - v).mean():.3f}" for i, v in enumerate(verdicts)]
        shares[7] = "-"
        precisions = [average_precision_score(data.wrong, -v) for v in verdicts]
        cells = (f"{p:.3f} {share:>5}" for p, share in zip(precisions, shares, strict=True))
        print(f"{epoch:5}", *(f"{cell:>13}" for cell in cells), flush=True)


def observed(data: NoisyRows, options, seed: int) -> Observer:
    """Train an adapter and keep what it said."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(data, options, seed, folder)
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
    main()
