"""Clean routing in a training loop of your own.

    python examples/custom_loop.py --data train.csv --model sentence-transformers/all-MiniLM-L6-v2

A scan gives each row a clean probability. The router opens the adapters of a row with that probability, block
by block. Nothing else of clear-peft is used: model, adapter, optimizer and loss are yours.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from clear_peft import Router, find_label_issues


def main(words: list[str] | None = None) -> None:
    """Scan, train with gates, save an ordinary adapter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("adapter"))
    options = parser.parse_args(words)
    torch.manual_seed(0)

    table = pd.read_csv(options.data, dtype=str, keep_default_na=False)
    names = sorted(table["label"].unique())
    labels = torch.tensor([names.index(label) for label in table["label"]])
    issues = find_label_issues(table["text"], table["label"], model=options.model)
    clean_probability = torch.tensor(
        issues.sort_values("row")["clean_probability"].to_numpy(), dtype=torch.float32
    )

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    base = AutoModelForSequenceClassification.from_pretrained(
        options.model, num_labels=len(names), ignore_mismatched_sizes=True
    )
    adapter = LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
    model = get_peft_model(base, adapter).train()
    router = Router(model, max_gate_prob=0.85)
    print(f"Gates for {router.num_blocks} blocks: {', '.join(router.blocks)}")
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)

    step = 0
    for epoch in range(options.epochs):
        total = 0.0
        for ids in torch.randperm(len(table)).split(32):
            texts = table["text"].iloc[ids.tolist()].tolist()
            batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=128)
            p = clean_probability[ids]
            with router.route(p, example_ids=ids, step=step):
                losses = cross_entropy(model(**batch).logits, labels[ids], reduction="none")
                # the gates keep wrong labels from the adapter; the head needs the weight
                loss = (p * losses).mean()
                loss.backward()  # inside: gradient checkpointing runs forwards again
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() * len(ids)
            step += 1
        print(f"epoch {epoch + 1}, loss {total / len(table):.3f}")

    router.detach()  # the model has its own forwards again
    model.save_pretrained(options.output)
    print(f"Adapter: {options.output}")


if __name__ == "__main__":
    main()
