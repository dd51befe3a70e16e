"""Wrong tags of words, found by frozen features: ``find_token_issues`` beside cleanlab.

    OMP_NUM_THREADS=1 python benchmarks/token_labels.py --data DATA/mitr_weak/train.jsonl [--rows 1500]

DATA holds sentences about restaurants as JSON lines: ``tokens``, their true tags ``clean_labels``, 0 outside
of entities, and ``labels`` that rules have made. Wrong tags are those of the rules (given), or are put into
the true ones: each word gets another tag (symmetric), or each entity another type (type), by chance.

cleanlab gets the probabilities of a logistic regression (C = 1) on the same features, each layer at unit
length, in five folds of whole sentences, and what ``token_classification.rank.get_label_quality_scores``
does by default. Prints the share of wrong tags, average precision of the lists of wrong words and of
sentences with a wrong word, how many words are called wrong by each, and the CPU seconds of each, embedding
apart.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cleanlab.token_classification.filter import find_label_issues
from cleanlab.token_classification.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from clear_peft.data import LabelNames
from clear_peft.data.token_rows import Sentences
from clear_peft.pipeline.feature_cache import default_folder
from clear_peft.pipeline.judge import default_model
from clear_peft.pipeline.token_issues import judge_words
from clear_peft.pipeline.word_encoder import encode_words

_FOLDS, _RATE, _TYPES = 5, 0.2, 9
Tags = np.ndarray


def main() -> None:
    """Parse, put errors in, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1500, help="sentences, the first ones")
    parser.add_argument("--seeds", type=int, default=3, help="of the errors that are put in")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.data.read_text().splitlines()[: options.rows]]
    words = [row["tokens"] for row in rows]
    sentence = np.repeat(np.arange(len(words)), [len(each) for each in words])
    true = np.concatenate([row["clean_labels"] for row in rows])
    given = np.concatenate([row["labels"] for row in rows])
    print(f"{len(words)} sentences, {len(true)} words")
    print(
        "| errors | seed | wrong | estimated | judge | AP: words | sentences | listed | precision | seconds |"
    )
    print("|---" * 10 + "|")
    for name, make in (("given", lambda *_: given), ("symmetric", symmetric), ("type", other_type)):
        for seed in range(1 if name == "given" else options.seeds):
            noisy = make(true, sentence, np.random.default_rng(seed))
            for line in compared(name, seed, words, sentence, noisy, true):
                print(line, flush=True)


def symmetric(true: Tags, sentence: np.ndarray, rng: np.random.Generator) -> Tags:
    """A fifth of the words get another tag, any of them."""
    other = (true + rng.integers(1, _TYPES, len(true))) % _TYPES
    return np.where(rng.random(len(true)) < _RATE, other, true)


def other_type(true: Tags, sentence: np.ndarray, rng: np.random.Generator) -> Tags:
    """A fifth of the entities get another type, all of their words the same."""
    begins = np.append(True, (np.diff(true) != 0) | (np.diff(sentence) != 0))
    entity = np.cumsum(begins) - 1
    moved = rng.random(entity[-1] + 1) < _RATE
    shift = rng.integers(1, _TYPES - 1, entity[-1] + 1)
    other = (true - 1 + shift[entity]) % (_TYPES - 1) + 1
    return np.where(moved[entity] & (true > 0), other, true)


def compared(
    name: str, seed: int, words: list[list[str]], sentence: np.ndarray, noisy: Tags, true: Tags
) -> list[str]:
    """Lines of the table: ours and cleanlab's."""
    wrong, lines = noisy != true, []
    bad = np.bincount(sentence, wrong) > 0
    judges: list[tuple[str, Callable]] = [("ours", ours), ("cleanlab", cleanlab)]
    encode_words(words, default_model(), cache=default_folder())  # for both
    for judge, judged in judges:
        started = time.process_time()
        score, listed, rate = judged(words, sentence, noisy)
        seconds = time.process_time() - started
        lowest = np.full(len(words), np.inf)
        np.minimum.at(lowest, sentence, score)
        right = wrong[listed].mean() if listed.any() else np.nan
        figures = [average_precision_score(wrong, -score), average_precision_score(bad, -lowest)]
        cells = [name, str(seed), f"{wrong.mean():.3f}", f"{rate:.3f}", judge]
        cells += [*(f"{each:.3f}" for each in figures), str(listed.sum()), f"{right:.2f}", f"{seconds:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ours(words: list[list[str]], sentence: np.ndarray, noisy: Tags) -> tuple[np.ndarray, np.ndarray, float]:
    """Place of each word in the list, which words are listed, and the estimated share of wrong tags."""
    names = LabelNames(tuple(str(tag) for tag in range(_TYPES)))
    quality = judge_words(Sentences(words, noisy, names))
    place = np.empty(len(noisy))
    place[np.lexsort((quality.self_confidence, quality.clean_probability))] = np.arange(len(noisy))
    return place, quality.is_label_issue, quality.noise_rate


def cleanlab(
    words: list[list[str]], sentence: np.ndarray, noisy: Tags
) -> tuple[np.ndarray, np.ndarray, float]:
    """The same by cleanlab: the quality of each tag, and the words of its issues."""
    features = encode_words(words, default_model(), cache=default_folder())
    features = features / np.linalg.norm(features, axis=2, keepdims=True)
    copies = np.unique([" ".join(each) for each in words], return_inverse=True)[1]
    probabilities = cross_val_predict(
        LogisticRegression(max_iter=300),
        features.reshape(len(features), -1),
        noisy,
        groups=copies[sentence],
        cv=GroupKFold(_FOLDS),
        method="predict_proba",
    )
    ends = np.cumsum([len(each) for each in words])
    labels, parts = np.split(noisy, ends[:-1]), np.split(probabilities, ends[:-1])
    _, scores = get_label_quality_scores([each.tolist() for each in labels], parts)
    listed = np.zeros(len(noisy), bool)
    starts = np.append(0, ends[:-1])
    for row, position in find_label_issues([each.tolist() for each in labels], parts):
        listed[starts[row] + position] = True
    return np.concatenate(scores), listed, float(listed.mean())


if __name__ == "__main__":
    main()
