"""Clean probabilities from a two-component mixture on the losses (Arazo et al. 2019; DivideMix; CleaR)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.label_quality.estimate import CleanlinessEstimate
from clear_peft.label_quality.mixture import Array, BetaMixture, GaussianMixture, Mixture
from clear_peft.label_quality.scale import class_shifts, log_odds, unit_interval

_CHUNK = 1 << 17


@dataclass(frozen=True, kw_only=True)
class _MixtureCleanliness:
    """The steps that both families share."""

    monotone: bool = True
    class_wise: bool = False

    _family: ClassVar[type[Mixture]]

    def estimate(self, losses: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> CleanlinessEstimate:
        """Fit the mixture and take the posterior of the component with the smaller mean.

        Args:
            losses: Per-example losses under the given labels, (N,) float, N ≥ 1. NaN means never scored:
                left out of the fit, p = 1.
            labels: The given labels, (N,) int. Needed with ``class_wise`` alone.

        Returns:
            The estimate, in the order of ``losses``. Losses that are all alike are all clean.

        Raises:
            InputError: If the losses are not one-dimensional, empty, infinite, or negative where cross
                entropies are needed, or if the labels are missing or do not fit the losses.
        """
        all_losses = _check_losses(losses)
        all_labels = None if labels is None else _check_labels(labels, len(all_losses))
        if self.class_wise and all_labels is None:
            raise InputError("class_wise needs the given labels: pass labels to estimate, or switch it off.")
        scored = ~np.isnan(all_losses)
        seen = all_losses[scored]
        seen_labels = None if all_labels is None else all_labels[scored]
        clean = np.ones(len(all_losses), np.float32)

        if _all_alike(seen):
            return CleanlinessEstimate(clean, 1, {})
        values, parameters = self._scaled(seen)
        if self.class_wise and seen_labels is not None:
            classes, shifts, shift = class_shifts(values, seen_labels)
            values = values - shift
            parameters["class_shifts"] = dict(zip(map(str, classes), shifts.tolist(), strict=True))
        values, support = self._in_support(values)
        parameters |= support
        if _all_alike(values):  # losses that the scale cannot tell apart
            return CleanlinessEstimate(clean, 1, {})
        mixture = self._family.fit(values)
        parameters |= mixture.describe()
        posterior = np.empty(len(values), np.float32)
        for start in range(0, len(values), _CHUNK):  # bounds what it takes beside the values
            part = slice(start, start + _CHUNK)
            posterior[part] = mixture.lower_posterior(values[part], monotone=self.monotone)
        clean[scored] = posterior
        return CleanlinessEstimate(clean, 2, parameters)

    def _scaled(self, losses: npt.NDArray[np.floating]) -> tuple[Array, dict[str, Any]]:
        """The losses on the scale where classes are compared, and that scale for the parameters."""
        return losses.astype(np.float64), {"scale": "loss"}

    def _in_support(self, values: Array) -> tuple[Array, dict[str, Any]]:
        """The values moved into the family's support, and how, for the parameters."""
        return values, {}


@dataclass(frozen=True, kw_only=True)
class GaussianMixtureCleanliness(_MixtureCleanliness):
    """Clean probability from two Gaussians (CleaR, arXiv 2411.00873; DivideMix, arXiv 2002.07394).

    With ``scale="loss", monotone=False`` this is the estimator of the CleaR paper: the plain posterior of a
    mixture on the raw losses.

    Attributes:
        scale: Where the Gaussians are fitted: ``"log_odds"``, log((1 − p_y)/p_y), on which cross entropies
            are nearly bell-shaped, or ``"loss"``, the losses as they are. An affine map of the losses
            changes nothing on the latter.
        monotone: Make p non-increasing in the loss. Where the variances differ the plain posterior is not,
            and the smallest losses can look dirty.
        class_wise: Take each class's mean away first, shrunk for small classes: for many classes or rare,
            hard ones. It costs accuracy where the classes differ in noise. Needs labels.
    """

    scale: Literal["log_odds", "loss"] = "log_odds"

    _family: ClassVar[type[Mixture]] = GaussianMixture

    def _scaled(self, losses: npt.NDArray[np.floating]) -> tuple[Array, dict[str, Any]]:
        if self.scale == "loss":
            return super()._scaled(losses)
        _check_cross_entropies(losses)
        return log_odds(losses), {"scale": "log_odds"}


@dataclass(frozen=True, kw_only=True)
class BetaMixtureCleanliness(_MixtureCleanliness):
    """Clean probability from two Beta distributions on the losses mapped to [0, 1] (arXiv 1904.11238).

    The smallest and largest loss become 0 and 1, so an affine map of the losses changes nothing.

    Attributes:
        monotone: Make p non-increasing in the loss, which the plain posterior need not be.
        class_wise: Take each class's mean away first, shrunk for small classes: for many classes or rare,
            hard ones. It costs accuracy where the classes differ in noise. Needs labels.
    """

    _family: ClassVar[type[Mixture]] = BetaMixture

    def _in_support(self, values: Array) -> tuple[Array, dict[str, Any]]:
        low, high = float(values.min()), float(values.max())
        return unit_interval(values, low, high), {"low": low, "high": high}


def _all_alike(values: npt.NDArray[np.floating]) -> bool:
    return values.size == 0 or bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


def _check_losses(losses: npt.ArrayLike) -> npt.NDArray[np.floating]:
    array = np.asarray(losses)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"losses have shape {array.shape} and dtype {array.dtype}: give a non-empty 1-D float array."
        )
    if np.isinf(array).any():
        raise InputError(f"{np.isinf(array).sum()} losses are infinite: score in float32, or mark them NaN.")
    return array


def _check_labels(labels: npt.ArrayLike, count: int) -> npt.NDArray[np.integer]:
    array = np.asarray(labels)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"labels have shape {array.shape} and dtype {array.dtype}: give one integer per loss, ({count},)."
        )
    return array


def _check_cross_entropies(losses: npt.NDArray[np.floating]) -> None:
    if losses.min() < 0:
        raise InputError(
            f"A loss is {losses.min():.3g}, which no cross entropy is: give cross entropies, or take "
            "scale='loss'."
        )
