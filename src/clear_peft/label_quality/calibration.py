"""Class scores and doubtful labels in; calibrated probabilities of the true classes and a noise model out.

Scores of a row come from models that have not seen its label. They predict *given* labels, wrong ones too, so
probabilities of *true* classes have to be found together with the noise: by maximum likelihood of

    P(given label j | row) = Σ_i softmax(s + s·M + b)_i · T_ij,    s = Σ_v a_v · scores_v,

in the weights a of the score views, a bias b, for few classes a mixing matrix M, and the transition matrix T
(forward correction: Patrini et al. 2017, arXiv 1609.03683, with few parameters in the place of a network).
Wrong labels that dice have made show in classes that a row surely does not belong to, and still gets. A model
that is merely unsure gives all classes some probability, and no noise is needed to explain its labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import softmax

from clear_peft.label_quality.noise_model import TINY, NoiseKind, NoiseModel

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]

_STEPS = 150
_FLIP_SEARCHES = 8
# Gaussian priors: log a (around 0, views are scaled to a root mean square of 1), b and M
_WEIGHT_MEAN, _WEIGHT_PRECISION = 0.0, 4.0
_BIAS_PRECISION = 0.1
_MIXING_PRECISION = 10.0
# a class-conditional T begins with one label for each class: .7 of it right, the rest even
_PRIOR_RIGHT = 0.7
# M and a class-conditional T have C² numbers
_MOST_CLASSES = 50
_ROWS_FOR_MIXING = 10


@dataclass(frozen=True, eq=False)
class Calibration:
    """The map from scores to probabilities of the true classes.

    Attributes:
        weights: a divided by the scales of the views, (V,).
        bias: b, (C,).
        mixing: M, (C, C); None where it is 0.
    """

    weights: Array
    bias: Array
    mixing: Array | None

    def __call__(self, views: Sequence[npt.NDArray[np.floating]]) -> Array:
        """P(true class | row), (N, C) float64, from V score views, (N, C) each."""
        scores = sum(a * centred(view) for a, view in zip(self.weights, views, strict=True))
        mixed = 0 if self.mixing is None else scores @ self.mixing
        return softmax(scores + mixed + self.bias, axis=1)


@dataclass(frozen=True, eq=False)
class Fit:
    """A calibration and a noise model, fitted together.

    Attributes:
        calibration: Scores to probabilities.
        noise: Probabilities to given labels.
        objective: Log likelihood of the labels with the priors, in nats.
        cost: Nats that its parameters gain by chance; of fits, the one with most beyond this is taken.
    """

    calibration: Calibration
    noise: NoiseModel
    objective: float
    cost: float
    theta: Array
    targets: Labels | None


def centred(view: npt.NDArray[np.floating]) -> Array:
    """Scores (N, C) less their mean over the classes."""
    return np.asarray(view - view.mean(axis=1, keepdims=True), np.float64)


def calibrate(views: Sequence[npt.NDArray[np.floating]], labels: Labels, weights: Array | None = None) -> Fit:
    """Fit calibration and noise model together; the kind of noise is chosen by an information criterion.

    More than symmetric noise has to make labels likelier by more than its parameters cost: for pair flips the
    logarithm of the choices of targets, C·log C, and of a rate; for class-conditional noise two nats for each
    of C·(C − 1) numbers. The latter, and M, are left out for more than 50 classes, M also for fewer than
    10·(C − 1)² rows.

    Args:
        views: Out-of-sample scores of N rows and C classes on any scale, (N, C) each.
        labels: Given labels, (N,).
        weights: How much each row counts, (N,). Default: all alike.
    """
    size, classes = views[0].shape
    counted = np.ones(size) if weights is None else weights
    problem = _Problem.of(views, labels, counted)
    symmetric = max(
        (problem.fit("symmetric", start) for start in ((2.0, -3.0), (6.0, 0.0))),
        key=lambda fit: fit.objective,
    )
    fits = [symmetric, _pair_flips(problem, symmetric)] if classes > 1 else [symmetric]
    rows = float(counted.sum())
    price = 2.0 * classes * (classes - 1)
    if classes <= _MOST_CLASSES and price < rows * np.log(classes):
        conditional = [problem.refit("class_conditional", fit) for fit in fits]
        best = max(conditional, key=lambda fit: fit.objective)
        fits.append(replace(best, cost=price))
    return max(fits, key=lambda fit: fit.objective - fit.cost)


def refitted(
    fit: Fit, views: Sequence[npt.NDArray[np.floating]], labels: Labels, weights: Array, steps: int = 25
) -> Fit:
    """Fit again from where a fit has ended, with the same kind of noise and flips, rows weighted anew."""
    problem = _Problem.of(views, labels, weights, mixes=fit.calibration.mixing is not None)
    theta = fit.theta.copy()
    theta[: len(views)] = np.log(fit.calibration.weights * problem.scales)
    return problem.refit(fit.noise.kind, replace(fit, theta=theta), fit.targets, steps)


def _pair_flips(problem: "_Problem", symmetric: Fit) -> Fit:
    """Each class with the flip target that its labels show; from two starts, as few rows show little."""
    classes = problem.num_classes
    noisy = NoiseModel("symmetric", np.full((classes, classes), 0.3 / classes) + 0.7 * np.eye(classes))
    found = []
    for pred_probs, noise in (
        (problem.probabilities(symmetric.theta, "symmetric"), symmetric.noise),
        (problem.even_probabilities(6.0), noisy),
    ):
        targets = problem.flip_targets(pred_probs, noise)
        fit = problem.fit("pair_flip", (6.0, -1.5, -0.5), targets)
        for _ in range(_FLIP_SEARCHES):
            again = problem.flip_targets(problem.probabilities(fit.theta, "pair_flip"), fit.noise)
            if (again == targets).all():
                break
            targets = again
            fit = problem.refit("pair_flip", fit, targets)
        found.append(fit)
    best = max(found, key=lambda fit: fit.objective)
    cost = classes * np.log(classes) + 0.5 * np.log(max(float(problem.counted.sum()), 1))
    return replace(best, cost=float(cost))


@dataclass(frozen=True, eq=False)
class _Problem:
    """The data of one likelihood, and its maximisation. θ = (log a, parameters of T, b, M).

    Classes by rows, not rows by classes, and rows in the order of their labels: sums run along memory.
    """

    views: list[Array]
    scales: Array
    labels: Labels
    present: Labels
    starts: Labels
    counted: Array
    mixes: bool

    @classmethod
    def of(
        cls,
        views: Sequence[npt.NDArray[np.floating]],
        labels: Labels,
        counted: Array,
        *,
        mixes: bool | None = None,
    ) -> "_Problem":
        size, classes = views[0].shape
        order = np.argsort(labels, kind="stable")
        rows = [np.ascontiguousarray(centred(view)[order].T) for view in views]
        scales = np.array([np.sqrt((view**2).mean()) or 1.0 for view in rows])
        if mixes is None:
            mixes = classes <= _MOST_CLASSES and _ROWS_FOR_MIXING * (classes - 1) ** 2 <= size
        present, starts = np.unique(labels[order], return_index=True)
        scaled = [view / scale for view, scale in zip(rows, scales, strict=True)]
        return cls(scaled, scales, labels[order], present, starts, counted[order], mixes)

    @property
    def num_classes(self) -> int:
        return len(self.views[0])

    def fit(self, kind: NoiseKind, start: tuple[float, ...], targets: Labels | None = None) -> Fit:
        """Fit from a sharpness (of all views together) and parameters of T."""
        weight, *noise = start
        log_weights = np.full(len(self.views), np.log(weight / len(self.views)))
        rest = np.zeros(self.num_classes + (self.num_classes**2 if self.mixes else 0))
        return self._maximised(kind, np.concatenate([log_weights, noise, rest]), targets)

    def refit(self, kind: NoiseKind, fit: Fit, targets: Labels | None = None, steps: int = _STEPS) -> Fit:
        """Fit from where another fit, of the same or a simpler kind, has ended."""
        theta = fit.theta
        if kind != fit.noise.kind:
            views, known = len(self.views), _noise_size(fit.noise.kind, self.num_classes)
            logits = np.log(np.maximum(fit.noise.transition, 1e-4)).ravel()
            theta = np.concatenate([theta[:views], logits, theta[views + known :]])
        return self._maximised(kind, theta, targets, steps)

    def flip_targets(self, probabilities: Array, noise: NoiseModel) -> Labels:
        """The class that each class's wrong labels mostly name, (C,), by P(true class | row), (C, N)."""
        joint = probabilities * noise.transition[:, self.labels]
        counts = self._by_label(joint * (self.counted / np.maximum(joint.sum(axis=0), TINY)))
        np.fill_diagonal(counts, -1)
        return counts.argmax(axis=1)

    def probabilities(self, theta: Array, kind: NoiseKind) -> Array:
        """P(true class | row), (C, N)."""
        return softmax(self._logits(theta, _noise_size(kind, self.num_classes))[1], axis=0)

    def even_probabilities(self, sharpness: float) -> Array:
        """The same where all views count alike, and nothing else is known."""
        return softmax(sharpness * sum(self.views) / len(self.views), axis=0)

    def _by_label(self, values: Array) -> Array:
        """Sums over the rows of each label, (C, N) → (C, C)."""
        sums = np.zeros((self.num_classes, self.num_classes))
        sums[:, self.present] = np.add.reduceat(values, self.starts, axis=1)
        return sums

    def _logits(self, theta: Array, noise_size: int) -> tuple[Array, Array, Array | None]:
        """Σ a·view, the logits, (C, N) each, and M."""
        views, classes = len(self.views), self.num_classes
        scores = np.zeros_like(self.views[0])
        for weight, view in zip(np.exp(theta[:views]), self.views, strict=True):
            scores += weight * view
        logits = scores + theta[views + noise_size : views + noise_size + classes, None]
        if not self.mixes:
            return scores, logits, None
        mixing = theta[views + noise_size + classes :].reshape(classes, classes)
        return scores, logits + mixing.T @ scores, mixing

    def _maximised(
        self, kind: NoiseKind, theta: Array, targets: Labels | None = None, steps: int = _STEPS
    ) -> Fit:
        result = minimize(
            self._negative,
            theta,
            args=(kind, targets),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps},
        )
        theta, views = result.x, len(self.views)
        size = _noise_size(kind, self.num_classes)
        _, _, mixing = self._logits(theta, size)
        bias = theta[views + size : views + size + self.num_classes]
        transition = _transition(kind, theta[views : views + size], self.num_classes, targets)
        calibration = Calibration(np.exp(theta[:views]) / self.scales, bias, mixing)
        return Fit(calibration, NoiseModel(kind, transition), -float(result.fun), 0.0, theta, targets)

    def _negative(self, theta: Array, kind: NoiseKind, targets: Labels | None) -> tuple[float, Array]:
        """Minus the objective, and its gradient."""
        views, classes = len(self.views), self.num_classes
        size = _noise_size(kind, classes)
        scores, logits, mixing = self._logits(theta, size)
        logits -= logits.max(axis=0)
        np.exp(logits, out=logits)
        probabilities = np.divide(logits, logits.sum(axis=0), out=logits)
        transition = _transition(kind, theta[views : views + size], classes, targets)
        shares = probabilities * transition[:, self.labels]
        likelihoods = np.maximum(shares.sum(axis=0), TINY)
        objective = float(self.counted @ np.log(likelihoods))
        shares *= self.counted / likelihoods  # the posterior, each row as it counts
        counts = self._by_label(shares)  # expected number of (true, given)
        noise_gradient, noise_prior = _noise_gradient(
            kind, theta[views : views + size], counts, transition, targets
        )
        probabilities *= self.counted
        by_logits = np.subtract(shares, probabilities, out=shares)
        by_scores = by_logits if mixing is None else by_logits + mixing @ by_logits
        bias = theta[views + size : views + size + classes]
        off = theta[:views] - _WEIGHT_MEAN
        prior = 0.5 * (_WEIGHT_PRECISION * off @ off + _BIAS_PRECISION * bias @ bias)
        by_weights = [
            a * np.vdot(by_scores, view) for a, view in zip(np.exp(theta[:views]), self.views, strict=True)
        ]
        gradient = [
            np.array(by_weights) - _WEIGHT_PRECISION * off,
            noise_gradient,
            by_logits.sum(axis=1) - _BIAS_PRECISION * bias,
        ]
        if mixing is not None:
            prior += 0.5 * _MIXING_PRECISION * float((mixing**2).sum())
            gradient.append((scores @ by_logits.T - _MIXING_PRECISION * mixing).ravel())
        return float(prior - objective - noise_prior), -np.concatenate(gradient)


def _noise_size(kind: NoiseKind, classes: int) -> int:
    return {"symmetric": 1, "pair_flip": 2, "class_conditional": classes**2}[kind]


def _transition(kind: NoiseKind, parameters: Array, classes: int, targets: Labels | None) -> Array:
    """T from its unconstrained parameters: logits of its rows or, against 'kept', of 'even' and 'flipped'."""
    if kind == "class_conditional":
        return softmax(parameters.reshape(classes, classes), axis=1)
    shares = softmax(np.append(0.0, parameters))
    transition = np.full((classes, classes), shares[1] / classes)
    transition[np.diag_indices(classes)] += shares[0]
    if kind == "pair_flip":
        transition[np.arange(classes), targets] += shares[2]
    return transition


def _noise_gradient(
    kind: NoiseKind, parameters: Array, counts: Array, transition: Array, targets: Labels | None
) -> tuple[Array, float]:
    """Of the log likelihood and the prior of T in its parameters, and the log prior."""
    classes = len(counts)
    if kind == "class_conditional":
        prior = np.full((classes, classes), (1 - _PRIOR_RIGHT) / classes) + _PRIOR_RIGHT * np.eye(classes)
        full = counts + prior
        gradient = full - full.sum(axis=1, keepdims=True) * transition
        return gradient.ravel(), float((prior * np.log(np.maximum(transition, TINY))).sum())
    slopes = counts / np.maximum(transition, TINY)  # derivative in each entry of T
    parts = [np.trace(slopes), slopes.sum() / classes]
    if kind == "pair_flip":
        parts.append(slopes[np.arange(classes), targets].sum())
    shares, values = softmax(np.append(0.0, parameters)), np.array(parts)
    return (shares * (values - shares @ values))[1:], 0.0
