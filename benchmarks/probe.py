"""What a linear probe on the pretrained model's features knows of wrong labels, without any training.

Run it with `python benchmarks/probe.py --data banking77/train.csv --kind symmetric --rate 0.6`, on a
table with the columns text and label; a column clean_label, if there is one, takes the place of --kind.
Prints how many true and given labels the probe predicts for rows that it has not seen, how well it ranks
wrong labels, the noise rate that it estimates, and whether by its noise model classes differ in it.
"""

import argparse

import numpy as np
from sklearn.metrics import average_precision_score

from clear_peft.cleanliness import GaussianMixtureCleanliness, probe
from clear_peft.data import load_examples
from clear_peft.noise import NoiseSpec, corrupt
from clear_peft.runs.embedding import embed
from clear_peft.runs.packages import minilm


def main() -> None:
    """Parse, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--kind", default="symmetric")
    parser.add_argument("--rate", type=float, default=0.6)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--model", help="default: the packaged MiniLM")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    table = load_examples(options.data)
    marked = "clean_label" in table.frame.columns
    if marked:
        table = load_examples(options.data, clean_label_column="clean_label")
    rows = np.random.default_rng(options.seed).permutation(len(table.examples))[: options.rows]
    examples, classes = table.examples.select(np.sort(rows)), len(table.names.names)
    if marked:
        labels, clean = examples.labels, examples.clean_labels
    else:
        clean = examples.labels
        labels = corrupt(clean, classes, NoiseSpec(options.kind, options.rate), options.seed).labels
    features = embed(examples.texts, options.model or str(minilm()), max_length=64)
    opinion = probe(features, labels, classes, GaussianMixtureCleanliness())
    predicted, p = opinion.left_out
    posterior = opinion.noise.posterior(predicted, labels)
    predicted, wrong = predicted.argmax(axis=1), labels != clean
    noise = 1 - p.mean()
    true, given = (predicted == clean).mean(), (predicted == labels).mean()
    print(f"{len(labels)} rows, {classes} classes, {wrong.mean():.1%} wrong labels, {noise:.1%} by estimate")
    print(f"predicts {true:.1%} of the true and {given:.1%} of the given labels")
    print(f"with the given labels {(posterior.argmax(axis=1) == clean).mean():.1%} of the true ones")
    if wrong.any():
        print(f"average precision of its list of wrong labels {average_precision_score(wrong, -p):.3f}")
    print(f"noise: {'even' if opinion.noise.drawn is None else 'each class in its own way'}")


if __name__ == "__main__":
    main()
