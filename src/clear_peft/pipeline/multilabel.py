"""Which of several labels of texts look wrong, and which look missing: ``find_multilabel_issues``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.data import Examples, LabelNames
from clear_peft.data.examples import examples_of
from clear_peft.data.label_sets import label_sets_in
from clear_peft.errors import InputError
from clear_peft.hardware import check_device
from clear_peft.label_quality import (
    MultilabelQuality,
    as_flags,
    as_groups,
    fit_multilabel,
    multilabel_quality_from_pred_probs,
)
from clear_peft.pipeline.arrays import checked_embeddings, checked_pred_probs
from clear_peft.pipeline.judge import check_sources, copies_and_groups, features_of
from clear_peft.pipeline.texts_and_labels import column

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter

_MOST_CONFUSED = 5


def find_multilabel_issues(
    texts: Sequence[str] | None,
    labels: Sequence[Sequence[str | int]] | npt.NDArray[Any] | pd.DataFrame,
    *,
    model: str | None = None,
    groups: npt.ArrayLike | None = None,
    pred_probs: npt.ArrayLike | None = None,
    embeddings: npt.ArrayLike | None = None,
    max_length: int = 128,
    long_texts: str = "head",
    cache: bool = True,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> pd.DataFrame:
    """Find labels that look wrong or missing in rows that have several or none, without any training.

    Logistic regressions on the features of a frozen model predict each label of each row without the row, its
    copies and its group. How often each label is wrongly given or missing is fitted to this, for all labels
    together.

    Args:
        texts: N texts. They may be None with ``pred_probs`` or ``embeddings``.
        labels: A list of labels for each row, names or whole numbers; or an array or a DataFrame of 0 and 1,
            (N, C), whose columns are the labels.
        model: As for ``find_label_issues``, and so what is not named here.
        groups: What belongs together, (N,).
        pred_probs: Probability of each label by models that have not seen the row, instead of a model,
            (N, C): labels in the order of the columns; of lists, by number where all are whole numbers, else
            sorted by name. Columns of a DataFrame that are named after the labels may be in any order. A row
            need not sum to 1.
        embeddings: Features of the rows, instead of a model, (N, D) or (N, V, D).
        max_length: Tokens per text. Default 128.
        long_texts: What is read of longer texts. Default ``head``.
        cache: Whether features of texts are kept on disk. Default True.
        device: Where the model runs. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run. Default False.

    Returns:
        A line for each label that is given, and for each that is missing and may apply, most suspicious
        first: ``row`` (position, from 0), ``text``, and the columns of ``MultilabelQuality.issues``.

    Raises:
        InputError: If arrays are not as above, no row has a label or every row has all, all rows are in one
            group, there is no such device, or the model cannot be loaded.
    """
    check_sources(model, pred_probs, embeddings)
    check_device(device)
    if texts is None and pred_probs is None and embeddings is None:
        raise InputError("There are no texts: give texts, pred_probs or embeddings.")
    given, names = _labels(labels)
    written = [""] * len(given) if texts is None else column(texts, "texts")
    if len(written) != len(given):
        raise InputError(
            f"There are {len(written)} texts and labels of {len(given)} rows: give labels for each text."
        )
    frame = pd.DataFrame({"text": pd.Series(written, dtype=object)})
    text_column = None if texts is None else "text"
    examples = examples_of(
        frame, "find_multilabel_issues", text_column=text_column, label_column=None
    ).examples
    if groups is not None:
        examples = replace(examples, groups=as_groups(groups, len(examples)))
    quality, _ = judge_label_sets(
        examples,
        given,
        names,
        has_texts=texts is not None,
        pred_probs=pred_probs,
        embeddings=embeddings,
        model=model,
        max_length=max_length,
        long_texts=long_texts,
        cache=cache,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    return listed_labels(quality, examples, names)


def judge_label_sets(
    examples: Examples,
    given: npt.NDArray[np.bool_],
    names: LabelNames,
    *,
    has_texts: bool = True,
    pred_probs: npt.ArrayLike | None = None,
    embeddings: npt.ArrayLike | None = None,
    reporter: "Reporter | None" = None,
    place: str | None = None,
    **source: Any,
) -> tuple[MultilabelQuality, npt.NDArray[np.floating] | None]:
    """Judge several labels a row.

    Args:
        examples: N rows, perhaps with groups.
        given: Which labels each has, (N, C).
        names: Of the labels.
        has_texts: Whether the texts are those of the rows; without, copies are told by equal embeddings.
        pred_probs: Probability of each label by models that have not seen the row, (N, C).
        embeddings: (N, D) or (N, V, D).
        reporter: Told what is being done. Default: nobody.
        place: Where arrays come from, for error messages. Default: their name.
        **source: As for ``clear_peft.pipeline.judge.features_of``.

    Returns:
        The quality of the labels, and the features that it was judged by; None with ``pred_probs``.

    Raises:
        InputError: As ``find_multilabel_issues``.
    """
    if embeddings is not None:
        embeddings = checked_embeddings(embeddings, len(examples), place or "embeddings")
    copies, groups = copies_and_groups(examples, has_texts, embeddings)
    if pred_probs is not None:
        pred_probs = checked_pred_probs(pred_probs, len(examples), names.names, place or "pred_probs")
        try:
            return multilabel_quality_from_pred_probs(pred_probs, given, groups=groups), None
        except InputError as error:
            raise error if place is None else InputError(f"{place}: {error}") from error
    features, prior = features_of(examples, names, embeddings, reporter=reporter, **source)
    if reporter is not None:
        reporter.stage("Judging the labels")
    return fit_multilabel(features, given, groups=groups, copies=copies, prior_scores=prior), features


def listed_labels(quality: MultilabelQuality, examples: Examples, names: LabelNames) -> pd.DataFrame:
    """``MultilabelQuality.issues`` with texts and ids, and rows as they stand in the table."""
    issues = quality.issues(names.names)
    places = issues["row"].to_numpy()
    issues["row"] = examples.rows[places]
    issues.insert(1, "text", pd.Series(np.array(examples.texts, dtype=object)[places], dtype=object))
    if examples.ids is not None:
        issues["id"] = np.array(examples.ids, dtype=object)[places]
    return issues


def estimates_of(quality: MultilabelQuality, names: LabelNames) -> dict[str, Any]:
    """For ``metrics.json``: how many labels are wrong or missing, in all and of each label."""
    given, listed = quality.given, quality.is_label_issue
    return {
        "several_labels": True,
        "given_labels": int(given.sum()),
        "wrong_estimate": quality.wrong_rate,
        "missing_estimate": quality.missing_rate,
        "listed_given": int((listed & given).sum()),
        "listed_missing": int((listed & ~given).sum()),
        "labels": _by_label(quality, names),
        "confused": _confused(quality, names),
    }


def _by_label(quality: MultilabelQuality, names: LabelNames) -> dict[str, dict[str, float]]:
    counts = quality.given.sum(axis=0).tolist()
    columns = zip(counts, quality.wrongly_given.tolist(), quality.wrongly_missing.tolist(), strict=True)
    return {
        name: {"given": count, "wrong_estimate": wrong, "missing_estimate": missing}
        for name, (count, wrong, missing) in zip(names.names, columns, strict=True)
    }


def _confused(quality: MultilabelQuality, names: LabelNames) -> list[dict[str, Any]]:
    """Labels that are given in place of another, most rows first."""
    lost = np.where(quality.given, 0, 1 - quality.clean_probability.astype(np.float64)).sum(axis=0)
    rows = lost[:, None] * quality.confusion
    order = np.argsort(-rows, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = zip(*np.unravel_index(order, rows.shape), strict=True)
    return [
        {"true": names.names[i], "given": names.names[j], "rows": float(rows[i, j])}
        for i, j in pairs
        if rows[i, j] > 0
    ]


def _labels(labels: Any) -> tuple[npt.NDArray[np.bool_], LabelNames]:
    if isinstance(labels, pd.DataFrame):
        return as_flags(labels.to_numpy()), LabelNames(tuple(map(str, labels.columns)), several=True)
    if getattr(labels, "ndim", 1) == 2:
        given = as_flags(labels)
        return given, LabelNames(tuple(map(str, range(given.shape[1]))), several=True)
    if isinstance(labels, str | Mapping) or not hasattr(labels, "__iter__"):
        raise InputError(f"labels is a {type(labels).__name__}: give a list of labels for each row.")
    rows = list(labels)
    if not rows:
        raise InputError("There are no rows: give texts and their labels.")
    if any(isinstance(row, str) for row in rows):
        raise InputError(
            "labels holds text: give a list of labels for each row, or use find_label_issues where each row "
            "has one label."
        )
    return label_sets_in(pd.Series(rows, dtype=object), "labels")
