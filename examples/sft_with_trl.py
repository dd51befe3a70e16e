"""Clean routing in TRL's SFTTrainer: a causal model learns to write the label of a text.

    pip install trl
    python examples/sft_with_trl.py --data train.csv --model HuggingFaceTB/SmolLM2-135M

A scan gives each row a clean probability, and a router opens the LoRA adapter of a row with that probability.
Doubtful rows are still read, but teach the adapter little.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from clear_peft import Router, find_label_issues


class RoutedSFTTrainer(SFTTrainer):
    """Holds the gates of a batch from its forward until its backward is over."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        collate = self.data_collator
        self.data_collator = lambda rows: {**collate(rows), "row": torch.tensor([row["row"] for row in rows])}
        self.router = Router(self.model, max_gate_prob=0.85)
        self.clean_probability = torch.tensor(self.train_dataset["clean_probability"])

    def training_step(self, model: Any, inputs: dict[str, Any], *more: Any) -> torch.Tensor:
        """One forward and backward, routed."""
        rows = inputs.pop("row").cpu()
        p = self.clean_probability[rows].to(self.accelerator.device)
        with self.router.route(p, example_ids=rows.to(p.device), step=self.state.global_step):
            return super().training_step(model, inputs, *more)


def main(words: list[str] | None = None) -> None:
    """Scan, train with gates, save an ordinary adapter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True, help="a causal language model")
    parser.add_argument("--encoder", help="for the scan (default: all-MiniLM-L6-v2)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("sft"))
    options = parser.parse_args(words)

    table = pd.read_csv(options.data, dtype=str, keep_default_na=False)
    issues = find_label_issues(table["text"], table["label"], model=options.encoder).sort_values("row")
    rows = Dataset.from_dict(
        {
            "prompt": ("Text: " + table["text"] + "\nTopic:").tolist(),
            "completion": (" " + table["label"]).tolist(),
            "row": list(range(len(table))),
            "clean_probability": issues["clean_probability"].tolist(),
        }
    )
    arguments = SFTConfig(
        output_dir=str(options.output),
        num_train_epochs=options.epochs,
        max_length=256,
        learning_rate=1e-3,
        remove_unused_columns=False,  # the row is needed
        bf16=torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
    )
    trainer = RoutedSFTTrainer(
        options.model, arguments, train_dataset=rows, peft_config=LoraConfig(task_type="CAUSAL_LM")
    )
    print(f"Gates for {trainer.router.num_blocks} blocks")
    print(f"loss {trainer.train().training_loss:.3f}")
    trainer.router.detach()
    trainer.save_model(str(options.output))
    print(f"Adapter: {options.output}")


if __name__ == "__main__":
    main()
