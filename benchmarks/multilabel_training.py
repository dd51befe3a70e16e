"""Training with several labels a row, some wrong or missing: plain binary cross entropy beside ours.

    OMP_NUM_THREADS=1 python benchmarks/multilabel_training.py --data trec6 --data-dir DATA

Rows are joined texts as in ``multilabel.py``, 600 for training and as many for the test, of other texts.
Noise is put into the training labels as there. All train LoRA on MiniLM by the preset ``recommended``; a
tenth of the noisy rows chooses the epoch.

- ``plain``: binary cross entropy on the given labels (``clean_routing=False``), by micro-F1;
- ``plain, probe head``: the same, from a head that is a linear probe (``noise_threshold=1``);
- ``ours``: ``CleaRTrainer``, by weighted micro-F1.

Prints micro-F1, macro-F1 and mean average precision on the true labels of the test rows.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from clear_peft.data import Examples, LabelNames, tokenize
from clear_peft.pipeline.models import load_classifier, load_tokenizer
from clear_peft.pipeline.packages import minilm
from clear_peft.trainer import CleaRConfig, CleaRTrainer, preset
from clear_peft.trainer.multilabel import label_set_metrics
from clear_peft.tuners import build
from label_noise_cells import Table, arguments, keep_cell, read
from multilabel import joined, put_in

DATA = ("bbc", "trec6")
NOISE = (("symmetric", 0.2), ("missing", 0.3), ("none", 0.0))
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"clean_routing": False, "metric_for_best_model": "micro_f1"},
    "ours": {"metric_for_best_model": "weighted_micro_f1"},
    "plain, probe head": {"noise_threshold": 1.0, "metric_for_best_model": "weighted_micro_f1"},
}
FIGURES = ("micro_f1", "macro_f1", "mean_average_precision")
_TOKENS = 128


def main() -> None:
    """Parse, train, print."""
    parser = arguments(__doc__)
    parser.add_argument("--output", type=Path, help="JSON lines, one a training")
    parser.add_argument("--epochs", type=int, default=12)
    parser.set_defaults(rows=600)
    options = parser.parse_args()
    print(f"| data | noise | method | {' | '.join(FIGURES)} | seconds |\n|---|---|---|---|---|---|---|")
    for name in options.data or DATA:
        table = read(name, options.data_dir)
        if table is None:
            print(f"{name}: not in {options.data_dir}")
            continue
        true, train, test_true, test = halves(table, options.rows, options.seed)
        for kind, rate in NOISE:
            given = true if kind == "none" else put_in(true, kind, rate, options.seed)
            for method, settings in METHODS.items():
                started = time.perf_counter()
                found = trained(
                    train, given, test, {**settings, "num_train_epochs": options.epochs}, options.seed
                )
                cell = {
                    "data": name,
                    "noise": f"{kind} {rate}" if rate else kind,
                    "method": method,
                    **label_set_metrics(found, test_true.astype(float)),
                    "seconds": time.perf_counter() - started,
                }
                keep_cell(cell, options.output)
                figures = " | ".join(f"{cell[figure]:.3f}" for figure in FIGURES)
                print(
                    f"| {name} | {cell['noise']} | {method} | {figures} | {cell['seconds']:.0f} |", flush=True
                )


def halves(table: Table, size: int, seed: int) -> tuple[np.ndarray, Table, np.ndarray, Table]:
    """Joined rows to train on and to test on, of different texts: labels (N, C) and texts of each."""
    order = np.random.default_rng(seed).permutation(len(table.texts))
    parts: list[Any] = []
    for rows in (order[::2], order[1::2]):
        texts = [table.texts[i] for i in rows]
        parts += joined(
            Table(table.name, texts, table.given[rows], table.true[rows], table.names), size, seed
        )
    return parts[0], parts[1], parts[2], parts[3]


def trained(train: Table, given: np.ndarray, test: Table, settings: dict[str, Any], seed: int) -> np.ndarray:
    """Log odds of the test rows, (N, C), after training on given labels, (N, C)."""
    set_seed(seed)
    tokenizer = load_tokenizer(str(minilm()))
    base = load_classifier(str(minilm()), LabelNames(train.names), tokenizer)
    base.config.problem_type = "multi_label_classification"
    rows = tokenized(train, tokenizer).add_column("labels", given.astype(float).tolist())
    unseen = tokenized(test, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        args = CleaRConfig(
            **{
                **preset("recommended", device="cpu"),
                "output_dir": folder,
                "seed": seed,
                "report_to": "none",
                "disable_tqdm": True,
                **settings,
            }
        )
        trainer = CleaRTrainer(build(base, "lora"), args, train_dataset=rows, processing_class=tokenizer)
        trainer.train()
        return trainer.predict(unseen).predictions


def tokenized(table: Table, tokenizer: Any) -> Any:
    """Its texts as a trainer reads them."""
    return tokenize(Examples(table.texts, None, np.arange(len(table.texts))), tokenizer, _TOKENS)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
