"""From passes over the rows to an estimate of which labels are right."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from clear_peft.errors import RunFailedError
from clear_peft.label_quality import (
    LabelQuality,
    LinearProbe,
    LossMixture,
    TopProbs,
    fit_probe,
    smooth,
)
from clear_peft.losses import cross_entropy
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.estimate import Estimate

# more rows tell a linear probe next to nothing, and their features have to be in memory together
MOST_ROWS = 1 << 16
# of each class, as far as there are so many, however rare it is
LEAST_OF_CLASS = 50
_CHUNK = 1 << 14


class Rows(Protocol):
    """Given labels of N rows and what belongs together among them."""

    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.integer]
    copies: npt.NDArray[np.integer]
    row: npt.NDArray[np.int64]
    verified: npt.NDArray[np.int64] | None
    votes: npt.NDArray[np.int64] | None

    def blocks(self, seed: int) -> list[npt.NDArray[np.integer]]:
        """Positions of all rows in parts that fit into memory."""
        ...


def estimate_by_probe(
    features_of: Callable[[npt.NDArray[np.integer] | None], Tensor | None],
    rows: Rows,
    validation: Rows | None,
    num_classes: int,
    args: CleaRConfig,
    *,
    epoch: int,
    decides: bool,
) -> Estimate | None:
    """What linear probes on the model's features make of the labels, each row by a fit without its group.

    Args:
        features_of: A pass: features of some training rows, (B,) → (B, V, D), and of all validation rows,
            None → (M, V, D), or None where there are none. Every process has to take part in each.
        rows: The training rows.
        validation: The validation rows, if there are any.
        num_classes: C.
        args: For ``seed`` and ``noise_threshold``.
        epoch: Number of epochs that the model has been trained for.
        decides: Whether this process is the one that fits; the others only take part in the passes.

    Returns:
        None where the model gives out no hidden states, and where this process does not decide.

    Raises:
        RunFailedError: If a feature is not finite.
    """
    first, *others = rows.blocks(args.seed)
    features, held_out = features_of(first), features_of(None)
    if features is None:
        return None
    probe, parts = None, []
    if decides:
        probe, quality = fit_probe(
            finite(features),
            rows.labels[first],
            num_classes,
            groups=rows.groups[first],
            copies=rows.copies[first],
            votes=None if rows.votes is None else rows.votes[first],
            verified=None if rows.verified is None else rows.verified[first],
        )
        parts.append((first, quality.self_confidence, quality.clean_probability, quality.pred_probs))
    for block in others:
        features = features_of(block)
        if probe is not None and features is not None:
            votes = None if rows.votes is None else rows.votes[block]
            given = rows.labels[block]
            pred_probs, p = probe.judge(finite(features), given, votes=votes)
            own = pred_probs[np.arange(len(block)), given]
            parts.append((block, own, p, TopProbs.of(pred_probs)))
    if probe is None:
        return None
    every, own, clean, top = zip(*parts, strict=True)
    order = np.argsort(np.concatenate(every))
    p = np.concatenate(clean)[order].astype(np.float32)
    train = LabelQuality(
        rows.labels,
        TopProbs.concatenate(top)[order],
        np.concatenate(own)[order].astype(np.float32),
        p,
        quality.noise,
        quality.noise_rate_interval,
        rows.groups,
        quality.source,
        rows.row,
        rows.verified,
        None if rows.verified is None else _blind(quality, first, p),
    )
    predicted = train.predicted
    unseen = None if validation is None else _judged(probe, held_out, validation, quality)
    return Estimate(
        epoch=epoch,
        train=train,
        validation=unseen,
        losses=-np.log(np.maximum(train.self_confidence, np.finfo(np.float32).tiny)),
        noise_found=train.noise_rate >= args.noise_threshold,
        parameters={
            "scale": "log_odds",
            "contradicted": float((predicted != rows.labels).mean()),
            "noise": "none" if quality.noise is None else quality.noise.kind,
            "noise_rate_interval": list(quality.noise_rate_interval or ()),
        },
        validation_weights=_weights(unseen),
    )


def _blind(
    fitted: LabelQuality, rows: npt.NDArray[np.integer], clean: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """``blind_probability`` of all rows: of these, which were fitted to, and the clean one of all others."""
    blind = clean.astype(np.float32)
    blind[rows] = fitted.blind_probability
    return blind


def _weights(validation: LabelQuality | None) -> npt.NDArray[np.float32]:
    return np.empty(0, np.float32) if validation is None else validation.clean_probability


def _judged(probe: LinearProbe, features: Tensor | None, rows: Rows, fitted: LabelQuality) -> LabelQuality:
    """Rows that a probe was not fitted to, by its own noise model."""
    assert features is not None  # of the validation rows that there are
    judgement = probe.judge(finite(features), rows.labels, votes=rows.votes)
    # fitted along with votes, it is no noise model of rows without any
    noise = probe.voted.noise if probe.voted is not None and rows.votes is None else fitted.noise
    return LabelQuality(
        rows.labels,
        TopProbs.of(judgement.pred_probs),
        judgement.pred_probs[np.arange(len(rows.labels)), rows.labels].astype(np.float32),
        judgement.clean_probability.astype(np.float32),
        noise,
        fitted.noise_rate_interval,
        rows.groups,
        "probe" if rows.votes is None else fitted.source,
        rows.row,
    )


def estimate_by_losses(
    logits: Tensor,
    rows: Rows,
    held_out: tuple[Tensor, Rows] | None,
    mixture: LossMixture,
    args: CleaRConfig,
    *,
    epoch: int,
    before: Estimate | None,
) -> Estimate:
    """What the losses of a model that was trained on the labels tell; if it contradicts few, trust all.

    Args:
        logits: Of the training rows, (N, C) float32.
        rows: The training rows.
        held_out: Logits of the validation rows, (M, C), and these rows, if there are any.
        mixture: What turns losses into clean probabilities.
        args: For ``loss_ema`` and ``noise_threshold``.
        epoch: Number of epochs that the model has been trained for.
        before: The estimate before, whose losses these are smoothed with.

    Raises:
        RunFailedError: If a loss is not finite.
    """
    losses = _losses(logits, rows.labels)
    check_finite("losses", losses)
    if before is not None:
        losses = smooth(before.losses, losses, args.loss_ema)
    fitted = mixture.estimate(losses, rows.labels)
    contradicted = float((logits.argmax(dim=1).numpy() != rows.labels).mean())
    told = contradicted >= args.noise_threshold
    probability = fitted.clean_probability if told else np.ones(len(losses), np.float32)
    validation = None
    if held_out is not None:
        unseen, others = held_out
        like = _of_like_losses(_losses(unseen, others.labels), losses, probability)
        validation = _by_final_model(unseen, others, like)
    return Estimate(
        epoch=epoch,
        train=_by_final_model(logits, rows, probability),
        validation=validation,
        losses=losses.astype(np.float32),
        noise_found=told and fitted.components == 2,
        parameters={**fitted.parameters, "contradicted": contradicted},
        validation_weights=_weights(validation),
    )


def _by_final_model(logits: Tensor, rows: Rows, probability: npt.NDArray[np.float32]) -> LabelQuality:
    # chunk by chunk: all classes of all rows are never held twice
    parts = [torch.softmax(part, dim=1).numpy() for part in logits.split(_CHUNK)]
    top = [TopProbs.of(part) for part in parts]
    confidence = np.exp(-_losses(logits, rows.labels))
    return LabelQuality(
        rows.labels,
        TopProbs.concatenate(top),
        confidence.astype(np.float32),
        probability.astype(np.float32),
        None,
        None,
        rows.groups,
        "final_model",
        rows.row,
    )


def _of_like_losses(
    losses: npt.NDArray[np.floating],
    reference: npt.NDArray[np.floating],
    probability: npt.NDArray[np.floating],
) -> npt.NDArray[np.float32]:
    """The clean probability that like losses of a reference (N,) have, for each loss, (M,) float32."""
    order = np.argsort(reference)
    return np.interp(losses, reference[order], probability[order]).astype(np.float32)


def _losses(logits: Tensor, labels: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    return cross_entropy(logits, torch.from_numpy(labels)).numpy()


def blocks(
    labels: npt.NDArray[np.integer],
    seed: int,
    most: int | None = None,
    verified: npt.NDArray[np.integer] | None = None,
) -> list[npt.NDArray[np.integer]]:
    """Positions of all rows, in order; of more than fit into a block, in random blocks of that size.

    The first has at least 50 rows of every class, or all that there are, and before them all verified rows.

    Args:
        labels: (N,).
        seed: Of the draw.
        most: Rows of a block. Default 65,536.
        verified: True classes of rows that a person has looked at, -1 elsewhere, (N,). Default: of none.
    """
    most = MOST_ROWS if most is None else most
    drawn = np.arange(len(labels))
    if len(labels) > most:
        drawn = np.random.default_rng(seed).permutation(drawn)
        place_in_class = pd.Series(drawn).groupby(labels[drawn]).cumcount().to_numpy()
        drawn = drawn[np.argsort(place_in_class >= LEAST_OF_CLASS, kind="stable")]
        if verified is not None:
            drawn = drawn[np.argsort(verified[drawn] < 0, kind="stable")]
    return [np.sort(drawn[start : start + most]) for start in range(0, len(drawn), most)]


def finite(features: Tensor) -> npt.NDArray[np.floating]:
    """Features of a pass, (N, …), as numpy takes them.

    Raises:
        RunFailedError: If one is not finite.
    """
    values = features.numpy()
    check_finite("features", values)
    return values


def check_finite(what: str, values: npt.NDArray[np.floating]) -> None:
    """Stop where a pass has read off what no label can be estimated by.

    Raises:
        RunFailedError: If a value is not finite.
    """
    if not np.isfinite(values).all():
        raise RunFailedError(
            f"The model's {what} on the training set are not finite: lower the learning rate, or train in "
            "bf16 or float32 instead of fp16."
        )
