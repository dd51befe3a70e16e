"""Which labels of texts look wrong, by a frozen model, or by supplied predictions or embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.data import Examples, LabelNames
from clear_peft.data.examples import examples_of
from clear_peft.errors import InputError
from clear_peft.hardware import check_device
from clear_peft.label_quality import (
    LabelQuality,
    as_groups,
)
from clear_peft.pipeline.judge import assess, check_sources
from clear_peft.pipeline.texts_and_labels import column


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
            number where all labels are whole numbers, else sorted by name. Columns of a DataFrame that are
            named after the classes may be in any order.
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
        answers = _as_long(column(verified, "verified"), columns["label"], "verified")
        columns["verified"] = _true_labels(answers, columns["label"])
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


def _true_labels(answers: list[Any], labels: list[Any]) -> list[Any]:
    """Answers, the given label in place of True and nothing in place of False, unless labels are such."""
    if any(isinstance(label, bool | np.bool_) for label in labels):
        return answers
    told = zip(answers, labels, strict=True)
    return [(label if said else None) if isinstance(said, bool | np.bool_) else said for said, label in told]


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
    """``LabelQuality.issues`` with texts and ids, and labels as they are to be shown; default: by name."""
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
    if examples.ids is not None:
        issues["id"] = np.array(examples.ids, dtype=object)[places]
    return issues
