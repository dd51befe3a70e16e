"""Training on wrong tags of words: plain fine-tuning, ``recommended``, and cleanlab's filter before it.

    OMP_NUM_THREADS=1 python benchmarks/token_training.py --data DATA/mitr_weak [--rows 1000]

DATA holds ``train.jsonl`` and ``test.jsonl``, sentences about restaurants as for ``token_labels.py``, which
also says what errors there are. Sentences to train on are drawn at random by the seed; a tenth of them, with
their wrong tags, chooses the epoch. All train LoRA on MiniLM by the preset ``recommended``:

- ``plain``: cross entropy on the given tags (``clean_routing=False``), by accuracy;
- ``plain, probe head``: the same from a head that is a linear probe (``noise_threshold=1``);
- ``ours``: ``CleaRTrainer``, by weighted accuracy;
- ``cleanlab``: words that ``token_classification.filter.find_label_issues`` lists have no label (-100), by
  probabilities of a logistic regression as in ``token_labels.py``; the rest is ``plain``;
- ``true tags``: ``plain`` on the true tags of the same sentences;
- ``cleanlab, probe head`` and ``true tags, probe head``: both from such a head.

Prints the accuracy of words and the F1 of spans on the true tags of all test sentences. Neighbouring words
of one type are a span.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from clear_peft import tokenize_words
from clear_peft.data import LabelNames
from clear_peft.data.token_rows import first_words
from clear_peft.pipeline.models import load_classifier, load_tokenizer
from clear_peft.pipeline.packages import minilm
from clear_peft.trainer import CleaRConfig, CleaRTrainer, preset
from clear_peft.trainer.spans import SpanScheme, word_figures
from clear_peft.tuners import build
from label_noise_cells import keep_cell
from token_labels import cleanlab, other_type, symmetric

NAMES = LabelNames(tuple(map(str, range(9))), words=True)
ERRORS = {"rules": None, "symmetric": symmetric, "type": other_type}
_PLAIN = {"clean_routing": False, "metric_for_best_model": "accuracy"}
_PROBE_HEAD = {"noise_threshold": 1.0}
METHODS: dict[str, tuple[dict[str, Any], Any]] = {
    "plain": (_PLAIN, None),
    "plain, probe head": (_PROBE_HEAD, None),
    "ours": ({}, None),
    "cleanlab": (_PLAIN, cleanlab),
    "cleanlab, probe head": (_PROBE_HEAD, cleanlab),
    "true tags": (_PLAIN, None),
    "true tags, probe head": (_PROBE_HEAD, None),
}
Tags = np.ndarray


def main() -> None:
    """Parse, put errors in, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1000, help="sentences to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--errors", nargs="+", default=list(ERRORS), choices=list(ERRORS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=48)
    parser.add_argument("--test", default="test", choices=("test", "dev"))
    parser.add_argument("--output", type=Path, help="JSON lines, one a training")
    options = parser.parse_args()
    train, test = read(options.data / "train.jsonl"), read(options.data / f"{options.test}.jsonl")
    print(
        "| errors | seed | wrong | method | accuracy | span F1 | estimated | seconds |\n" + "|---" * 8 + "|"
    )
    for seed in options.seeds:
        drawn = np.random.default_rng(seed).permutation(len(train))[: options.rows]
        rows = [train[i] for i in drawn]
        words = [row["tokens"] for row in rows]
        sentence = np.repeat(np.arange(len(words)), [len(each) for each in words])
        true = np.concatenate([row["clean_labels"] for row in rows])
        for errors in options.errors:
            make = ERRORS[errors]
            given = np.concatenate([row["labels"] for row in rows])
            if make is not None:
                given = make(true, sentence, np.random.default_rng(seed))
            for method in options.methods:
                settings, judge = METHODS[method]
                tags, started = true if method.startswith("true tags") else given, time.perf_counter()
                known = np.ones(len(tags), bool)
                if judge is not None:
                    known = ~judge(words, sentence, tags)[1]
                figures, rate = trained(words, tags, known, test, settings, seed, options)
                cell = {
                    "errors": errors,
                    "seed": seed,
                    "rows": options.rows,
                    "epochs": options.epochs,
                    "wrong": float((given != true).mean()),
                    "method": method,
                    **figures,
                    "estimated": rate,
                    "seconds": time.perf_counter() - started,
                }
                keep_cell(cell, options.output)
                told = "" if rate is None else f"{rate:.2f}"
                print(
                    f"| {errors} | {seed} | {cell['wrong']:.2f} | {method} | {cell['accuracy']:.3f} | "
                    f"{cell['span_f1']:.3f} | {told} | {cell['seconds']:.0f} |",
                    flush=True,
                )


def read(path: Path) -> list[dict[str, Any]]:
    """Sentences of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def trained(
    words: list[list[str]],
    tags: Tags,
    known: np.ndarray,
    test: list[dict[str, Any]],
    settings: dict[str, Any],
    seed: int,
    options: argparse.Namespace,
) -> tuple[dict[str, float], float | None]:
    """Figures on the test sentences after training on these tags, and the share that was found wrong.

    Args:
        words: Of the sentences to train on.
        tags: Of all words, (W,).
        known: Whether a word counts, (W,).
        test: Sentences with true tags.
        settings: Over the preset.
        seed: Of the training.
        options: Of the command line.
    """
    set_seed(seed)
    tokenizer = load_tokenizer(str(minilm()))
    base = load_classifier(str(minilm()), NAMES, tokenizer)
    lists = np.split(tags, np.cumsum([len(each) for each in words])[:-1])
    rows = without(tokenize_words(words, lists, tokenizer, options.max_length), known)
    with tempfile.TemporaryDirectory() as folder:
        args = CleaRConfig(
            **{
                **preset("recommended", device="cpu"),
                "output_dir": folder,
                "num_train_epochs": options.epochs,
                "seed": seed,
                "report_to": "none",
                "disable_tqdm": True,
                **settings,
            }
        )
        trainer = CleaRTrainer(build(base, "lora"), args, train_dataset=rows, processing_class=tokenizer)
        trainer.train()
        unseen = tokenize_words([row["tokens"] for row in test], None, tokenizer, options.max_length)
        made = trainer.predict(unseen)
    predicted = made.predictions.argmax(axis=2)[made.label_ids != -100]
    right = np.concatenate([row["labels"] for row in test])
    figures = word_figures(
        predicted, right, first_words([row["tokens"] for row in test]), SpanScheme.of(NAMES.names)
    )
    found = trainer.store.estimate
    return figures, None if found is None else found.train.noise_rate


def without(rows: Any, known: np.ndarray) -> Any:
    """Tokenised sentences whose other words have no label; sentences that have none at all are left out."""
    labels, start = [], 0
    for row in rows["labels"]:
        cells = np.array(row)
        size = (cells != -100).sum()
        cells[np.flatnonzero(cells != -100)[~known[start : start + size]]] = -100
        labels.append(cells.tolist())
        start += size
    rows = rows.remove_columns("labels").add_column("labels", labels)
    return rows.select(np.flatnonzero([max(row) >= 0 for row in labels]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
