"""``clear-peft scan`` of sentences whose words have tags: what it says, what it writes, what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest

from tiny_text import KEYWORDS

FILLER = ("the", "of", "and", "old", "=new")


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("CLEAR_PEFT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def sentences():
    """Words whose kind is their tag, every twelfth of them with a wrong one."""
    rng = np.random.default_rng(0)
    kinds = {word: f"B-{kind}" for kind, words in KEYWORDS.items() for word in words} | dict.fromkeys(
        FILLER, "O"
    )
    words = [rng.choice(list(kinds), 6).tolist() for _ in range(60)]
    tags = [[kinds[word] for word in sentence] for sentence in words]
    for row in range(0, 60, 2):
        tags[row][row % 6] = "O" if tags[row][row % 6] != "O" else "B-sailing"
    return words, tags


@pytest.fixture
def conll(sentences, tmp_path):
    lines = ["-DOCSTART- -X- O", ""]
    for words, tags in zip(*sentences, strict=True):
        lines += [f"{word} NN {tag}" for word, tag in zip(words, tags, strict=True)] + [""]
    (tmp_path / "ner.conll").write_text("\n".join(lines))
    return tmp_path / "ner.conll"


@pytest.fixture
def scan(cli, place, conll, tmp_path):
    def call(*flags, data=conll):
        return cli("scan", "--data", data, "--model", place.model, "--output", tmp_path / "scan", *flags)

    return call


def test_a_person_is_told_the_spans(scan, sentences, conll, tmp_path):
    end = scan()
    assert end.status == 0, end.err
    assert "60 sentences, 360 words, 4 different tags" in end.out
    assert "Most suspicious spans" in end.out
    assert sorted(path.name for path in (tmp_path / "scan").iterdir()) == ["label_issues.csv", "metrics.json"]
    listed = pd.read_csv(tmp_path / "scan" / "label_issues.csv", keep_default_na=False)
    words, tags = sentences
    lines = conll.read_text().splitlines()
    for span in listed.itertuples():
        own = words[span.row][span.start : span.end]
        assert span.words.removeprefix("'") == " ".join(own)
        assert span.given_tags == " ".join(tags[span.row][span.start : span.end])
        assert span.sentence.removeprefix("'") == " ".join(words[span.row])
        assert lines[span.line - 1].split()[0] == own[0]
    assert not listed["words"].str.startswith("=").any()
    wrong = {(row, row % 6) for row in range(0, 60, 2)}
    found = {(span.row, i) for span in listed.head(30).itertuples() for i in range(span.start, span.end)}
    assert len(wrong & found) > 24


def test_a_program_is_told_the_same(scan, tmp_path):
    end = scan("--format", "json")
    assert end.err == ""
    told = json.loads(end.out)
    metrics = json.loads((tmp_path / "scan" / "metrics.json").read_text())
    assert {**told, **metrics} == told
    assert sum(told["class_counts"].values()) == told["words"] == 360
    listed = pd.read_csv(told["label_issues"])
    assert told["spans"] == len(listed)
    assert [span["row"] for span in told["most_suspicious"]] == listed["row"].tolist()[:10]


def test_lists_in_json_are_the_same(scan, sentences, tmp_path):
    assert scan().status == 0
    first = pd.read_csv(tmp_path / "scan" / "label_issues.csv").drop(columns="line")
    rows = [{"w": words, "t": tags, "doc": i} for i, (words, tags) in enumerate(zip(*sentences, strict=True))]
    (tmp_path / "ner.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = ("--text-column", "w", "--label-column", "t", "--group-column", "doc")
    end = scan("--overwrite", *columns, data=tmp_path / "ner.jsonl")
    assert end.status == 0, end.err
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "scan" / "label_issues.csv"), first)


def test_a_scan_of_texts_is_replaced_whole(scan, place, tmp_path):
    assert scan(data=place.train).status == 0
    assert (tmp_path / "scan" / "report.html").exists()
    assert scan("--overwrite").status == 0
    assert sorted(path.name for path in (tmp_path / "scan").iterdir()) == ["label_issues.csv", "metrics.json"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--opinion-column", "x"), "has labels of words, and --opinion-column is for those of whole texts"),
        (("--long-texts", "tail"), "--long-texts tail"),
        (("--label-column", "pos"), "has no column 'pos'"),
        (("--group-column", "document"), "has no column 'document'"),
    ],
)
def test_what_is_for_texts_is_refused(scan, tmp_path, flags, said):
    end = scan(*flags)
    assert end.status == 2
    assert said in end.err
    assert not (tmp_path / "scan").exists()


def test_a_bad_line_is_refused(scan, tmp_path):
    (tmp_path / "bad.conll").write_text("Ada PER\nslept\n")
    end = scan(data=tmp_path / "bad.conll")
    assert end.status == 2
    assert "line 2: holds a word without a tag; write both" in end.err
