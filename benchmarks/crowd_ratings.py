"""Write the sentences of VADER's authors, rated by 15 to 99 people each, as data with one person's label.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python benchmarks/crowd_ratings.py vaderSentiment-3.3.2.tar.gz DATA/crowd

Tweets, film and product reviews, and newspaper editorials (Hutto & Gilbert 2014), each rated from -4 to 4. A
label is the sign of a rating: negative, neutral or positive. ``label`` is that of one rater, drawn with a
fixed seed, as somebody gets who pays for one label a row; ``clean_label`` is the most frequent one of all
raters. Rows on which two are equally frequent have none, and are left out.
"""

import argparse
import ast
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from clear_peft.data import write_table

ARCHIVE = "hutto_ICWSM_2014.tar.gz"
SOURCES = ("tweets", "movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets")
NAMES = {-1: "negative", 0: "neutral", 1: "positive"}
TEST_ROWS = 5000
SEED = 0


def main() -> None:
    """Write train.csv and test.csv, and say how many labels go against the majority."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sdist", type=Path, help="vaderSentiment-3.3.2.tar.gz")
    parser.add_argument("output", type=Path, help="folder for train.csv and test.csv")
    arguments = parser.parse_args()

    try:
        files = read_sdist(arguments.sdist)
    except (OSError, tarfile.TarError):
        parser.error(
            f"{arguments.sdist} is not the sdist of vaderSentiment 3.3.2: download it with pip first."
        )
    generator = np.random.default_rng(SEED)
    rows = pd.DataFrame(rated_rows(files, generator)).drop_duplicates("text")
    rows = rows.iloc[generator.permutation(len(rows))]
    test, train = rows.iloc[:TEST_ROWS], rows.iloc[TEST_ROWS:]

    arguments.output.mkdir(parents=True, exist_ok=True)
    write_table(train, arguments.output / "train.csv")
    test = test.assign(label=test["clean_label"]).drop(columns="clean_label")
    write_table(test, arguments.output / "test.csv")
    wrong = (train["label"] != train["clean_label"]).mean()
    print(f"{len(train)} training rows, {wrong:.3f} of them against the majority; {len(test)} test rows")


def read_sdist(sdist: Path) -> dict[str, list[str]]:
    """The lines of the text files in the archive that lies in the sdist, by name; nothing is unpacked."""
    with tarfile.open(sdist) as outer:
        inner = {Path(item.name).name: outer.extractfile(item) for item in outer if item.isfile()}.get(
            ARCHIVE
        )
        if inner is None:
            raise tarfile.TarError(ARCHIVE)
        with tarfile.open(fileobj=inner) as archive:
            return {
                Path(item.name).name: content.read().decode("utf-8-sig").splitlines()
                for item in archive
                if item.name.endswith(("_GroundTruth.txt", "_anonDataRatings.txt"))
                if (content := archive.extractfile(item)) is not None
            }


def rated_rows(files: dict[str, list[str]], generator: np.random.Generator) -> list[dict[str, str]]:
    """``text``, ``label`` and ``clean_label`` of each sentence that most raters agree on."""
    rows = []
    for source in SOURCES:
        texts = dict(first_and_last(line) for line in files[f"{source}_GroundTruth.txt"])
        for line in files[f"{source}_anonDataRatings.txt"]:
            key, ratings = first_and_last(line)
            labels = [NAMES[int(np.sign(rating))] for rating in ast.literal_eval(ratings)]
            (clean, votes), *others = Counter(labels).most_common(2)
            if not others or others[0][1] < votes:
                label = labels[generator.integers(len(labels))]
                rows.append({"text": texts[key], "label": label, "clean_label": clean})
    return rows


def first_and_last(line: str) -> tuple[str, str]:
    """Key and content of a line; what stands between them are statistics of the ratings."""
    parts = line.split("\t")
    return parts[0], parts[-1]


if __name__ == "__main__":
    main()
