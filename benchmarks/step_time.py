"""Time of a training step on the CPU with ``clear_peft.cpu`` and without it, and of the parts of it.

    OMP_NUM_THREADS=1 python benchmarks/step_time.py --tokens 128

MiniLM or, by --size, a BERT of random weights, with LoRA (r = 8) on query and value; a quarter of the tokens
of every other row are padding. bf16, and whole in float32 too; with --compile, torch's step compiled by
inductor, and how long its first step takes by the clock. All kinds of step take turns, so that whatever else
the machine does falls on all. The time is that of the processor; the ratio is that to the first kind, with
quartiles of neighbouring steps.

Beside it stands the share of the peak: the floating-point operations of a step, by formula (cost_table.py),
over its time, over what the product of two square matrices of 2,048 reaches in the same precision, in turn
with the steps.
"""

import argparse
import statistics
import time
from contextlib import nullcontext

import torch
from torch.nn.functional import cross_entropy, dropout, linear

from clear_peft.cpu import FasterCPU
from cost_table import SIZES
from routed_step import tuned

SIDE = 2048


class Part(FasterCPU):
    """Some of the functions only."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """As ever for these functions, and not at all for others."""
        if func in self.functions:
            return super().__torch_function__(func, types, args, kwargs)
        return func(*args, **(kwargs or {}))


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, help="those of cost_table.py (default: MiniLM itself)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch's step, compiled, too")
    options = parser.parse_args()

    torch.manual_seed(0)
    model = tuned(options.size, "lora")
    ids = torch.randint(1000, 20000, (options.batch_size, options.tokens))
    mask = torch.ones_like(ids)
    mask[::2, options.tokens - options.tokens // 4 :] = 0
    labels = torch.randint(0, 10, (options.batch_size,))

    base = model.get_base_model()
    weights = sum(p.numel() for p in base.bert.encoder.parameters() if not p.requires_grad)
    shape = base.config
    attention = 12 * options.tokens * shape.hidden_size * shape.num_hidden_layers
    operations = (4 * weights + attention) * options.tokens * options.batch_size
    square = {dtype: torch.randn(SIDE, SIDE).to(dtype) for dtype in (torch.float32, torch.bfloat16)}

    def product(dtype):
        started = time.process_time()
        square[dtype] @ square[dtype]
        return 2 * SIDE**3 / (time.process_time() - started)

    def step(kind, dtype, forward=model):
        with kind:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                logits = forward(input_ids=ids, attention_mask=mask).logits
            cross_entropy(logits.float(), labels).backward()
        model.zero_grad()

    kinds = {
        "torch": (nullcontext(), torch.bfloat16),
        "weights rounded once": (Part(linear), torch.bfloat16),
        "and dropout": (Part(linear, dropout), torch.bfloat16),
        "and attention": (FasterCPU(), torch.bfloat16),
        "all, in float32": (FasterCPU(), torch.float32),
    }
    if options.compile:
        kinds["torch, compiled"] = (nullcontext(), torch.bfloat16, torch.compile(model))
    machine = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{options.size or 'MiniLM itself'}, {options.tokens} tokens, {machine}")
    for training in (True, False):
        model.train(training)
        times, peaks, first = {name: [] for name in kinds}, {dtype: [] for dtype in square}, {}
        for number in range(options.steps + 2):
            for dtype, each in peaks.items():
                each.append(product(dtype))
            for name, kind in kinds.items():
                began, started = time.perf_counter(), time.process_time()
                step(*kind)
                took = time.process_time() - started
                first.setdefault(name, time.perf_counter() - began)
                if number >= 2:
                    times[name].append(took / options.batch_size * 1e3)
        print("with dropout" if training else "without dropout")
        if options.compile:
            print(f"  the first compiled step: {first['torch, compiled']:.0f} s")
        for name, each in times.items():
            ratios = [new / old for new, old in zip(each, times["torch"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            took, dtype = statistics.median(each), kinds[name][1]
            rate = operations / (took * options.batch_size / 1e3)
            print(
                f"  {name:22s}{took:7.2f} ms an example, {middle:.3f} ({low:.3f} to {high:.3f}); "
                f"{rate / 1e9:.0f} GFLOP/s, {rate / statistics.median(peaks[dtype]):.0%} of the peak"
            )


if __name__ == "__main__":
    main()
