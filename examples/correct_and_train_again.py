"""Look at some rows, and let the answers teach scan and training.

    python examples/correct_and_train_again.py --data train.csv --test test.csv --model roberta-base

The column of answers stands in for a person who says the true label of the rows that are asked for. Half of
them are the most suspicious ones, half are random: rows of the list alone say little about the rest.
"""

import argparse
from pathlib import Path

import pandas as pd

from clear_peft import find_label_issues
from clear_peft.pipeline import train
from clear_peft.run_folder import RunConfig


def main(words: list[str] | None = None) -> None:
    """Scan, ask, scan again, and train with and without the answers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--answers", default="clean_label")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=100, help="rows that are looked at")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    options = parser.parse_args(words)

    table = pd.read_csv(options.data, dtype=str, keep_default_na=False)
    issues = find_label_issues(table["text"], table["label"], model=options.model)
    suspicious = issues["row"].head(options.rows // 2)
    others = table.index.difference(suspicious).to_series()
    asked = [*suspicious, *others.sample(options.rows - len(suspicious), random_state=0)]

    verified = pd.Series("", index=table.index)
    verified[asked] = table.loc[asked, options.answers]
    again = find_label_issues(table["text"], table["label"], model=options.model, verified=verified)
    for name, found in (("before", issues), ("after", again)):
        print(f"Labels that look wrong {name} {len(asked)} answers: {found['is_label_issue'].sum()}")

    options.output.mkdir(parents=True, exist_ok=True)
    data = options.output / "verified.csv"
    table.assign(verified=verified).to_csv(data, index=False)
    for name, column in (("without", None), ("with", "verified")):
        config = RunConfig(
            model=options.model,
            data=str(data),
            test=str(options.test),
            verified_column=column,
            epochs=options.epochs,
            output=str(options.output / name),
        )
        metrics = train(config, overwrite=True)
        assert metrics is not None  # of the only process
        print(f"Test accuracy {name} the answers: {metrics['test']['accuracy']:.1%}")


if __name__ == "__main__":
    main()
