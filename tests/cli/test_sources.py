"""Second opinions and annotators, from the table through scan, train and Python."""

import json

import numpy as np
import pandas as pd
import pytest

from clear_peft import find_label_issues
from clear_peft.errors import ClearWarning, InputError
from clear_peft.run_folder.layout import LABEL_QUALITY
from clear_peft.run_folder.quality_file import load_label_quality
from tiny_text import KEYWORDS, keyword_table

ROWS = 96


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("CLEAR_PEFT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def sources(tmp_path):
    """A table with an opinion that is mostly right, on half of the rows, and three annotators."""
    frame = keyword_table(ROWS, seed=0, noise=0.4)
    rng = np.random.default_rng(1)

    def noisy(rate, cover):
        said = frame["clean_label"].to_numpy(object)
        said = np.where(rng.random(ROWS) < rate, rng.choice(list(KEYWORDS), ROWS), said)
        return np.where(rng.random(ROWS) < cover, said, "")

    frame = frame.assign(rule=noisy(0.1, 0.5), ann=noisy(0.1, 0.9), bob=noisy(0.6, 0.9), cy=noisy(0.2, 0.9))
    frame.to_csv(tmp_path / "sources.csv", index=False)
    frame.drop(columns="label").to_csv(tmp_path / "annotators.csv", index=False)
    return frame


def _annotators(*names):
    return [word for name in names for word in ("--annotator-column", name)]


def _scanned(cli, place, data, output, *words):
    done = cli("scan", "--data", data, "--model", place.model, "--output", output, "--format", "json", *words)
    assert done.status == 0, done.err
    return json.loads(done.out), pd.read_csv(output / "label_issues.csv")


def test_a_source_of_rows_without_a_label_alone_has_no_share(cli, place, tmp_path, sources):
    blank = np.arange(ROWS) >= ROWS - 20
    frame = sources.assign(
        label=sources["label"].where(~blank, ""), model=sources["clean_label"].where(blank, "")
    )
    frame.to_csv(tmp_path / "blank.csv", index=False)
    columns = ("--opinion-column", "rule", "--opinion-column", "model")
    said, _ = _scanned(cli, place, tmp_path / "blank.csv", tmp_path / "scan", *columns)
    assert list(said["sources"]) == ["label", "rule"]


def test_a_scan_weighs_a_second_opinion(cli, place, tmp_path, sources):
    said, issues = _scanned(
        cli, place, tmp_path / "sources.csv", tmp_path / "scan", "--opinion-column", "rule"
    )
    worth = said["sources"]
    assert list(worth) == ["label", "rule"]
    assert worth["label"] < worth["rule"]
    assert said["noise_rate_interval"] is None
    ranked = sources.loc[issues["row"]]
    wrong = (ranked["label"] != ranked["clean_label"]).to_numpy()
    contradicted = ((ranked["rule"] != "") & (ranked["rule"] != ranked["label"])).to_numpy()
    assert wrong[:20].mean() > wrong.mean() + 0.2
    p = issues["clean_probability"].to_numpy()
    assert p[contradicted].mean() < p[~contradicted].mean() - 0.3


def test_a_person_is_told_what_each_source_is_worth(cli, place, tmp_path, sources):
    words = ["--data", tmp_path / "annotators.csv", "--model", place.model, "--output", tmp_path / "scan"]
    done = cli("scan", *words, *_annotators("ann", "bob", "cy"))
    assert done.status == 0, done.err
    assert "no interval: it assumes that the sources of labels err independently" in " ".join(
        done.out.split()
    )
    line = next(line for line in done.out.splitlines() if line.startswith("Labels that are right"))
    shares = dict(part.split() for part in line.split(": ")[1].split(", "))
    assert float(shares["bob"].rstrip("%")) < float(shares["ann"].rstrip("%")) - 20


def test_training_reads_all_sources_too(cli, place, tmp_path, sources):
    output = tmp_path / "run"
    words = place.options(output, data=tmp_path / "annotators.csv", epochs=3)
    done = cli("train", *words, *_annotators("ann", "bob", "cy"))
    assert done.status == 0, done.err
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["sources"]["bob"] < metrics["sources"]["ann"]
    quality, _ = load_label_quality(output / LABEL_QUALITY, sorted(KEYWORDS))
    assert quality.source == "votes"
    fixed = tmp_path / "fixed.csv"
    issues = pd.read_csv(output / "label_issues.csv")
    row = issues.loc[0]
    pd.DataFrame(
        {
            "row": [row["row"]],
            "action": ["relabel"],
            "label": [row["predicted_label"]],
            "given_label": [row["given_label"]],
            "text": [row["text"][:200]],
        }
    ).to_csv(tmp_path / "corrections.csv", index=False)
    done = cli("audit", "--run", output, "--apply", tmp_path / "corrections.csv", "--output", fixed)
    assert done.status == 0, done.err
    assert "--verified" in done.out, "the corrected table has a column that annotators would be asked for"
    assert pd.read_csv(fixed).loc[row["row"], "label"] == row["predicted_label"]


def test_python_takes_opinions_by_name(sources):
    labels = sources["label"]
    told_nothing = np.random.default_rng(0).normal(size=(ROWS, 8))
    opinions = {name: sources[name] for name in ("ann", "bob", "cy")}
    with pytest.warns(ClearWarning, match="no better than chance"):
        alone = find_label_issues(None, labels, embeddings=told_nothing)
    both = find_label_issues(None, labels, embeddings=told_nothing, opinions=opinions)
    wrong = (labels != sources["clean_label"]).to_numpy()
    first = wrong.sum()
    assert wrong[alone["row"][:first]].mean() < 0.7 < 0.85 < wrong[both["row"][:first]].mean()
    texts = sources["text"]
    with pytest.raises(InputError, match="called 'label', as another column"):
        find_label_issues(texts, labels, opinions={"label": sources["rule"]})
    with pytest.raises(InputError, match="rule has 3 entries"):
        find_label_issues(texts, labels, opinions={"rule": ["farming"] * 3})
    with pytest.raises(InputError, match="Several sources of labels need a probe"):
        find_label_issues(
            None, labels, pred_probs=np.full((ROWS, 3), 1 / 3), opinions={"rule": sources["rule"]}
        )
