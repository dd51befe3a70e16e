"""Judge the labels of a table by probes on features of a frozen model, or by given predictions."""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.data import Examples, LabelNames, row_groups
from clear_peft.errors import ClearWarning, InputError
from clear_peft.label_quality import (
    LabelQuality,
    LinearProbe,
    agreement,
    as_groups,
    combined,
    fit_probe,
    identical_rows,
    label_quality_from_pred_probs,
    reliability,
    with_verified,
)
from clear_peft.pipeline.arrays import checked_embeddings, checked_pred_probs
from clear_peft.pipeline.encoder import encode, name_texts, similarities
from clear_peft.pipeline.feature_cache import default_folder
from clear_peft.pipeline.packages import MINILM, minilm

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter

# standard errors by which predictions have to agree with labels more than with others
_AGREEMENT = 2.0


def sources_of(
    examples: Examples, quality: LabelQuality, labels: str | Sequence[str], opinions: str | Sequence[str]
) -> dict[str, Any]:
    """For ``metrics.json``: of each source of labels, what share of its labels is right, as is expected.

    Args:
        examples: N rows.
        quality: Of their labels.
        labels: Column of the given labels, or columns of the annotators.
        opinions: Columns of second opinions.

    Returns:
        ``sources``: a share by the name of a column, but for one that says nothing of these rows; nothing
        where labels were judged without them.
    """
    if examples.votes is None or quality.source != "votes":
        return {}
    columns = [name for part in (labels, opinions) for name in ([part] if isinstance(part, str) else part)]
    shares = reliability(examples.votes, quality.pred_probs)
    found = zip(columns, shares.tolist(), strict=True)
    return {"sources": {name: share for name, share in found if not math.isnan(share)}}


def what_to_label_next(
    examples: Examples, confidence: np.ndarray, predicted: np.ndarray, names: LabelNames
) -> pd.DataFrame:
    """Rows without a label, those that the model is least sure of first.

    Args:
        examples: N rows.
        confidence: Probability of the predicted class of each, (N,).
        predicted: That class, (N,).
        names: Names of the classes.

    Returns:
        ``row``, ``text``, ``predicted_label``, ``confidence`` and, where there are ids, ``id``.
    """
    frame = pd.DataFrame(
        {
            "row": examples.rows,
            "text": examples.texts,
            "predicted_label": [names.names[i] for i in predicted.tolist()],
            "confidence": confidence.astype(np.float64).round(6),
        }
    )
    if examples.ids is not None:
        frame["id"] = examples.ids
    return frame.sort_values("confidence", kind="stable", ignore_index=True)


def check_sources(model: object, pred_probs: object, embeddings: object) -> None:
    """Refuse more than one source of judgement."""
    given = {"a model": model, "pred_probs": pred_probs, "embeddings": embeddings}
    several = [name for name, value in given.items() if value is not None]
    if len(several) > 1:
        raise InputError(f"There are {' and '.join(several)}: give one of them.")


def default_model() -> str:
    """The packaged MiniLM where it is installed, else its name on the hub."""
    try:
        return str(minilm())
    except InputError:
        return MINILM


@dataclass(frozen=True, eq=False)
class Judged:
    """Rows judged by probes, and all it takes to judge them again once some are verified.

    Attributes:
        probe: The probe that was fitted.
        quality: Of the labels.
        features: (N, D) or (N, V, D).
        copies: Group of the copies of each row, (N,).
        prior_scores: Likeness to the names of the classes, (N, C); None without.
    """

    probe: LinearProbe
    quality: LabelQuality
    features: npt.NDArray[np.floating]
    copies: npt.NDArray[np.integer]
    prior_scores: npt.NDArray[np.floating] | None

    def believing(self, verified: npt.NDArray[np.integer] | None) -> "Judged":
        """The rows judged by true classes of verified ones, (N,), -1 elsewhere; None: there are none.

        Args:
            verified: All of them: those that it was judged by before do not count any more.
        """
        if verified is None:
            return self
        probe, quality = with_verified(
            self.probe,
            self.quality,
            self.features,
            verified,
            copies=self.copies,
            prior_scores=self.prior_scores,
        )
        return replace(self, probe=probe, quality=quality)

    def unlabelled(
        self, examples: Examples, names: LabelNames, *, embeddings: npt.ArrayLike | None = None, **source: Any
    ) -> "Unlabelled":
        """Rows without a label, for its predictions.

        Args:
            examples: N rows.
            names: Names of the C classes.
            embeddings: As for ``judge``, and so all others.
            **source: As for ``judge``.
        """
        if embeddings is not None:
            embeddings = checked_embeddings(embeddings, len(examples), "embeddings")
        return Unlabelled(examples, names, *features_of(examples, names, embeddings, **source))


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Rows without a label, and what their classes are predicted by.

    Attributes:
        examples: N rows.
        names: Names of the C classes.
        features: (N, D) or (N, V, D).
        prior_scores: Likeness to the names of the classes, (N, C); None without.
    """

    examples: Examples
    names: LabelNames
    features: npt.NDArray[np.floating]
    prior_scores: npt.NDArray[np.floating] | None

    def to_label_next(self, judged: Judged) -> pd.DataFrame:
        """As ``what_to_label_next``, by the probe of other rows."""
        any_label = np.zeros(len(self.examples), np.int64)
        found = judged.probe.judge(self.features, any_label, self.prior_scores).pred_probs
        return what_to_label_next(self.examples, found.max(axis=1), found.argmax(axis=1), self.names)


def judge(
    examples: Examples,
    names: LabelNames,
    *,
    has_texts: bool = True,
    model: str | None = None,
    embeddings: npt.ArrayLike | None = None,
    place: str | None = None,
    max_length: int = 128,
    long_texts: str = "head",
    cache: bool = True,
    device: str = "auto",
    trust_remote_code: bool = False,
    reporter: "Reporter | None" = None,
) -> Judged:
    """Judge the labels of examples by probes, as if no row was verified.

    Args:
        examples: N rows, with labels, perhaps with groups.
        names: Names of the C classes.
        has_texts: Whether the texts are those of the rows; without, copies are told by equal embeddings.
        model: As for ``find_label_issues``, and so what is not named here.
        embeddings: (N, D) or (N, V, D).
        place: Where they come from, for error messages. Default: their name.
        max_length: Tokens per text.
        long_texts: What is read of longer texts.
        cache: Whether features are kept on disk.
        device: Where the model runs.
        trust_remote_code: Whether code that comes with the model may run.
        reporter: Told what is being done. Default: nobody.

    Raises:
        InputError: As ``find_label_issues``.
    """
    size, labels = len(examples), examples.labels
    assert labels is not None  # a label column was asked for
    if embeddings is not None:
        embeddings = checked_embeddings(embeddings, size, place or "embeddings")
    copies, groups = copies_and_groups(examples, has_texts, embeddings)
    features, prior = features_of(
        examples,
        names,
        embeddings,
        model=model,
        max_length=max_length,
        long_texts=long_texts,
        cache=cache,
        device=device,
        trust_remote_code=trust_remote_code,
        reporter=reporter,
    )
    if reporter is not None:
        reporter.stage("Judging the labels")
    probe, quality = fit_probe(
        features,
        labels,
        len(names.names),
        groups=groups,
        copies=copies,
        prior_scores=prior,
        votes=examples.votes,
    )
    if examples.votes is None:  # other sources may tell what features do not
        say_if_no_better_than_chance(quality, probe.agreement)
    return Judged(probe, quality, features, copies, prior)


def features_of(
    examples: Examples,
    names: LabelNames,
    embeddings: npt.NDArray[np.floating] | None,
    *,
    model: str | None,
    max_length: int,
    long_texts: str,
    cache: bool,
    device: str,
    trust_remote_code: bool,
    reporter: "Reporter | None",
    **_: Any,
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating] | None]:
    """Features of rows, and their likeness to the names of the classes, where a model tells it.

    Args:
        examples: N rows.
        names: Names of the C classes.
        embeddings: (N, D) or (N, V, D), instead of what a model makes of the texts.
        model: As for ``judge``, and so what is not named here.
        max_length: Tokens per text.
        long_texts: What is read of longer texts.
        cache: Whether features are kept on disk.
        device: Where the model runs.
        trust_remote_code: Whether code that comes with the model may run.
        reporter: Told what is being done; None: nobody.
    """
    if embeddings is not None:
        return embeddings, None
    name = default_model() if model is None else os.fspath(model)
    if reporter is not None:
        reporter.stage(f"Encoding {len(examples)} texts with {name}")
    words = name_texts(names.names) or []
    encoded = encode(
        [*examples.texts, *words],
        name,
        max_length=max_length,
        long_texts=long_texts,
        cache=default_folder() if cache else None,
        device=device,
        trust_remote_code=trust_remote_code,
        step=None if reporter is None else reporter.step,
    )
    features = encoded[: len(examples)]
    return features, similarities(features[:, -1], encoded[len(examples) :, -1]) if words else None


def assess(
    examples: Examples,
    names: LabelNames,
    *,
    pred_probs: npt.ArrayLike | None = None,
    has_texts: bool = True,
    place: str | None = None,
    **source: Any,
) -> LabelQuality:
    """Judge the labels of examples by what is known of verified rows.

    Args:
        examples: N rows, with labels, perhaps with groups and verified rows.
        names: Names of the C classes.
        pred_probs: Probabilities by models that have not seen the row, (N, C). Default: as ``judge``.
        has_texts: Whether the texts are those of the rows.
        place: Where arrays come from, for error messages.
        **source: As for ``judge``.

    Raises:
        InputError: As ``find_label_issues``.
    """
    if pred_probs is None:
        judged = judge(examples, names, has_texts=has_texts, place=place, **source)
        return judged.believing(examples.verified).quality
    assert examples.labels is not None  # a label column was asked for
    pred_probs = checked_pred_probs(pred_probs, len(examples), names.names, place or "pred_probs")
    _, groups = copies_and_groups(examples, has_texts, None)
    if examples.votes is not None:
        raise InputError(
            "Several sources of labels need a probe, and pred_probs are final: give a model or embeddings "
            "instead."
        )
    if examples.verified is not None:
        raise InputError(
            "Verified rows teach a probe, and pred_probs are final: give a model or embeddings instead."
        )
    try:
        quality = label_quality_from_pred_probs(pred_probs, examples.labels, groups=groups)
    except InputError as error:
        raise error if place is None else InputError(f"{place}: {error}") from error
    say_if_no_better_than_chance(quality, agreement(np.asarray(pred_probs), examples.labels))
    return quality


def say_if_no_better_than_chance(quality: LabelQuality, agreed: float | None) -> None:
    """Warn where labels drawn at random, or those of other rows, would look the same."""
    if quality.noise_rate > 1 - 1 / quality.num_classes or (agreed is not None and agreed < _AGREEMENT):
        warnings.warn(
            "The predictions agree with the labels no better than chance: see whether each text stands "
            "beside its own label. If it does, what the rows are judged by says too little of their classes. "
            "The list is of no use.",
            ClearWarning,
            stacklevel=2,
        )


def copies_and_groups(
    examples: Examples, has_texts: bool, embeddings: npt.NDArray[np.floating] | None
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Which rows are copies, and which are left out together, (N,) each.

    Args:
        examples: N rows, perhaps with groups.
        has_texts: Whether the texts are those of the rows; without, copies are told by equal embeddings.
        embeddings: (N, …), where there are any.

    Raises:
        InputError: If all rows are in one group.
    """
    size = len(examples)
    if has_texts:
        copies, groups = row_groups(examples)
    else:
        copies = np.arange(size) if embeddings is None else as_groups(identical_rows(embeddings), size)
        groups = copies if examples.groups is None else combined(copies, examples.groups)
    if not groups.any():
        raise InputError(
            "All rows are copies of each other or in one group, and none is left to judge them by: give more "
            "rows, or other groups."
        )
    return copies, groups
