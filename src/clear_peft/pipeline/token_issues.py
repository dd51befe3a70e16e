"""Which labels of words, such as those of named entities, look wrong, by a frozen model."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.data.token_rows import Sentences, ranges, sentences_of
from clear_peft.errors import InputError
from clear_peft.hardware import check_device
from clear_peft.label_quality import LabelQuality, as_groups, combined, duplicate_groups, fit_probe
from clear_peft.pipeline.feature_cache import default_folder
from clear_peft.pipeline.judge import default_model
from clear_peft.pipeline.texts_and_labels import column
from clear_peft.pipeline.word_encoder import encode_words

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter


class TokenIssues(NamedTuple):
    """What ``find_token_issues`` finds.

    Attributes:
        spans: Suspicious words, neighbours of one sentence together, most suspicious first.
        clean_probability: Of each sentence, the probability that a word's tag is right, (T,) float32.
    """

    spans: pd.DataFrame
    clean_probability: list[npt.NDArray[np.float32]]


def find_token_issues(
    tokens: Sequence[Sequence[str]],
    labels: Sequence[Sequence[str | int]],
    *,
    model: str | None = None,
    groups: npt.ArrayLike | None = None,
    max_length: int = 128,
    cache: bool = True,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> TokenIssues:
    """Find tags of words that look wrong, such as those of named entities, without any training.

    Linear probes on what a frozen model makes of each word in its sentence predict the tag of each word
    without its sentence, copies of it and its group; a noise model says how likely each tag is right. Tags
    are judged as they are written: ``B-PER`` and ``I-PER`` are two.

    Args:
        tokens: N sentences, each a list of words.
        labels: The tag of each word: N lists of names or whole numbers.
        model: Hub name or path of a pretrained encoder with a fast tokenizer. Default: the packaged
            all-MiniLM-L6-v2 where it is installed, else the same from the hub.
        groups: What belongs together, such as the document of each sentence, (N,): numbers or text.
            Sentences with a negative number, or without a value, are alone. Default: copies and near copies
            of a sentence alone are grouped.
        max_length: Tokens that the model reads at once; longer sentences are read in windows that overlap.
            Default 128.
        cache: Whether features of words are kept on disk for the next time. Default True.
        device: Where the model runs, as for ``clear_peft.hardware.choose_device``. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run. Default False.

    Returns:
        ``spans``: neighbouring words of a sentence whose tag is more likely wrong than right, or is not the
        one that is predicted, are an entry together: ``row`` (position of the sentence, from 0), ``start``
        and ``end`` (of the words, from 0, the end exclusive), ``words``, ``given_tags`` and
        ``suggested_tags`` (lists), ``clean_probability`` (the lowest of the words) and ``is_label_issue``
        (more likely wrong than right). And ``clean_probability`` of all words, a list of arrays.

    Raises:
        InputError: If there is not one tag for each word, a sentence has no words, there are fewer than two
            different tags, all sentences are in one group, or the model cannot be loaded.
    """
    check_device(device)
    words, tags = column(tokens, "tokens"), column(labels, "labels")
    if len(words) != len(tags):
        raise InputError(
            f"There are {len(words)} sentences and {len(tags)} lists of labels: give one for each."
        )
    if not words:
        raise InputError("There are no sentences: give lists of words and of their labels.")
    table = pd.DataFrame({"tokens": pd.Series(words, dtype=object), "labels": pd.Series(tags, dtype=object)})
    sentences = sentences_of(table, "find_token_issues", "tokens", "labels")
    judged = judge_words(
        sentences,
        groups=groups,
        model=model,
        max_length=max_length,
        cache=cache,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    p = np.split(judged.clean_probability, np.cumsum(sentences.sizes)[:-1])
    return TokenIssues(spans_of(judged, sentences), p)


def judge_words(
    sentences: Sentences,
    *,
    groups: npt.ArrayLike | None = None,
    model: str | os.PathLike[str] | None = None,
    max_length: int = 128,
    cache: bool = True,
    device: str = "auto",
    trust_remote_code: bool = False,
    reporter: "Reporter | None" = None,
) -> LabelQuality:
    """Judge the tags of W words by probes that have not seen their sentences.

    Words of copied sentences count together as one.

    Args:
        sentences: N of them.
        groups: As for ``find_token_issues``, and so what is not named here.
        model: Hub name or path.
        max_length: Tokens of a window.
        cache: Whether features are kept on disk.
        device: Where the model runs.
        trust_remote_code: Whether code that comes with the model may run.
        reporter: Told what is being done. Default: nobody.

    Returns:
        A row for each word; its group is that of its sentence.

    Raises:
        InputError: As ``find_token_issues``.
    """
    name = default_model() if model is None else os.fspath(model)
    sizes, size = sentences.sizes, len(sentences)
    together = as_groups(duplicate_groups([" ".join(words) for words in sentences.words]), size)
    if groups is not None:
        together = combined(together, as_groups(groups, size))
    if not together.any():
        raise InputError(
            "All sentences are copies of each other or in one group, and none is left to judge them by: give "
            "more sentences, or other groups."
        )
    if reporter is not None:
        reporter.stage(f"Encoding {sizes.sum()} words of {size} sentences with {name}")
    features = encode_words(
        sentences.words,
        name,
        max_length=max_length,
        cache=default_folder() if cache else None,
        device=device,
        trust_remote_code=trust_remote_code,
        step=None if reporter is None else reporter.step,
    )
    if reporter is not None:
        reporter.stage("Judging the tags")
    first: dict[tuple[str, ...], int] = {}
    of = np.array([first.setdefault(tuple(words), row) for row, words in enumerate(sentences.words)])
    starts = np.cumsum(sizes) - sizes
    _, quality = fit_probe(
        features,
        sentences.tags,
        len(sentences.names.names),
        groups=np.repeat(together, sizes),
        copies=ranges(starts[of], sizes),
    )
    return quality


def listed_spans(quality: LabelQuality, sentences: Sentences) -> pd.DataFrame:
    """``spans_of`` as a file has them: lists as text, and the ``sentence``."""
    spans = spans_of(quality, sentences)
    for name in ("words", "given_tags", "suggested_tags"):
        spans[name] = spans[name].map(" ".join).astype("str")
    spans["sentence"] = pd.Series([" ".join(sentences.words[row]) for row in spans["row"]], dtype="str")
    return spans


def spans_of(quality: LabelQuality, sentences: Sentences) -> pd.DataFrame:
    """The ``spans`` of ``find_token_issues``: of its W words, those that look wrong, neighbours together."""
    p, given, likeliest = quality.clean_probability, quality.given, quality.pred_probs.classes
    sizes, names = sentences.sizes, sentences.names.names
    row = np.repeat(np.arange(len(sentences)), sizes)
    position = ranges(np.zeros_like(sizes), sizes)
    other = np.where(likeliest[:, 0] == given, likeliest[:, 1], likeliest[:, 0])
    suspicious = np.flatnonzero(quality.is_label_issue | (quality.predicted != given))
    apart = (np.diff(suspicious) > 1) | (np.diff(row[suspicious]) > 0)
    runs = np.split(suspicious, np.flatnonzero(apart) + 1) if len(suspicious) else []
    rank = np.empty(len(p), np.int64)
    rank[np.lexsort((quality.self_confidence, p))] = np.arange(len(p))
    spans = pd.DataFrame(
        {
            "row": [row[run[0]] for run in runs],
            "start": [position[run[0]] for run in runs],
            "end": [position[run[-1]] + 1 for run in runs],
            "words": [sentences.words[row[run[0]]][position[run[0]] : position[run[-1]] + 1] for run in runs],
            "given_tags": [[names[tag] for tag in given[run]] for run in runs],
            "suggested_tags": [[names[tag] for tag in other[run]] for run in runs],
            "clean_probability": np.array([p[run].min() for run in runs], np.float32),
        }
    )
    spans["is_label_issue"] = spans["clean_probability"] < 0.5
    return spans.iloc[np.argsort([rank[run].min() for run in runs])].reset_index(drop=True)
