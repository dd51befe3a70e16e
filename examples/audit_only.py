"""Which labels of a CSV look wrong? No training.

    python examples/audit_only.py --data tickets.csv --text-column body --label-column team

Writes all rows, most suspicious first. Prints the first ones, and the classes that are taken for each other.
Read the list from the top, and stop when most labels are right. The flag is_label_issue misses most errors
that people, rules or language models make for a reason: for these, see correct_and_train_again.py.
"""

import argparse
from pathlib import Path

import pandas as pd

from clear_peft import find_label_issues


def main(words: list[str] | None = None) -> None:
    """Scan, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--model", help="default: all-MiniLM-L6-v2")
    parser.add_argument("--output", type=Path, default=Path("label_issues.csv"))
    options = parser.parse_args(words)

    # as text: "NA", "007" and "1.0" stay as they are
    table = pd.read_csv(options.data, dtype=str, keep_default_na=False)
    issues = find_label_issues(table[options.text_column], table[options.label_column], model=options.model)
    issues.to_csv(options.output, index=False)

    columns = ["row", "given_label", "predicted_label", "clean_probability"]
    print(issues[columns].head(10).to_string(index=False))
    listed = issues[issues["is_label_issue"]]
    print(f"{len(listed)} of {len(issues)} labels are more likely wrong than right")
    print(f"Estimated noise rate: {1 - issues['clean_probability'].mean():.1%}")
    pairs = listed.groupby(["given_label", "predicted_label"], observed=True).size()
    for (given, predicted), rows in pairs.nlargest(5).items():
        print(f"  {rows} rows labelled {given} look like {predicted}")
    print(f"All rows: {options.output}")


if __name__ == "__main__":
    main()
