"""A label for each word of a sentence: the task, what is known of the words, and how they count."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from datasets import Dataset as HubDataset
from torch import Tensor
from transformers import DataCollatorForTokenClassification

from clear_peft.data.label_sets import rarest
from clear_peft.data.token_rows import ranges
from clear_peft.data.word_tokens import NO_LABEL, SENTENCE_COLUMN
from clear_peft.errors import InputError
from clear_peft.label_quality import LabelQuality, as_groups, combined
from clear_peft.routing import Router
from clear_peft.trainer import columns, estimators
from clear_peft.trainer.config import MEASURED, OF_WORDS, WEIGHTED_ACCURACY, CleaRConfig
from clear_peft.trainer.estimate import Estimate
from clear_peft.trainer.sampler import rebalance
from clear_peft.trainer.selection import evaluation_order
from clear_peft.trainer.spans import SpanScheme, word_figures
from clear_peft.trainer.stats import TrainingStats
from clear_peft.trainer.store import ExampleStore, Rows
from clear_peft.trainer.tasks import SingleLabel
from clear_peft.tuners.plans import plan_of


class WordLabels(SingleLabel):
    """One class of C for each word of a row (``AutoModelForTokenClassification``).

    Words are to losses, probes and estimates what rows are elsewhere. A word is a token that has a label. All
    other tokens have -100: special ones, and those of a word but its first.
    """

    # of the rows that are evaluated: their places in the evaluation, and the sentence of each
    _windows: tuple[npt.NDArray[np.integer], npt.NDArray[Any]] | None = None

    def check(self, model: Any, args: CleaRConfig) -> None:
        """Refuse what is for whole texts.

        Raises:
            InputError: If there is such a figure or PEFT method.
        """
        metric = args.metric_name.removeprefix("eval_")
        if metric in MEASURED.keys() - {*OF_WORDS, "loss"}:
            raise InputError(
                f"metric_for_best_model is {metric!r}, which is not measured of words: give "
                f"{', '.join(map(repr, OF_WORDS))} or 'loss'."
            )
        if plan_of(model) is not None:
            raise InputError(
                "rosa, metapeft and glora are trained with labels of whole texts: choose another PEFT method."
            )

    def collator(self, processing_class: Any) -> Any:
        """Pads labels along with tokens; None where there is no tokenizer."""
        return None if processing_class is None else DataCollatorForTokenClassification(processing_class)

    def rows(self, dataset: Any, length_column: str, name: str) -> "WordRows":
        """What a data set says of its words."""
        return WordRows(dataset, self.num_labels, length_column, name)

    def store(self, rows: Rows, router: Router | None, args: CleaRConfig) -> "WordStore":
        """What is known of each word, and each row."""
        return WordStore(rows, self.num_labels, router, args)

    def evaluates(self, dataset: Any, args: CleaRConfig) -> None:
        """Take down which rows are windows of one sentence, whose spans they share."""
        sentence = columns.numbers(dataset, SENTENCE_COLUMN) if isinstance(dataset, HubDataset) else None
        self._windows = None
        if sentence is not None:
            self._windows = np.argsort(evaluation_order(dataset, args)), sentence

    def metrics(self, prediction: Any) -> dict[str, float]:
        """Accuracy of words and F1 of spans, as ``compute_metrics`` gives them."""
        predicted, labels = prediction.predictions.argmax(axis=-1), prediction.label_ids
        sentence = np.arange(len(labels))
        if self._windows is not None and len(self._windows[1]) == len(labels):  # not where rows were dropped
            by_row, sentence = self._windows
            predicted, labels = predicted[by_row], labels[by_row]
        known = labels != NO_LABEL
        sentence = np.repeat(sentence, known.sum(axis=1))
        first = np.append(True, sentence[1:] != sentence[:-1])[: len(sentence)]
        return word_figures(predicted[known], labels[known], first, SpanScheme.of(self.names))

    def weighted_metrics(
        self,
        logits: Any,
        labels: npt.NDArray[np.integer],
        weights: npt.NDArray[np.floating] | None,
    ) -> dict[str, float]:
        """Accuracy of words under the given labels, each weighted by its clean probability.

        Args:
            logits: (M, T, C); where it is anything else, nothing is measured.
            labels: Given labels, -100 where a token has none, (M, T).
            weights: Clean probabilities of the W words, (W,); where they are not known, or all 0, all count
                alike.
        """
        if getattr(logits, "shape", None) != (*labels.shape, self.num_labels):
            return {}
        known = labels != NO_LABEL
        right = logits.argmax(axis=-1)[known] == labels[known]
        weights = weights if weights is not None and weights.any() else None
        return {WEIGHTED_ACCURACY: float(np.average(right, weights=weights))}

    def issues(self, quality: LabelQuality) -> pd.DataFrame:
        """Tags, most suspicious first: ``LabelQuality.issues`` with ``word``, the place in the row from 0.

        Windows of a sentence must stand in their order.
        """
        rows = quality.rows
        place = pd.Series(rows).groupby(rows).cumcount().to_numpy()
        issues = replace(quality, row=None).issues(self.names)
        word = issues["row"].to_numpy()
        issues["row"] = rows[word]
        issues.insert(1, "word", place[word])
        return issues


class WordRows(Rows):
    """``Rows`` whose units are the words of N sentences.

    Words of copied sentences are copies of each other, and those of a sentence belong together. Rows of the
    data set with one number in its column ``sentence`` are windows of one, as ``tokenize_words`` makes them:
    they are judged together too, and where there is no column ``row``, that number is it.

    Attributes:
        sizes: Words of each sentence, (N,) int64.
        starts: Number of words before each sentence, (N,) int64.
    """

    sizes: npt.NDArray[np.int64]

    def __init__(self, dataset: Any, num_labels: int, length_column: str, name: str) -> None:
        super().__init__(dataset, num_labels, length_column, name)
        sentence = columns.numbers(dataset, SENTENCE_COLUMN)
        if sentence is not None:
            self.groups = combined(as_groups(sentence, self.num_rows), self.groups)
            if not columns.has_column(dataset, columns.ROW_COLUMN):
                self.row = sentence.astype(np.int64)
        alike = pd.DataFrame({"copies": self.copies, "size": self.sizes}).groupby(["copies", "size"]).ngroup()
        _, first, of = np.unique(alike, return_index=True, return_inverse=True)
        self.copies = ranges(self.starts[first[of]], self.sizes)
        self.groups, self.row = np.repeat(self.groups, self.sizes), np.repeat(self.row, self.sizes)
        self.clean_labels = None

    def _read_labels(self, dataset: Any, num_labels: int, name: str) -> None:
        self.labels, self.sizes = columns.word_labels_of(dataset, num_labels, name)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self._sentence = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self._num_labels = num_labels
        self.verified = self.votes = None
        for column in (columns.VERIFIED_COLUMN, columns.VOTES_COLUMN):
            if columns.has_column(dataset, column):
                raise InputError(f"The column {column} is for labels of whole texts: remove it.")

    @property
    def strata(self) -> npt.NDArray[np.integer]:
        """The rarest tag of each sentence, (N,)."""
        has = np.zeros((self.num_rows, self._num_labels), bool)
        has[self._sentence, self.labels] = True
        return rarest(has)

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.sizes)

    def of_rows(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the words of each sentence have in common, (N,), of a value for each word, (W,)."""
        return values[self.starts]

    def units_of(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Positions of all words of some sentences, sentence after sentence."""
        return ranges(self.starts[rows], self.sizes[rows])

    def rows_of(self, units: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """The sentences of some words, each once, ascending."""
        return np.unique(self._sentence[units])

    def blocks(self, seed: int) -> list[npt.NDArray[np.integer]]:
        """Positions of all words, of more than 65,536 in random parts of about that size, of whole sentences.

        The first has at least 50 words of every tag, or all that there are. Where their sentences do not fit
        into it, it takes one word of each tag, then a second one of each, as far as there is room.
        """
        if len(self) <= estimators.MOST_ROWS:
            return [np.arange(len(self))]
        order = np.random.default_rng(seed).permutation(self.num_rows)
        tags, sizes = self.labels[self.units_of(order)], self.sizes[order]
        place_of_tag = pd.Series(tags).groupby(tags).cumcount().to_numpy()
        # the first word of each tag, then the second: each sentence by the word that it is needed for first
        needed = np.minimum.reduceat(place_of_tag, np.cumsum(sizes) - sizes)
        order = order[np.argsort(np.minimum(needed, estimators.LEAST_OF_CLASS), kind="stable")]
        part = (np.cumsum(self.sizes[order]) - self.sizes[order]) // estimators.MOST_ROWS
        return [np.sort(self.units_of(each)) for each in np.split(order, np.flatnonzero(np.diff(part)) + 1)]


class WordStore(ExampleStore):
    """All that is known is known of words; ``confidence`` is of sentences, the mean of c over their words.

    Sentences are sampled alike. Words count in the loss as rows are sampled elsewhere: by c, with class
    balance.
    """

    rows: WordRows

    def __init__(self, rows: Rows, num_labels: int, router: Router | None, args: CleaRConfig) -> None:
        self._balance = args.class_balance
        super().__init__(rows, num_labels, router, args)
        self._starts = torch.from_numpy(self.rows.starts).to(self.device)

    def set_estimate(self, estimate: Estimate | None) -> None:
        """Take an estimate in place of the one before."""
        super().set_estimate(estimate)
        if estimate is None:
            return
        known = self.confidence.cpu().numpy()
        weights = rebalance(known.astype(np.float64), self.pseudo_labels.cpu().numpy(), self._balance)
        self.loss_weights = torch.from_numpy(weights / weights.mean()).float().to(self.device)
        of_rows = np.add.reduceat(known, self.rows.starts) / self.rows.sizes
        self.confidence = torch.from_numpy(of_rows.astype(np.float32)).to(self.device)

    def sampling_weights(self, balance: float) -> npt.NDArray[np.floating]:
        """How often sentences are sampled, in proportion, (N,): alike."""
        return np.ones(self.rows.num_rows)

    def units(self, logits: Tensor, labels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (P, C), labels (P,) and positions (P,) of the P words of B sentences.

        Args:
            logits: (B, T, C).
            labels: -100 where a token has none, (B, T).
            ids: Of the sentences, (B,).

        Raises:
            InputError: If the model does not give logits for each token.
        """
        known = labels != NO_LABEL
        if logits.shape[:-1] != labels.shape:
            raise InputError(
                f"The model gives logits of shape {tuple(logits.shape)} for labels of shape "
                f"{tuple(labels.shape)}: choose another PEFT method, which adds no tokens."
            )
        words = (self._starts[ids].unsqueeze(1) + known.cumsum(dim=1) - 1)[known]
        return logits[known], labels[known], words

    def _new_stats(self) -> "WordStats":
        return WordStats(self.rows, *self._sizes, self.device)


class WordStats(TrainingStats):
    """Losses are of words, and gates, which are of sentences, are counted by the rarest tag."""

    def __init__(self, rows: WordRows, num_labels: int, num_blocks: int, device: torch.device) -> None:
        super().__init__(rows.labels, num_labels, num_blocks, device)
        self._classes = torch.from_numpy(rows.strata).to(device)
