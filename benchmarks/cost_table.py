"""What training costs: seconds and GB by model size, PEFT method and training method, as a markdown table.

    python benchmarks/cost_table.py
    python benchmarks/cost_table.py --sizes minilm --peft lora --check

Each model is a BERT of that size with random weights (the cost does not depend on them), each row is measured
over a few steps in a process of its own: a plain step, a routed step and a forward without gradient, which
take turns, in bf16 where it pays, and on a CPU as the trainer computes them. Of one thread, seconds are those
of the processor. From these, with E epochs, per 1,000 examples and epoch:

    plain        steps
    recommended  a fifth plain, the others routed steps, + 2 passes/E: for the head, and to ask the probe;
                 where no label is doubted, all steps are plain
    paper        3 epochs of plain and E − 3 of routed steps, + (E − 2)/E passes
    cleanlab     5 folds train on 4/5 each, then all once more: 5 × steps + 1/E passes

Evaluation is not in it: 1,000 validation rows cost a pass an epoch. GB is the process's peak in plain steps,
libraries and model included; all methods but full fine-tuning need about that much.

To carry it to a GPU: a token costs 2·P FLOPs forward, P the weights without embeddings, and 2·P backward
through frozen weights (another 2·P where weights are trained, which adapters hardly have); attention costs
4·T·d more in each of L layers forward, and 8·T·d backward. So a plain step takes 4·P + 12·T·d·L a token.
Divide by what the GPU sustains; its data sheet says what it never exceeds. `--check` trains the packaged
MiniLM plainly, and compares its time with what the table says.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# layers, width, heads
SIZES = {"tiny": (2, 128, 2), "minilm": (6, 384, 12), "base": (12, 768, 12), "large": (24, 1024, 16)}
PEFT = ("lora", "adapter", "prefix", "bitfit")
_WARM_UP = 1


def measure(size: str, peft: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of steps and of a forward, and FLOPs, an example; peak GB of this process."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, logging

    from clear_peft.cpu import faster
    from clear_peft.hardware import bf16_pays
    from clear_peft.routing import Router
    from clear_peft.tuners import build

    logging.set_verbosity_error()
    torch.manual_seed(0)
    layers, width, heads = SIZES[size]
    shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    config = BertConfig(**shape, intermediate_size=4 * width, num_labels=options.classes)
    base = BertForSequenceClassification(config)
    weights = sum(p.numel() for p in base.parameters()) - sum(
        p.numel() for p in base.bert.embeddings.parameters()
    )
    model = build(base, peft).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-5)
    ids = torch.randint(1000, 20_000, (options.batch_size, options.tokens))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = torch.randint(0, options.classes, (options.batch_size,))

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays("cpu")):
            return model(**batch).logits

    quick = faster("cpu")  # as the trainer steps

    def step() -> None:
        with quick:
            torch.nn.functional.cross_entropy(forward().float(), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad()

    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    router = Router(model)
    gates = torch.rand(options.batch_size, router.num_blocks) < 0.5

    def routed() -> None:
        with router.hold(gates):
            step()

    def read() -> None:
        model.eval()
        with torch.no_grad(), quick:
            forward()
        model.train()

    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = _seconds({"plain": step, "routed": routed, "pass": read}, options.steps, now)
    flops = (4 * weights + 12 * options.tokens * width * layers) * options.tokens
    return {
        **{name: each / options.batch_size for name, each in seconds.items()},
        "flops": flops,
        "gb": peak / 1e9,
    }


def _seconds(acts: dict[str, Callable[[], object]], times: int, now: Callable[[], float]) -> dict[str, float]:
    """The median of each; they take turns, since a machine's speed drifts."""
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(times + _WARM_UP):
        for name, act in acts.items():
            started = now()
            act()
            taken[name].append(now() - started)
    return {name: statistics.median(each[_WARM_UP:]) for name, each in taken.items()}


def costs(found: dict[str, float], epochs: int) -> dict[str, float]:
    """Seconds an example and epoch of each training method; see the top of this file."""
    plain, routed, read = found["plain"], found["routed"], found["pass"]
    warm_up = min(3, epochs) / epochs
    return {
        "plain": plain,
        "recommended": 0.2 * plain + 0.8 * routed + 2 * read / epochs,
        "paper": warm_up * plain + (1 - warm_up) * routed + max(0, epochs - 2) / epochs * read,
        "cleanlab": 5 * plain + read / epochs,
    }


def check(options: argparse.Namespace) -> str:
    """What the table says of a plain run with LoRA on the packaged MiniLM, and what that run takes."""
    from clear_peft.bench.packaged import packaged
    from clear_peft.data import write_table
    from clear_peft.pipeline import train
    from clear_peft.pipeline.packages import minilm
    from clear_peft.run_folder import RunConfig

    epochs, rows = 3, 320
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        write_table(packaged("bbc")[0].sample(rows, random_state=0), table)
        metrics = train(
            RunConfig(
                model=str(minilm()),
                data=str(table),
                output=f"{folder}/run",
                method="plain",
                epochs=epochs,
                batch_size=options.batch_size,
                max_length=options.tokens,
            )
        )
    found = measure("minilm", "lora", options)
    counts = metrics["rows"]
    says = epochs * (counts["train"] * found["plain"] + counts["validation"] * found["pass"])
    took = metrics["train_seconds"]
    return (
        f"check: {rows} rows, {epochs} epochs: {took:.1f} s, by the table {says:.1f} s ({took / says:.2f} ×)"
    )


def _alone(function: Callable, *arguments: object) -> object:
    """Call in a new process, whose peak memory is then that of the call."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--peft", nargs="+", choices=PEFT, default=list(PEFT))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--tflops", type=float, default=50, help="what a GPU sustains, for the last column")
    parser.add_argument("--check", action="store_true", help="compare with a run")
    options = parser.parse_args()

    methods = ["plain", "recommended", "paper", "cleanlab"]
    heads = ["model", "PEFT", *(f"{m}, s" for m in methods), "GB", "TFLOP, plain", "here, GFLOP/s"]
    heads.append(f"plain at {options.tflops:g} TFLOP/s, s")
    print(f"Per 1,000 examples of {options.tokens} tokens and epoch; {options.epochs} epochs.\n")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for size in options.sizes:
        for peft in options.peft:
            found = _alone(measure, size, peft, options)
            seconds = costs(found, options.epochs)
            cells = [
                *(f"{1000 * seconds[method]:.1f}" for method in methods),
                f"{found['gb']:.2f}",
                f"{found['flops'] / 1e9:.2f}",
                f"{found['flops'] / found['plain'] / 1e9:.0f}",
                f"{found['flops'] / 1e9 / options.tflops:.3f}",
            ]
            print(f"| {' | '.join([size, peft, *cells])} |", flush=True)
    if options.check:
        print(f"\n{_alone(check, options)}")


if __name__ == "__main__":
    main()
