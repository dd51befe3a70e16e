"""Class scores and doubtful labels in; calibrated probabilities of the true classes and a noise model out.

Scores of a row come from models that have not seen its label. They predict *given* labels, wrong ones too, so
probabilities of *true* classes have to be found together with the noise: by maximum likelihood of

    P(given label j | row) = Σ_i softmax(s + s·M + b)_i · T_ij,    s = Σ_v a_v · scores_v,

in the weights a of the score views, a bias b, for few classes a mixing matrix M, and the transition matrix T
(forward correction: Patrini et al. 2017, arXiv 1609.03683, with few parameters in the place of a network).
Randomly drawn wrong labels show up as labels to which a confident model gives almost no probability. A model
that is merely unsure gives all classes some probability, and no noise is needed to explain its labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from clear_peft.label_quality.noise_model import TINY, NoiseModel
from clear_peft.label_quality.transition import Shape, prior_counts
from clear_peft.label_quality.types import Array, Labels

_STEPS, _SEARCH_STEPS = 400, 40
_FLIP_SEARCHES, _TRANSITION_STEPS = 8, 20
# of all views together: where fits start from
_FLAT, _SHARP = 2.0, 6.0
_LEAST_LOGIT = 1e-4
_ONE_RATE = 0.5
_MOST_WRONG = 0.95
# of the objective, relative
_TOLERANCE = 1e-7
# a line search that goes too far must not overflow
_LOG_WEIGHTS, _OTHERS = (-10.0, 6.0), (-20.0, 20.0)
# Gaussian priors: log a (around 0, views are scaled to a root mean square of 1), b and M
_WEIGHT_MEAN, _WEIGHT_PRECISION = 0.0, 2.0
_BIAS_PRECISION = 0.1
_MIXING_PRECISION = 10.0
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
        cost: Penalty for its parameters, in nats; the fit with the largest objective − cost is chosen.
        shape: The fixed part of T.
        theta: The fitted parameters, of T and of the calibration.
    """

    calibration: Calibration
    noise: NoiseModel
    objective: float
    cost: float
    shape: Shape
    theta: Array


def centred(view: npt.NDArray[np.floating]) -> Array:
    """Scores (N, C) less their mean over the classes."""
    return np.asarray(view - view.mean(axis=1, keepdims=True), np.float64)


# several threads wait longer for each other than they work on matrices of C × C and C × N
single_threaded = threadpool_limits.wrap(limits=1, user_api="blas")


@single_threaded
def calibrate(views: Sequence[npt.NDArray[np.floating]], labels: Labels, weights: Array | None = None) -> Fit:
    """Fit calibration and noise model together; the kind of noise is chosen by an information criterion.

    A kind of noise is chosen only if it raises the log-likelihood by more than its penalty:

    - symmetric: half a nat. Wrong labels are uniform over the classes that occur or, for C − 1 nats more,
      follow the frequencies of the given labels.
    - pair flips: C·log C for the target of each class, and ½·log N for their rate.
    - class-conditional: two nats for each of C·(C − 1) numbers.

    Class-conditional noise and M are not fitted for more than 50 classes, M also not for fewer than
    10·(C − 1)² rows.

    Args:
        views: Out-of-sample scores of N rows and C classes on any scale, (N, C) each.
        labels: Given labels, (N,).
        weights: How much each row counts, (N,). Default: all alike.
    """
    size, classes = views[0].shape
    counted = np.ones(size) if weights is None else weights
    problem = _Problem.of(views, labels, counted)
    marginal = np.bincount(labels, weights=counted if counted.any() else None, minlength=classes)
    spreads = [(marginal > 0) / (marginal > 0).sum(), marginal / marginal.sum()]
    rate = 0.5 * np.log(max(float(counted.sum()), 1.0))
    none = problem.fit(Shape("none", spreads[0]), _FLAT)
    shape = Shape("symmetric", spreads[0])
    starts = [problem.fit(shape, *start, steps=_SEARCH_STEPS) for start in ((_FLAT, -3.0), (_SHARP, 0.0))]
    best = max(starts, key=lambda fit: fit.objective)
    symmetric = max(
        (
            replace(problem.maximised(Shape("symmetric", spread), best.theta), cost=cost)
            for spread, cost in zip(spreads, (_ONE_RATE, _ONE_RATE + classes - 1), strict=True)
        ),
        key=lambda fit: fit.objective - fit.cost,
    )
    fits = [none, symmetric]
    if classes > 1:
        flips = _pair_flips(problem, symmetric)
        fits.append(replace(flips, cost=classes * np.log(classes) + rate))
    price = 2.0 * classes * (classes - 1)
    if classes <= _MOST_CLASSES and price < float(counted.sum()) * np.log(classes):
        simpler = max(fits, key=lambda fit: fit.objective)
        conditional = [problem.generalised(simpler), problem.class_conditional_from_sharp(symmetric)]
        fits.append(replace(max(conditional, key=lambda fit: fit.objective), cost=price))
    return max(fits, key=lambda fit: fit.objective - fit.cost)


def with_noise_rate(
    fit: Fit, views: Sequence[npt.NDArray[np.floating]], labels: Labels, weights: Array, rate: float
) -> Fit:
    """Fit the calibration again under noise of the same kind, but of another rate; from two starts.

    Args:
        fit: Calibration and noise model of these rows.
        views: Their scores, (N, C) each.
        labels: Given labels, (N,).
        weights: How much each row counts, (N,).
        rate: Share of labels that T is to make wrong.
    """
    problem = _Problem.of(views, labels, weights, mixes=fit.calibration.mixing is not None)
    classes, known = problem.num_classes, len(views)
    transition = fit.noise.transition
    if fit.noise.kind == "none":
        transition = np.repeat(fit.shape.spread[None], classes, axis=0)
    wrong = transition * ~np.eye(classes, dtype=bool)
    shares = np.bincount(labels, weights=weights, minlength=classes) / weights.sum()
    wrong *= rate / max(float(shares @ wrong.sum(axis=1)), TINY)
    wrong /= np.maximum(wrong.sum(axis=1, keepdims=True) / _MOST_WRONG, 1)
    shape = replace(fit.shape, fixed=wrong + np.diag(1 - wrong.sum(axis=1)))
    theta = np.concatenate([fit.theta[:known], fit.theta[known + fit.shape.size :]])
    theta[:known] = np.log(fit.calibration.weights * problem.scales)
    starts = problem.maximised(shape, theta, _SEARCH_STEPS), problem.fit(shape, _SHARP, steps=_SEARCH_STEPS)
    return max(starts, key=lambda again: again.objective)


def refitted(
    fit: Fit, views: Sequence[npt.NDArray[np.floating]], labels: Labels, weights: Array, steps: int = 15
) -> Fit:
    """Fit again from where a fit has ended, with the same kind of noise and flips, rows weighted anew."""
    problem = _Problem.of(views, labels, weights, mixes=fit.calibration.mixing is not None)
    theta = fit.theta.copy()
    theta[: len(views)] = np.log(fit.calibration.weights * problem.scales)
    return problem.maximised(fit.shape, theta, steps)


def _pair_flips(problem: "_Problem", symmetric: Fit) -> Fit:
    """Each class with the flip target that its labels show; from two starts, as few rows show little.

    From sharp probabilities, since flat ones that repeat the flips explain the labels too.
    """
    classes, spread = problem.num_classes, symmetric.shape.spread
    noisy = NoiseModel("symmetric", np.full((classes, classes), 0.3 / classes) + 0.7 * np.eye(classes))
    found = []
    for pred_probs, noise in (
        (problem.probabilities(symmetric), symmetric.noise),
        (problem.even_probabilities(_SHARP), noisy),
    ):
        shape = Shape("pair_flip", spread, problem.flip_targets(pred_probs, noise))
        fit = problem.fit(shape, _SHARP, -1.5, -0.5, steps=_SEARCH_STEPS)
        for _ in range(_FLIP_SEARCHES):
            again = problem.flip_targets(problem.probabilities(fit), fit.noise)
            if (again == fit.shape.targets).all():
                break
            fit = problem.maximised(Shape("pair_flip", spread, again), fit.theta, _SEARCH_STEPS)
        found.append(fit)
    best = max(found, key=lambda fit: fit.objective)
    return problem.maximised(best.shape, best.theta)


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

    def fit(self, shape: Shape, sharpness: float, *noise: float, steps: int = _STEPS) -> Fit:
        """Fit from a sharpness (of all views together) and parameters of T."""
        log_weights = np.full(len(self.views), np.log(sharpness / len(self.views)))
        rest = np.zeros(self.num_classes + (self.num_classes**2 if self.mixes else 0))
        return self.maximised(shape, np.concatenate([log_weights, noise, rest]), steps)

    def generalised(self, fit: Fit) -> Fit:
        """Fit class-conditional noise from where a simpler kind has ended."""
        views, shape = len(self.views), Shape("class_conditional", fit.shape.spread)
        logits = np.log(np.maximum(fit.noise.transition, _LEAST_LOGIT)).ravel()
        theta = np.concatenate([fit.theta[:views], logits, fit.theta[views + fit.shape.size :]])
        return self.maximised(shape, theta)

    def class_conditional_from_sharp(self, symmetric: Fit) -> Fit:
        """Fit from sharp probabilities and the T that they show, found by expectation maximisation."""
        probabilities, prior = self.even_probabilities(_SHARP), prior_counts(self.num_classes)
        transition = prior
        for _ in range(_TRANSITION_STEPS):
            joint = probabilities * transition[:, self.labels]
            counts = self._by_label(joint * (self.counted / np.maximum(joint.sum(axis=0), TINY))) + prior
            transition = counts / counts.sum(axis=1, keepdims=True)
        logits = np.log(np.maximum(transition, _LEAST_LOGIT)).ravel()
        return self.fit(Shape("class_conditional", symmetric.shape.spread), _SHARP, *logits)

    def flip_targets(self, probabilities: Array, noise: NoiseModel) -> Labels:
        """The class that each class's wrong labels mostly name, (C,), by P(true class | row), (C, N)."""
        joint = probabilities * noise.transition[:, self.labels]
        counts = self._by_label(joint * (self.counted / np.maximum(joint.sum(axis=0), TINY)))
        np.fill_diagonal(counts, -1)
        return counts.argmax(axis=1)

    def probabilities(self, fit: Fit) -> Array:
        """P(true class | row), (C, N)."""
        return softmax(self._logits(fit.theta, fit.shape.size)[1], axis=0)

    def even_probabilities(self, sharpness: float) -> Array:
        """The same where all views count alike, and nothing else is known."""
        return softmax(sharpness * sum(self.views) / len(self.views), axis=0)

    def maximised(self, shape: Shape, theta: Array, steps: int = _STEPS) -> Fit:
        """Fit from a θ."""
        views, size = len(self.views), shape.size
        bounds = [_LOG_WEIGHTS] * views + [_OTHERS] * (len(theta) - views)
        result = minimize(
            self._negative,
            theta,
            args=(shape,),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": steps, "ftol": _TOLERANCE},
        )
        theta = result.x
        *_, mixing = self._logits(theta, size)
        bias = theta[views + size : views + size + self.num_classes]
        noise = NoiseModel(shape.kind, shape.transition(theta[views : views + size]))
        calibration = Calibration(np.exp(theta[:views]) / self.scales, bias, mixing)
        return Fit(calibration, noise, -float(result.fun), 0.0, shape, theta)

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

    def _negative(self, theta: Array, shape: Shape) -> tuple[float, Array]:
        """Minus the objective, and its gradient."""
        views, classes, size = len(self.views), self.num_classes, shape.size
        scores, logits, mixing = self._logits(theta, size)
        logits -= logits.max(axis=0)
        np.exp(logits, out=logits)
        probabilities = np.divide(logits, logits.sum(axis=0), out=logits)
        parameters = theta[views : views + size]
        transition = shape.transition(parameters)
        shares = probabilities * transition[:, self.labels]
        likelihoods = np.maximum(shares.sum(axis=0), TINY)
        objective = float(self.counted @ np.log(likelihoods))
        shares *= self.counted / likelihoods  # the posterior, each row as it counts
        counts = self._by_label(shares)  # expected number of (true, given)
        noise_gradient, noise_prior = shape.gradient(parameters, counts, transition)
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
