"""Images whose labels cannot be trusted: LoRA on a vision transformer, and a list of wrong labels.

    python examples/classify_images.py --data photos --model google/vit-base-patch16-224-in21k

The folder has one folder of images for each class: photos/cat/1.png, photos/dog/7.jpg, … Or --data is a
Parquet file with the columns image and label, as data sets of the hub have them.
"""

import argparse
from pathlib import Path

from datasets import ClassLabel, Dataset, Image
from pyarrow.parquet import read_table
from transformers import AutoImageProcessor, AutoModelForImageClassification

from clear_peft import CleaRConfig, CleaRTrainer, preset
from clear_peft.tuners import build

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def main(words: list[str] | None = None) -> None:
    """Read images, train with clean routing, list wrong labels, save an ordinary adapter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True, help="a model for image classification")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("images"))
    options = parser.parse_args(words)

    table = read(options.data)
    names = table.features["label"].names
    files = [image["path"] for image in table.cast_column("image", Image(decode=False))["image"]]
    processor = AutoImageProcessor.from_pretrained(options.model)
    inputs = (processor(image.convert("RGB"), return_tensors="np") for image in table["image"])
    pixels = [each["pixel_values"][0] for each in inputs]
    rows = Dataset.from_dict({"pixel_values": pixels, "labels": list(table["label"])})

    base = AutoModelForImageClassification.from_pretrained(
        options.model, num_labels=len(names), ignore_mismatched_sizes=True
    )
    base.config.id2label = dict(enumerate(names))
    recipe = preset("recommended") | {"num_train_epochs": options.epochs, "report_to": "none"}
    trainer = CleaRTrainer(
        model=build(base, "lora"),
        args=CleaRConfig(output_dir=str(options.output), **recipe),
        train_dataset=rows.with_format("torch"),
    )
    trainer.train()
    trainer.save_model(str(options.output))

    issues = trainer.label_issues()
    issues.insert(0, "file", [files[row] for row in issues["row"]])
    issues.to_csv(options.output / "label_issues.csv", index=False)
    print(f"{issues['is_label_issue'].sum()} of {len(issues)} labels look wrong")
    print(f"Adapter and label_issues.csv: {options.output}")


def read(data: Path) -> Dataset:
    """Images, and labels with their names."""
    if data.is_dir():
        files = sorted(file for file in data.glob("*/*") if file.suffix.lower() in _ENDINGS)
        columns = {"image": [str(file) for file in files], "label": [file.parent.name for file in files]}
        table = Dataset.from_dict(columns).cast_column("image", Image())
    else:
        table = Dataset(read_table(data))
    return table if isinstance(table.features["label"], ClassLabel) else table.class_encode_column("label")


if __name__ == "__main__":
    main()
