"""Clean routing in TRL's SFTTrainer: instruction data, some of whose responses are wrong.

    pip install trl
    python examples/sft_with_trl.py --data train.csv --model HuggingFaceTB/SmolLM2-135M

The table has the columns prompt and completion. find_response_issues gives each pair a clean probability. The
LoRA adapter of a row is open with that probability: doubtful rows are still read, but teach it little.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from clear_peft import CleanRouting, find_response_issues


class RoutedSFTTrainer(CleanRouting, SFTTrainer):
    """TRL's trainer with gates."""


def main(words: list[str] | None = None) -> None:
    """Find wrong responses, train with gates, save an ordinary adapter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True, help="a causal language model")
    parser.add_argument("--encoder", help="that reads the pairs (default: all-MiniLM-L6-v2)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("sft"))
    options = parser.parse_args(words)

    table = pd.read_csv(options.data, dtype=str, keep_default_na=False)
    issues = find_response_issues(table["prompt"], table["completion"], model=options.encoder)
    print(f"{issues['is_response_issue'].sum()} of {len(issues)} responses look wrong")
    table["clean_probability"] = issues.sort_values("row")["clean_probability"].to_numpy()

    arguments = SFTConfig(
        output_dir=str(options.output),
        num_train_epochs=options.epochs,
        max_length=256,
        learning_rate=1e-3,
        bf16=torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
    )
    trainer = RoutedSFTTrainer(
        options.model,
        arguments,
        train_dataset=Dataset.from_pandas(table[["prompt", "completion", "clean_probability"]]),
        peft_config=LoraConfig(task_type="CAUSAL_LM"),
    )
    print(f"Gates for {trainer.router.num_blocks} blocks")
    print(f"loss {trainer.train().training_loss:.3f}")
    trainer.save_model(str(options.output))
    issues.to_csv(options.output / "response_issues.csv", index=False)
    print(f"Adapter and response_issues.csv: {options.output}")


if __name__ == "__main__":
    main()
