"""Which labels are listed by what any classifier predicts out of sample: ours beside cleanlab's.

    python benchmarks/pred_probs.py --data-dir DATA

Logistic regression on TF-IDF, five folds, on tables with the columns text and label (clean_label, where
the label itself is doubtful, is taken for the truth); noise is symmetric, put in with the seed. Prints a
row for each table and rate: wrong labels, the share of them that ``from_pred_probs`` estimates, and for
it and for cleanlab's ``find_label_issues`` how many rows are listed, their precision and recall. Needs
scikit-learn and cleanlab.
"""

import argparse
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from clear_peft.audit import from_pred_probs
from clear_peft.data import LabelNames, read_table
from clear_peft.noise import symmetric

TABLES = ("trec6", "banking77", "sst5", "hausa_news", "yoruba_news", "noisyagnews")
RATES = (0.0, 0.05, 0.2, 0.4)


def main() -> None:
    """Parse, predict, list, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| data | wrong | estimated | ours: listed, precision, recall | cleanlab |\n|---|---|---|---|---|")
    for name in TABLES:
        table = read_table(options.data_dir / name / "train.csv")
        table = table.sample(min(options.rows, len(table)), random_state=options.seed)
        true_names = table["clean_label" if "clean_label" in table else "label"]
        names = LabelNames.fit(true_names)
        true = names.encode(true_names)
        features = TfidfVectorizer(ngram_range=(1, 2), min_df=2).fit_transform(table["text"])
        for rate in RATES:
            noisy = symmetric(true, len(names.names), rate, options.seed)
            wrong = noisy.labels != true
            probabilities = cross_val_predict(
                LogisticRegression(C=10, max_iter=300),
                features,
                noisy.labels,
                cv=StratifiedKFold(5, shuffle=True, random_state=options.seed),
                method="predict_proba",
            )
            issues = from_pred_probs(noisy.labels, probabilities).sort_values("row")
            ours = issues["is_label_issue"].to_numpy()
            theirs = find_label_issues(noisy.labels, probabilities, n_jobs=1)
            estimated = 1 - issues["clean_probability"].mean()
            print(
                f"| {name} | {wrong.mean():.1%} | {estimated:.1%} | {found(ours, wrong)} | "
                f"{found(theirs, wrong)} |",
                flush=True,
            )


def found(listed: np.ndarray, wrong: np.ndarray) -> str:
    """How many rows are listed, and where there are wrong labels, precision and recall."""
    if not wrong.any():
        return f"{listed.sum()}"
    precision = wrong[listed].mean() if listed.any() else 0.0
    return f"{listed.sum()}, {precision:.2f}, {listed[wrong].mean():.2f}"


if __name__ == "__main__":
    main()
