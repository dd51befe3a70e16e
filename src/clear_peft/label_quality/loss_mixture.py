"""Clean probabilities from a two-component mixture of the losses (Arazo et al. 2019; DivideMix; CleaR)."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.label_quality.checks import all_alike, check_labels, check_losses
from clear_peft.label_quality.gaussian_mixture import GaussianMixture
from clear_peft.label_quality.scale import log_odds

_CHUNK = 1 << 17
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True, eq=False)
class MixtureEstimate:
    """What a mixture of the losses says of each label.

    Attributes:
        clean_probability: p, (N,) float32 in [0, 1]. An example without a loss (NaN) has p = 1: nothing
            speaks against its label.
        components: 2, or 1 where the losses are all alike and every p is 1.
        parameters: What was fitted, JSON-able, enough to draw the fitted curve over the losses.
    """

    clean_probability: npt.NDArray[np.float32]
    components: Literal[1, 2]
    parameters: dict[str, Any]


class LossMixture(Protocol):
    """Turns per-example losses into clean probabilities. A new one is one class with this method."""

    def estimate(self, losses: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> MixtureEstimate:
        """Estimate how believable each label is.

        Args:
            losses: Per-example losses under the given labels, (N,) float, N ≥ 1; NaN where an example has
                not been scored.
            labels: The given labels, (N,) int, for mixtures that treat classes apart.

        Returns:
            The estimate, in the order of ``losses``.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GaussianLossMixture:
    """Clean probability from two Gaussians (CleaR, arXiv 2411.00873; DivideMix, arXiv 2002.07394).

    With ``scale="loss", monotone=False`` this is the plain posterior of a mixture on the raw losses, fitted
    until the posteriors no longer move. The authors of CleaR stop earlier: ``PaperMixture``.

    Attributes:
        scale: Where the Gaussians are fitted: ``"log_odds"``, log((1 − p_y)/p_y), on which cross entropies
            are nearly bell-shaped, or ``"loss"``, the losses as they are. An affine map of the losses
            changes nothing on the latter.
        monotone: Make p non-increasing in the loss. Where the variances differ the plain posterior is not,
            and the smallest losses can look dirty.
    """

    scale: Literal["log_odds", "loss"] = "log_odds"
    monotone: bool = True

    def estimate(self, losses: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> MixtureEstimate:
        """Fit the mixture and take the posterior of the component with the smaller mean.

        Args:
            losses: Per-example losses under the given labels, (N,) float, N ≥ 1. NaN means never scored:
                left out of the fit, p = 1.
            labels: The given labels, (N,) int. Not used.

        Returns:
            The estimate, in the order of ``losses``. Losses that are all alike are all clean.

        Raises:
            InputError: If the losses are not one-dimensional, empty, infinite, or negative where cross
                entropies are needed, or if the labels do not fit the losses.
        """
        every = check_losses(losses)
        if labels is not None:
            check_labels(labels, len(every))
        scored = ~np.isnan(every)
        seen, clean = every[scored], np.ones(len(every), np.float32)
        if all_alike(seen):
            return MixtureEstimate(clean, 1, {})
        values = self._scaled(seen)
        if all_alike(values):  # losses that the scale cannot tell apart
            return MixtureEstimate(clean, 1, {})
        mixture = GaussianMixture.fit(values)
        posterior = np.empty(len(values), np.float32)
        for start in range(0, len(values), _CHUNK):  # bounds what it takes beside the values
            part = slice(start, start + _CHUNK)
            posterior[part] = mixture.lower_posterior(values[part], monotone=self.monotone)
        clean[scored] = posterior
        return MixtureEstimate(clean, 2, {"scale": self.scale, **mixture.describe()})

    def _scaled(self, losses: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        if self.scale == "loss":
            return losses.astype(np.float64)
        if losses.min() < 0:
            raise InputError(
                f"A loss is {losses.min():.3g}, which no cross entropy is: give cross entropies, or take "
                "scale='loss'."
            )
        return log_odds(losses)


@dataclass(frozen=True)
class PaperMixture:
    """Clean probability from scikit-learn's two Gaussians on the raw losses (CleaR, arXiv 2411.00873).

    ``GaussianMixture(2, random_state=0)`` with its defaults: it starts from k-means, and stops when a step
    raises the mean log-likelihood by less than .001, or after 100 steps. p is the posterior of the component
    with the smaller mean.

    Where it stops matters. If some classes are learnt much better than others, the likelihood hardly rises
    for many steps and then jumps, once one component has shrunk onto the tiny losses of the well-learnt
    classes: then all labels of the other classes look wrong. Stopping early often forgoes that.
    ``GaussianLossMixture(scale="loss", monotone=False)`` goes on to the end.

    Three things follow from the defaults. The units of the losses matter: scikit-learn adds 1e-6 to each
    variance, so that losses that differ by less than about .001 all get the same p, which says nothing. The
    order of the rows matters where k-means has several solutions, since it starts from rows drawn by their
    position. And p can fall again towards the smallest losses, where the variances differ.
    """

    def estimate(self, losses: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> MixtureEstimate:
        """Fit the mixture and take the posterior of the component with the smaller mean.

        Args:
            losses: Per-example losses under the given labels, (N,) float, N ≥ 1. NaN means never scored:
                left out of the fit, p = 1.
            labels: The given labels, (N,) int. Not used.

        Returns:
            The estimate, in the order of ``losses``. Losses that are all alike are all clean.

        Raises:
            InputError: If the losses are not one-dimensional, empty, infinite, or larger than float32 holds,
                or if the labels do not fit the losses.
        """
        # scikit-learn takes a second to import, and not every command fits this mixture
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        every = check_losses(losses)
        if labels is not None:
            check_labels(labels, len(every))
        scored = ~np.isnan(every)
        values = every[scored].astype(np.float64)
        clean = np.ones(len(every), np.float32)
        # scikit-learn squares distances: those of float32 losses have a square in float64, others may not
        if values.size and np.abs(values).max() > _LARGEST:
            raise InputError(
                f"A loss is {np.abs(values).max():.3g}: score in float32, or mark what it cannot hold NaN."
            )
        if all_alike(values) or np.ptp(values) < _SMALLEST:
            return MixtureEstimate(clean, 1, {})

        mixture = GaussianMixture(2, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 100 steps are what is wanted
            mixture.fit(values[:, None])
        lower_first = mixture.means_.ravel().argsort(kind="stable")
        clean[scored] = mixture.predict_proba(values[:, None])[:, lower_first[0]]
        parameters = {
            "scale": "loss",
            "family": "gaussian",
            "weights": mixture.weights_[lower_first].tolist(),
            "means": mixture.means_.ravel()[lower_first].tolist(),
            "variances": mixture.covariances_.ravel()[lower_first].tolist(),
        }
        return MixtureEstimate(clean, 2, parameters)
