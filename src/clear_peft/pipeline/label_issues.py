"""Which labels of texts look wrong, by a frozen model, or by supplied predictions or embeddings."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.data import Examples, LabelNames, row_groups
from clear_peft.data.examples import examples_of
from clear_peft.errors import ClearWarning, InputError
from clear_peft.hardware import check_device
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
from clear_peft.pipeline.packages import minilm
from clear_peft.pipeline.texts_and_labels import column

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter

# standard errors by which predictions have to agree with labels more than with others
_AGREEMENT = 2.0
_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def find_label_issues(
    texts: Sequence[str] | None,
    labels: Sequence[str | int] | npt.NDArray[Any],
    *,
    model: str | None = None,
    groups: npt.ArrayLike | None = None,
    pred_probs: npt.ArrayLike | None = None,
    embeddings: npt.ArrayLike | None = None,
    verified: Sequence[Any] | npt.NDArray[Any] | None = None,
    opinions: Mapping[str, Sequence[Any] | npt.NDArray[Any]] | None = None,
    max_length: int = 128,
    long_texts: str = "head",
    cache: bool = True,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> pd.DataFrame:
    """Find labels that look wrong, without any training.

    Linear probes on the features of a frozen model predict each row without it, its copies and its group; a
    noise model, fitted to these predictions and the labels, says how likely each label is right.

    Args:
        texts: N texts, of NumPy, pandas, polars, Arrow or plain Python. They may be None with ``pred_probs``
            or ``embeddings``.
        labels: Given labels, (N,): names or whole numbers.
        model: Hub name or path of a pretrained encoder. Default: the packaged all-MiniLM-L6-v2 where it is
            installed, else the same from the hub.
        groups: What belongs together, such as the customer of each row, (N,): numbers or text. Rows with a
            negative number, or without a value, are alone. Default: copies and near copies of a text alone
            are grouped.
        pred_probs: Probabilities by models that have not seen the row, instead of a model, (N, C), classes by
            number where all labels are whole numbers, else sorted by name.
        embeddings: Features of the rows, instead of a model, (N, D) or (N, V, D).
        verified: The true label of each row that a person has looked at, or True where the given one is
            right, (N,); None, an empty text, NaN or False elsewhere. These rows are believed, and the others
            judged by what they tell of how labels go wrong. Not with ``pred_probs``.
        opinions: Other labels for the same rows by the name of their source, such as a rule, a model or
            another person, each (N,); None, NaN or an empty text where it says nothing. Labels are judged by
            all sources. Not with ``pred_probs``.
        max_length: Tokens per text. Default 128.
        long_texts: What is read of longer texts: their ``head``, their ``tail``, or all of them in
            ``windows`` that overlap. Default ``head``.
        cache: Whether features of texts are kept on disk for the next time. Default True.
        device: Where the model runs: ``auto``, a CUDA GPU if there is one, else the CPU; ``cpu``, ``cuda``,
            ``mps`` or ``xpu``. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run. Default False.

    Returns:
        All rows, most suspicious first: ``row`` (position, from 0), ``text``, ``given_label`` and
        ``predicted_label`` (categorical, of the type of ``labels`` where these are all whole numbers or all
        booleans), ``clean_probability`` (that the given label is right; one minus its mean is the estimated
        noise rate), ``label_quality`` (the predicted probability of the given label, after calibration),
        ``is_label_issue`` (more likely wrong than right), ``group`` and, where rows are verified,
        ``verified`` (their true label); these come last.

    Raises:
        InputError: If arrays are not as above, there are fewer than two classes, all rows are in one group,
            there is no such device, or the model cannot be loaded.
    """
    check_sources(model, pred_probs, embeddings)
    check_device(device)
    if texts is None and pred_probs is None and embeddings is None:
        raise InputError("There are no texts: give texts, pred_probs or embeddings.")
    columns: dict[str, Any] = {"label": column(labels, "labels")}
    if texts is not None:
        columns["text"] = column(texts, "texts")
        if len(columns["text"]) != len(columns["label"]):
            raise InputError(
                f"There are {len(columns['text'])} texts and {len(columns['label'])} labels: give one label "
                "for each text."
            )
    if verified is not None:
        columns["verified"] = _as_long(column(verified, "verified"), columns["label"], "verified")
    for name, said in (opinions or {}).items():
        if name in ("text", "label", "verified"):
            raise InputError(f"An opinion is called {name!r}, as another column is: give it another name.")
        columns[name] = _as_long(column(said, name), columns["label"], name)
    if not columns["label"]:
        raise InputError("There are no rows: give texts and their labels.")
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    text_column = None if texts is None else "text"
    table = examples_of(
        frame,
        "find_label_issues",
        text_column=text_column,
        verified_column=None if verified is None else "verified",
        opinion_column=list(opinions or ()),
    )
    examples, names = table.examples, table.names
    assert names is not None  # there is a label column
    if groups is not None:
        examples = replace(examples, groups=as_groups(groups, len(examples)))
    quality = assess(
        examples,
        names,
        has_texts=texts is not None,
        model=model,
        pred_probs=pred_probs,
        embeddings=embeddings,
        max_length=max_length,
        long_texts=long_texts,
        cache=cache,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    return listed(quality, examples, names, _as_given(columns["label"], names))


def _as_given(labels: list[Any], names: LabelNames) -> list[Any]:
    """The C labels as they were given where all are whole numbers or all booleans, else their names."""
    for kind in ((bool, np.bool_), (int, np.integer)):
        if all(isinstance(label, kind) for label in labels):
            values = {str(label): label for label in (np.asarray(labels).tolist())}
            return [values.get(name, name) for name in names.names]
    return list(names.names)


def _as_long(values: list[Any], labels: list[Any], name: str) -> list[Any]:
    if len(values) != len(labels):
        raise InputError(
            f"There are {len(labels)} labels, but {name} has {len(values)} entries: give one for each row, "
            "None where there is none."
        )
    return values


def listed(
    quality: LabelQuality, examples: Examples, names: LabelNames, labels: Sequence[Any] | None = None
) -> pd.DataFrame:
    """``LabelQuality.issues`` with the texts, and labels as they are to be shown; default: by name."""
    issues = quality.issues(names.names)
    if labels is not None:
        shown = dict(zip(names.names, labels, strict=True))
        for name in ("given_label", "predicted_label"):
            issues[name] = issues[name].cat.rename_categories(shown)
        if "verified" in issues:
            told = [shown.get(label) for label in issues["verified"]]
            issues["verified"] = pd.Series(told, dtype=object)
    places = np.searchsorted(examples.rows, issues["row"].to_numpy())
    issues.insert(1, "text", pd.Series([examples.texts[place] for place in places], dtype=object))
    return issues


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
        ``sources``: a share by the name of a column; nothing where labels were judged without them.
    """
    if examples.votes is None or quality.source != "votes":
        return {}
    columns = [name for part in (labels, opinions) for name in ([part] if isinstance(part, str) else part)]
    shares = reliability(examples.votes, quality.pred_probs)
    return {"sources": dict(zip(columns, shares.tolist(), strict=True))}


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
        return _MODEL


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
    _say_if_no_better_than_chance(quality, probe.agreement)
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
    _say_if_no_better_than_chance(quality, agreement(np.asarray(pred_probs), examples.labels))
    return quality


def _say_if_no_better_than_chance(quality: LabelQuality, agreed: float | None) -> None:
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
