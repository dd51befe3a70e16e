"""A classifier whose base model is too large for one GPU: its weights are sharded over several.

    accelerate launch --use_fsdp … examples/train_sharded.py --data train.csv --model meta-llama/Llama-3.1-8B

docs/several-gpus.md has the whole command. The table has the columns text and label. Started by python alone,
the script trains in one process.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from clear_peft import CleaRConfig, CleaRTrainer, preset


def main(words: list[str] | None = None) -> None:
    """Train with clean routing, save an ordinary adapter and a list of wrong labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True, help="a model for classification, or a decoder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8, help="rows of each process")
    parser.add_argument("--output", type=Path, default=Path("sharded"))
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    options = parser.parse_args(words)

    # before the model is loaded: ZeRO-3 loads it in shards then
    recipe = preset("recommended") | {"num_train_epochs": options.epochs, "report_to": "none"}
    recipe |= {"per_device_train_batch_size": options.batch_size, "bf16": torch.cuda.is_available()}
    args = CleaRConfig(output_dir=str(options.output), **recipe)
    set_seed(args.seed)

    table = pd.read_csv(options.data, dtype=str, keep_default_na=False)
    names = sorted(table["label"].unique())
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    tokens = tokenizer(table["text"].tolist(), truncation=True, max_length=128)
    rows = Dataset.from_dict({**tokens, "labels": [names.index(label) for label in table["label"]]})

    base = AutoModelForSequenceClassification.from_pretrained(
        options.model,
        id2label=dict(enumerate(names)),
        pad_token_id=tokenizer.pad_token_id,
        ignore_mismatched_sizes=True,
    )
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules="all-linear"))
    trainer = CleaRTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    trainer.train(resume_from_checkpoint=options.resume)

    # by all processes, which hold shares of the weights
    trainer.save_model(str(options.output))
    issues = trainer.label_issues()
    if PartialState().is_main_process:
        (options.output / "labels.json").write_text(json.dumps(names), encoding="utf-8")
        issues.to_csv(options.output / "label_issues.csv", index=False)
        print(f"{issues['is_label_issue'].sum()} of {len(issues)} labels look wrong")
        print(f"Adapter and label_issues.csv: {options.output}")


if __name__ == "__main__":
    main()
