"""From a messy CSV to a classifier: clean up the table, train, save, predict.

    python examples/classify_csv.py --data tickets.csv --text-column body --label-column team

What is cleaned up: rows without text or label, labels that differ by case and spaces alone, and classes of
too few rows to learn from.
"""

import argparse
from pathlib import Path

import pandas as pd

from clear_peft import CleaRClassifier


def cleaned(table: pd.DataFrame, text: str, label: str, fewest: int) -> pd.DataFrame:
    """The rows that can be learnt from; says what was left out."""
    table = table.assign(**{name: table[name].str.split().str.join(" ") for name in (text, label)})
    empty = (table[text] == "") | (table[label] == "")
    table = table[~empty]
    # "Billing", "billing" and "BILLING" become what is written most often
    folded = table[label].str.casefold()
    table = table.assign(**{label: table[label].groupby(folded).transform(lambda names: names.mode()[0])})
    rare = table[label].map(table[label].value_counts()) < fewest
    print(f"Left out: {empty.sum()} rows without text or label, {rare.sum()} rows of rare classes")
    return table[~rare]


def main(words: list[str] | None = None) -> None:
    """Train, save, and predict a text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--model", help="default: all-MiniLM-L6-v2")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fewest", type=int, default=5, help="rows that a class needs")
    parser.add_argument("--output", type=Path, default=Path("classifier"))
    options = parser.parse_args(words)

    table = pd.read_csv(options.data, dtype=str, keep_default_na=False)
    table = cleaned(table, options.text_column, options.label_column, options.fewest)
    texts, labels = table[options.text_column], table[options.label_column]

    classifier = CleaRClassifier(options.model, epochs=options.epochs, verbose=True).fit(texts, labels)
    issues = classifier.label_issues_
    print(f"{issues['is_label_issue'].sum()} of {len(issues)} labels look wrong")
    classifier.save(options.output)

    # as another program would
    classifier = CleaRClassifier.load(options.output)
    text = texts.iloc[0]
    probabilities = classifier.predict_proba([text])[0]
    print(f"{text[:60]!r}: {classifier.classes_[probabilities.argmax()]} ({probabilities.max():.0%})")


if __name__ == "__main__":
    main()
