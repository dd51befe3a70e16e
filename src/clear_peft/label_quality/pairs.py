"""Responses that do not belong to their prompts, told by what random pairs of the same rows look like.

A response that has been swapped with another row's looks like a random pair, and random pairs can be made.
So the scores s of the pairs are a mixture of two groups, f(s) = π f₀(s) + (1 − π) f₁(s), and f₀ can be
sampled: prompts with responses of random other rows. Then π f₀(s) / f(s) is the probability that the response
does not belong to the prompt: the local false discovery rate (Efron 2008).

The score is the log odds of a logistic regression that tells pairs from random pairs (f / f₀ by
classification: Sugiyama et al. 2012). It sees two likenesses: the cosine of the features of prompt and
response, and that of the response and what a ridge regression expects it to be by the prompt. Each row is
scored by fits without it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from clear_peft.errors import InputError
from clear_peft.label_quality.groups import as_groups
from clear_peft.label_quality.types import Array

_FOLDS = 5
# random pairs of each prompt
_RANDOM_PAIRS = 4
# of the ridge regression, as a share of the features' mean square, and of the logistic regression's weights
_RIDGE, _PRECISION = 0.1, 1.0
# the share of random pairs with the lowest scores, by which the share of wrong responses is told
_LOWEST = 0.3
_FEWEST = 20
_TINY = 1e-12
_SEED = 0


@dataclass(frozen=True, eq=False)
class PairQuality:
    """How well N responses go with their prompts.

    Attributes:
        clean_probability: That the response belongs to the prompt, (N,).
        score: Log odds of a pair against a random pair, (N,); low is suspicious.
        noise_rate: The estimated share of responses that do not belong to their prompts, π.
    """

    clean_probability: Array
    score: Array
    noise_rate: float


def pair_quality(
    prompts: npt.NDArray[np.floating],
    responses: npt.NDArray[np.floating],
    *,
    prompt_groups: npt.ArrayLike | None = None,
    response_groups: npt.ArrayLike | None = None,
) -> PairQuality:
    """Judge pairs of prompts and responses.

    O(N·D² + D³) time and O(N·D) memory.

    Args:
        prompts: Features of the prompts, (N, D).
        responses: Features of the responses, by the same model, (N, D).
        prompt_groups: Which prompts are copies of each other, (N,): no fit that scores a row has seen its
            copies. Default: none.
        response_groups: Which responses are copies of each other, (N,): a copy of a row's own response is no
            random one. Default: none.

    Raises:
        InputError: If shapes differ, a feature is not finite, there are fewer than 20 pairs, or all prompts
            or all responses are copies of one.
    """
    own, theirs = _unit(_checked(prompts, "prompts")), _unit(_checked(responses, "responses"))
    size = len(own)
    if own.shape != theirs.shape:
        raise InputError(
            f"prompts have shape {own.shape} and responses {theirs.shape}: give features of one model for "
            "both."
        )
    if size < _FEWEST:
        raise InputError(f"There are {size} pairs: give {_FEWEST} or more.")
    alone = np.arange(size)
    copies = alone if response_groups is None else as_groups(response_groups, size)
    groups = alone if prompt_groups is None else as_groups(prompt_groups, size)
    for name, found in (("prompts", groups), ("responses", copies)):
        if not found.any():
            raise InputError(f"All {name} are the same: there is nothing to tell pairs by.")
    rng = np.random.default_rng(_SEED)
    partners = _random_partners(copies, rng)
    fold = _folds(groups, rng)
    expected = _expected(own, theirs, fold)
    centred = _unit(theirs - theirs.mean(axis=0))

    def likeness(rows: npt.NDArray[np.integer]) -> Array:
        """Of each prompt and the responses of so many rows, (N, 2)."""
        return np.stack([(own * theirs[rows]).sum(axis=1), (expected * centred[rows]).sum(axis=1)], axis=1)

    pairs, random = likeness(alone), np.stack([likeness(rows) for rows in partners])
    score, scores = np.empty(size), np.empty(random.shape[:2])
    for each in range(_FOLDS):
        out = fold == each
        weights, offset = _told_apart(pairs[~out], random[:, ~out].reshape(-1, 2))
        score[out], scores[:, out] = pairs[out] @ weights + offset, random[:, out] @ weights + offset
    rate = float(min(1.0, (score <= np.quantile(scores, _LOWEST)).mean() / _LOWEST))
    # P(pair | score) of pairs and as many random ones is f / (f + f₀)
    share = _rising(score, scores.ravel())
    wrong = np.minimum(1.0, rate * (1 - share) / np.maximum(share, _TINY))
    return PairQuality(1 - wrong, score, rate)


def _checked(values: npt.NDArray[np.floating], name: str) -> Array:
    found = np.asarray(values, np.float64)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise InputError(f"{name} are not finite numbers of shape (rows, features): mend them.")
    return found


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)


def _random_partners(copies: npt.NDArray[np.integer], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows whose responses are random ones for each prompt, and not copies of its own, (K, N)."""
    size = len(copies)
    partners = np.empty((_RANDOM_PAIRS, size), np.int64)
    for each in partners:
        each[:] = rng.permutation(size)
        same = np.flatnonzero(copies[each] == copies)
        while len(same):
            each[same] = rng.integers(size, size=len(same))
            same = same[copies[each[same]] == copies[same]]
    return partners


def _folds(groups: npt.NDArray[np.integer], rng: np.random.Generator) -> npt.NDArray[np.integer]:
    """The fold of each row, (N,); rows of a group are in one."""
    fold: npt.NDArray[np.integer] = rng.permutation(groups.max() + 1)[groups] % _FOLDS
    return fold


def _expected(prompts: Array, responses: Array, fold: npt.NDArray[np.integer]) -> Array:
    """What a ridge regression expects the responses to be, each by a fit without its row, (N, D)."""
    expected = np.empty_like(responses)
    for each in range(_FOLDS):
        out = fold == each
        mean, known = prompts[~out].mean(axis=0), responses[~out]
        rows = prompts[~out] - mean
        gram = rows.T @ rows
        gram[np.diag_indices_from(gram)] += max(_RIDGE * np.trace(gram) / len(gram), _TINY)
        slopes = np.linalg.solve(gram, rows.T @ (known - known.mean(axis=0)))
        expected[out] = (prompts[out] - mean) @ slopes
    return _unit(expected)


def _told_apart(pairs: Array, random: Array) -> tuple[Array, float]:
    """Weights and offset of a logistic regression of pairs (N, 2) against random ones, which count alike."""
    rows = np.concatenate([pairs, random])
    mean, spread = rows.mean(axis=0), np.maximum(rows.std(axis=0), _TINY)
    rows = (rows - mean) / spread
    right = np.arange(len(rows)) < len(pairs)
    counted = np.where(right, 1.0, len(pairs) / len(random))

    def negative(theta: Array) -> tuple[float, Array]:
        logits = rows @ theta[:2] + theta[2]
        loss = counted @ (np.logaddexp(0, logits) - right * logits)
        slopes = counted * (expit(logits) - right)
        prior = 0.5 * _PRECISION * float(theta[:2] @ theta[:2])
        return loss + prior, np.append(slopes @ rows + _PRECISION * theta[:2], slopes.sum())

    theta = minimize(negative, np.zeros(3), jac=True, method="L-BFGS-B").x
    weights = theta[:2] / spread
    return weights, float(theta[2] - mean @ weights)


def _rising(score: Array, random: Array) -> Array:
    """P(pair | score) of the pairs, (N,), rising with the score; all random pairs count as much as they."""
    values = np.concatenate([score, random])
    right = np.arange(len(values)) < len(score)
    order = np.argsort(values, kind="stable")
    counted = np.where(right, 1.0, len(score) / len(random))
    found = np.empty(len(values))
    found[order] = isotonic_regression(right[order].astype(np.float64), weights=counted[order]).x
    return found[: len(score)]
