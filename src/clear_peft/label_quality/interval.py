"""An interval for the noise rate."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clear_peft.label_quality.calibration import Fit, refitted, single_threaded, with_noise_rate
from clear_peft.label_quality.types import Array

_DRAWS = 16
_MOST_CELLS = 1 << 17
# chosen on the odd cells of benchmarks/coverage.py and confirmed on the even ones
_STANDARD_ERRORS, _RESOLUTION = 3.0, 0.03
_SEED = 0
# rates that are tried beyond the interval, and nats by which they may explain labels worse
_TRIED = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_NEARLY_AS_WELL = 2.0


def noise_rate_interval(rate: float, error: float) -> tuple[float, float]:
    """A 95 % interval for the share of wrong labels, under the assumption of the noise model.

    Its half-width is three standard errors, which cover what the bootstrap does not resample (scores and
    penalties), and .03, a resolution below which hard rows and wrong labels cannot be told apart. Both
    numbers were chosen on half of the cells of ``benchmarks/coverage.py`` and confirmed on the other half.

    The assumption: a wrong label depends on the true class, and not on the text beyond it. Labels that
    people, rules or language models got wrong for a reason look right: the true rate is then above the
    interval.

    Args:
        rate: The estimate.
        error: Its standard error, ``rate_error``.

    Returns:
        Lower and upper end, in [0, 1]; the estimate lies between them.
    """
    half = _STANDARD_ERRORS * error + _RESOLUTION
    return max(0.0, rate - half), min(1.0, rate + half)


@single_threaded
def rate_error(
    fit: Fit,
    views: Sequence[npt.NDArray[np.floating]],
    labels: npt.NDArray[np.integer],
    counted: Array,
    groups: npt.NDArray[np.integer] | None,
) -> float:
    """Bootstrap standard error of the noise rate (Efron 1979; the Bayesian form with Poisson weights).

    Groups are resampled 16 times; calibration and noise model are refitted from the current solution.

    Args:
        fit: Calibration and noise model of these rows.
        views: Their scores, (N, C) each.
        labels: Given labels, (N,).
        counted: How much each row counts, (N,).
        groups: Group of each row, (N,); None if all are alone.
    """
    rng = np.random.default_rng(_SEED)
    size, classes = views[0].shape
    some = rng.permutation(size)[: max(_MOST_CELLS // classes, 500)]
    views, labels, counted = [view[some] for view in views], labels[some], counted[some]
    codes = np.arange(len(some)) if groups is None else np.unique(groups[some], return_inverse=True)[1]
    rates = []
    for _ in range(_DRAWS):
        drawn = counted * rng.poisson(1.0, codes.max() + 1)[codes]
        if drawn.any():
            again = refitted(fit, views, labels, drawn)
            p = again.noise.clean_probability(again.calibration(views), labels)
            rates.append(1 - float(np.average(p, weights=drawn)))
    # of a part of the rows the error is larger than of all
    return float(np.std(rates) * np.sqrt(len(some) / size)) if len(rates) > 1 else 1.0


@single_threaded
def widened(
    interval: tuple[float, float],
    fit: Fit,
    views: Sequence[npt.NDArray[np.floating]],
    labels: npt.NDArray[np.integer],
    counted: Array,
) -> tuple[float, float]:
    """The interval, with the rates beyond it that explain the labels nearly as well (profile likelihood).

    Where classes overlap much, or scores take few values, wrong labels and unsure predictions can explain
    the same table.

    Args:
        interval: ``noise_rate_interval``.
        fit: Calibration and noise model of these rows.
        views: Their scores, (N, C) each.
        labels: Given labels, (N,).
        counted: How much each row counts, (N,).
    """
    low, high = interval
    if not counted.any():
        return 0.0, 1.0
    ends = []
    for rates in ([r for r in reversed(_TRIED) if r < low], [r for r in _TRIED if r > high]):
        end = None
        for rate in rates:
            again = with_noise_rate(fit, views, labels, counted, rate)
            if again.objective < fit.objective - _NEARLY_AS_WELL:
                break
            end = rate
        ends.append(end)
    return low if ends[0] is None else ends[0], high if ends[1] is None else ends[1]
