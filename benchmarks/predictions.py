"""What `predict` costs beside a bare loop of forwards, on one device.

    OMP_NUM_THREADS=1 python benchmarks/predictions.py

MiniLM with LoRA (r = 8) and a head for five classes; texts of BBC News, each cut to a number of words drawn
from 4 to 160. All make logits of the same texts by the same model.

    bare      the tokenizer on all texts, batches of 64 of like length, the model in inference mode, under
              bf16 autocast where bf16 pays
    compiled  with --compile: the bare loop, its model compiled by inductor for any shape
    ours      what `predict` does between the table that it reads and the one that it writes

Kinds take turns, and the first turn, in which a model is compiled, does not count. Seconds are those of the
processor, ratios are medians of those of neighbours. Besides, in half precision, the largest difference
between the logits, and the share of predictions that are the same.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from clear_peft.data import Examples, LabelNames
from clear_peft.hardware import bf16_pays, choose_device
from clear_peft.pipeline.inference import Run
from clear_peft.pipeline.packages import bbc_news, minilm
from clear_peft.run_folder import RunConfig
from clear_peft.tuners import build

_BATCH = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--float32", action="store_true", help="the bare loop without autocast")
    parser.add_argument("--compile", action="store_true", help="a compiled bare loop, too")
    options = parser.parse_args()

    torch.manual_seed(0)
    place = choose_device()
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=5)
    model = build(model, "lora", options={"r": 8}).eval().to(place)
    table, rng = bbc_news().sample(options.rows, random_state=0), np.random.default_rng(0)
    texts = [" ".join(text.split()[: rng.integers(4, 160)]) for text in table["text"]]
    names = LabelNames.fit(table["label"])
    config = RunConfig(model=str(minilm()), data="-", output="-", max_length=options.max_length)
    run = Run(config, names, model, tokenizer)
    examples = Examples(texts, None, np.arange(len(texts)))
    in_bf16 = bf16_pays(place) and not options.float32

    def bare(forward: Any = model) -> Any:
        encoded = tokenizer(texts, truncation=True, max_length=options.max_length)
        order = sorted(range(len(texts)), key=lambda row: len(encoded["input_ids"][row]))
        logits = torch.empty(len(texts), 5)
        with torch.inference_mode(), torch.autocast(place, torch.bfloat16, enabled=in_bf16):
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                some = {name: [column[row] for row in rows] for name, column in encoded.items()}
                batch = tokenizer.pad(some, return_tensors="pt").to(place)
                logits[rows] = forward(**batch).logits.float().cpu()
        return logits.numpy()

    def ours() -> Any:
        return run.logits(examples)

    kinds: dict[str, Callable[[], Any]] = {"bare": bare, "ours": ours}
    if options.compile:
        kinds["compiled"] = partial(bare, torch.compile(model, dynamic=True))
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    found = {}
    for number in range(options.rounds + 1):
        for name in kinds if number % 2 else [*kinds][::-1]:
            started = time.process_time()
            found[name] = kinds[name]()
            if number:
                seconds[name].append(time.process_time() - started)
    print(f"{options.rows} texts, {torch.get_num_threads()} threads, torch {torch.__version__}, {place}")
    print(f"bare loop in {'bf16' if in_bf16 else 'float32'}")
    for name, each in seconds.items():
        print(f"{name:10s}{statistics.median(each) / options.rows * 1e3:8.2f} ms a text")
    for name in kinds.keys() - {"ours"}:
        ratios = [new / old for new, old in zip(seconds["ours"], seconds[name], strict=True)]
        print(f"ours / {name} {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    same = (found["ours"].argmax(axis=1) == found["bare"].argmax(axis=1)).mean()
    largest = np.abs(found["ours"] - found["bare"]).max()
    print(f"largest difference of logits {largest:.3f}; the same class in {same:.1%}")


if __name__ == "__main__":
    main()
