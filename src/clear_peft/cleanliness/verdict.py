"""Do the losses show wrong labels at all?

A mixture always finds two components. On (nearly) clean data the second is the tail of hard examples, and
distrusting it throws good data away. Likelihood does not help: losses are never Gaussian, so BIC always
prefers two. What separates wrong labels from hard ones is a *valley*: hard examples trail off, wrong labels
form a mode of their own.
"""

import numpy as np
import numpy.typing as npt

from clear_peft.cleanliness.mixture import GaussianMixture
from clear_peft.cleanliness.scale import class_shifts, log_odds

# From a trial, to be repeated by the benchmark: losses of plain LoRA (MiniLM-L6, 1,200 to 2,500 rows, one
# seed, epochs 1-6, last and averaged weights), with labels given; chosen with a look at these very losses.
# No noise (TREC-6, BANKING77, SST-5): never below 0.89. Symmetric noise, from epoch 2 on: TREC-6 10 %
# 0.62-0.81, TREC-6 40 % 0.07-0.65, BANKING77 60 % 0.59-0.70. Above 0.9 from epoch 3 on, and so not acted
# upon, stay SST-5 with 40 % and NoisyAG-News (21 % human errors), whose losses tell wrong from right poorly
# (ROC AUC 0.74 and 0.8). After fewer than about 130 training steps, with the classes still being learnt, it
# can err either way.
SECOND_MODE_BELOW = 0.8

# A smaller component than this is too few examples to speak of a mode.
_FEWEST_EXAMPLES = 20


def valley_ratio(losses: npt.NDArray[np.floating], labels: npt.NDArray[np.integer] | None = None) -> float:
    """How deep the valley between the two modes of the losses is: low is a clear second mode.

    Fits two Gaussians to the log-odds against the given labels and compares the fitted density at the valley
    between the means with its upper mode. An untrained model separates the classes, not the wrong labels:
    with ``labels``, each class's mean is removed first (shrunk, random-effects style, for small classes).

    Args:
        losses: Cross entropies, (N,), finite, not all alike.
        labels: Given labels, (N,); without them classes that differ can look like a second mode.

    Returns:
        Density at the valley over density at the upper mode, in (0, 1]; 1 where there is no valley or the
        smaller component holds fewer than 20 examples.
    """
    values = log_odds(losses)
    if labels is not None:
        values = values - class_shifts(values, labels)[2]
    if np.ptp(values) <= 1e-9:
        return 1.0
    mixture = GaussianMixture.fit(values)
    if mixture.weights.min() * len(values) < _FEWEST_EXAMPLES:
        return 1.0
    density = np.exp(mixture.log_density(np.linspace(mixture.means[0], mixture.means[1], 512))).sum(axis=0)
    valley = int(density.argmin())
    return float(density[valley] / density[valley:].max())
