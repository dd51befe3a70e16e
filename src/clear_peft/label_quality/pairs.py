"""Responses that do not belong to their prompts, told by what random pairs of the same rows look like.

A response that has been swapped with another row's looks like a random pair, and random pairs can be made.
So the scores s of the pairs are a mixture of two groups, f(s) = π f₀(s) + (1 − π) f₁(s), and f₀ can be
sampled: prompts with responses of random other rows. Then π f₀(s) / f(s) is the probability that the response
does not belong to the prompt: the local false discovery rate (Efron 2008).

Two likenesses x of a pair are seen: the cosine of the features of prompt and response, and that of the
response and what a ridge regression expects it to be by the prompt. Both are taken against the mean over all
responses, so that they are about 0 for random pairs. The prompt tells how far above they lie for right pairs,
u: as much as for the pairs with the nearest prompts. Of open prompts ("write a story") u is about 0, and any
response is as likely as another. Were x normal, log f₁ / f₀ would be linear in u·x and u². That is the model,
and its weights are fitted with π, to tell pairs from random pairs by f / f₀ (Sugiyama et al. 2012). The score
is log f₁ / f₀. Each row is scored by fits without it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, log_expit

from clear_peft.errors import InputError
from clear_peft.label_quality.groups import as_groups
from clear_peft.label_quality.neighbours import neighbours
from clear_peft.label_quality.types import Array

_FOLDS = 5
# random pairs of each prompt
_RANDOM_PAIRS = 4
# nearest prompts, and the quantile of their pairs' likenesses: a high one, as some of them may be wrong
_NEIGHBOURS, _HIGH = 20, 0.9
# of the ridge regression, as a share of the features' mean square, and of the weights of the score
_RIDGE, _PRECISION = 0.1, 0.01
# the share of random pairs with the lowest scores, by which the share of wrong responses is told
_LOWEST = 0.3
_FEWEST = 20
# of the weights of u·x and u², and of log π/(1 − π): where fits start
_START, _START_RATE = (1.0, 1.0, -0.5, -0.5), -1.0
_TINY = 1e-12
_SEED = 0


@dataclass(frozen=True, eq=False)
class PairQuality:
    """How well N responses go with their prompts.

    Attributes:
        clean_probability: That the response belongs to the prompt, (N,).
        score: Log f₁ / f₀, (N,); low is suspicious. Near 0 the prompt does not tell what belongs to it.
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

    O(N·D² + D³) time and O(N·D) memory, but for the nearest prompts (``neighbours``).

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
    usual = np.stack([own @ theirs.mean(axis=0), expected @ centred.mean(axis=0)], axis=1)

    def likeness(rows: npt.NDArray[np.integer]) -> Array:
        """Of each prompt and the responses of so many rows, (N, 2)."""
        both = [(own * theirs[rows]).sum(axis=1), (expected * centred[rows]).sum(axis=1)]
        return np.stack(both, axis=1) - usual

    pairs, random = likeness(alone), np.stack([likeness(rows) for rows in partners])
    told = _told_by_prompts(own, groups * (copies.max() + 1) + copies, pairs, random)
    pairs, random = (
        np.concatenate([told * x, np.broadcast_to(told**2, x.shape)], axis=-1) for x in (pairs, random)
    )
    score, scores = np.empty(size), np.empty(random.shape[:2])
    for each in range(_FOLDS):
        out = fold == each
        weights = _mixture(pairs[~out], random[:, ~out].reshape(-1, pairs.shape[1]))
        score[out], scores[:, out] = pairs[out] @ weights, random[:, out] @ weights
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


def _told_by_prompts(prompts: Array, copies: npt.NDArray[np.integer], pairs: Array, random: Array) -> Array:
    """How far the likenesses of a right pair lie above those of random ones, by nearby prompts, (N, 2).

    Args:
        prompts: Features, (N, D).
        copies: Which pairs are copies of each other, (N,): they are no neighbours.
        pairs: Likenesses, (N, 2).
        random: Those of random pairs, (K, N, 2).
    """
    _, first, place = np.unique(copies, return_index=True, return_inverse=True)
    near = first[neighbours(prompts[first], _NEIGHBOURS).rows]
    by_chance = np.moveaxis(random[:, near], 0, 1).reshape(len(near), -1, pairs.shape[1])
    above = np.quantile(pairs[near], _HIGH, axis=1) - np.quantile(by_chance, _HIGH, axis=1)
    # neighbours tell as much as a regression of the likenesses on them says
    spread, mean = above.var(axis=0), above.mean(axis=0)
    together = ((above - mean) * (pairs[first] - pairs[first].mean(axis=0))).mean(axis=0)
    slope = np.clip(together / np.maximum(spread, _TINY), 0.0, 1.0)
    return np.maximum(mean + slope * (above - mean), 0.0)[place]


def _mixture(pairs: Array, random: Array) -> Array:
    """Weights w, (F,), for which f/f₀ = π + (1 − π) exp(w·x) tells pairs from random ones best, with some π.

    Args:
        pairs: x, (N, F).
        random: x of random pairs, (M, F), which count as much as the pairs together.
    """
    rows = np.concatenate([pairs, random])
    scale = np.maximum(np.sqrt((rows**2).mean(axis=0)), _TINY)
    rows = rows / scale
    right = np.arange(len(rows)) < len(pairs)
    counted = np.where(right, 1.0, len(pairs) / len(random))

    def negative(theta: Array) -> tuple[float, Array]:
        weights, log_odds = theta[:-1], theta[-1]  # log_odds of π
        ratio, rate = rows @ weights, expit(log_odds)
        logits = np.logaddexp(log_expit(log_odds), log_expit(-log_odds) + ratio)
        of_right = expit(ratio - log_odds)
        loss = counted @ (np.logaddexp(0, logits) - right * logits)
        slopes = counted * (expit(logits) - right)
        by_log_odds = slopes @ ((1 - of_right) * (1 - rate) - of_right * rate)
        prior = 0.5 * _PRECISION * float(weights @ weights)
        return loss + prior, np.append((slopes * of_right) @ rows + _PRECISION * weights, by_log_odds)

    theta = minimize(negative, np.append(_START, _START_RATE), jac=True, method="L-BFGS-B").x
    return theta[:-1] / scale


def _rising(score: Array, random: Array) -> Array:
    """P(pair | score) of the pairs, (N,), rising with the score; all random pairs count as much as they."""
    values = np.concatenate([score, random])
    right = np.arange(len(values)) < len(score)
    order = np.argsort(values, kind="stable")
    counted = np.where(right, 1.0, len(score) / len(random))
    found = np.empty(len(values))
    found[order] = isotonic_regression(right[order].astype(np.float64), weights=counted[order]).x
    return found[: len(score)]
