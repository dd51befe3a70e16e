"""Shards of Parquet files, and a judgement that is fitted to a sample: without Ray."""

import numpy as np
import pandas as pd
import pytest

from clear_peft.data import LabelNames
from clear_peft.errors import InputError
from clear_peft.label_quality import fit_probe
from clear_peft.pipeline import big_table
from clear_peft.pipeline.big_table import (
    Columns,
    class_names,
    counted,
    fit_sample,
    most_suspicious,
    sampled_rows,
    shards_of,
    taken,
)

COLUMNS = Columns(("text",), "label")
NAMES = LabelNames(("a", "b", "c"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """100 rows in two files of uneven row groups, in shards of 16."""
    monkeypatch.setattr(big_table, "SHARD_ROWS", 16)
    monkeypatch.setattr(big_table, "_READ_ROWS", 5)
    table = pd.DataFrame({"text": [f"text {i}" for i in range(100)], "label": list("abcab") * 20})
    table[:37].to_parquet(tmp_path / "one.parquet", row_group_size=11)
    (tmp_path / "below").mkdir()
    table[37:].to_parquet(tmp_path / "below" / "two.parquet", row_group_size=50)
    return tmp_path


def test_shards_hold_each_row_once(folder):
    shards = shards_of(str(folder), ["text", "label"])
    assert [shard.first for shard in shards] == np.cumsum([0, *map(len, shards)])[:-1].tolist()
    assert [shard.number for shard in shards] == list(range(len(shards)))
    texts = [text for shard in shards for text in COLUMNS.of(shard)[0]]
    assert texts == [f"text {i}" for i in [*range(37, 100), *range(37)]]
    assert {shard.file for shard in shards} == {"one.parquet", "below/two.parquet"}
    counts = pd.Series(dict.fromkeys("abc", 0))
    for shard in shards:
        counts = counts.add(pd.Series(counted(COLUMNS, shard)), fill_value=0)
    assert counts.to_dict() == {"a": 40, "b": 40, "c": 20}


def test_rows_of_a_sample_are_taken_from_their_shards(folder):
    shards = shards_of(str(folder), ["text"])
    rows = np.array([0, 5, 63, 64, 99])
    found = [taken(COLUMNS, rows, shard)[0] for shard in shards]
    assert [text for part in found for text in part] == ["text 37", "text 42", "text 0", "text 1", "text 36"]


def test_what_is_wrong_with_a_file_is_said_in_a_sentence(folder):
    path = folder / "one.parquet"
    with pytest.raises(InputError, match=r"two.parquet' has no column 'tag'"):
        shards_of(str(folder), ["text", "tag"])
    table = pd.read_parquet(path)
    table.loc[[20, 30], "label"] = None
    table.loc[33, "text"] = " "
    table.to_parquet(path)
    shards = [shard for shard in shards_of(str(folder), ["text"]) if shard.file == "one.parquet"]
    counted(COLUMNS, shards[0])
    with pytest.raises(InputError, match=r"column 'label': the label is missing in 2 rows \(20, 30;"):
        counted(COLUMNS, shards[1])
    with pytest.raises(InputError, match=r"column 'text': the text is empty in 1 row \(33;"):
        counted(COLUMNS, shards[2])
    table["text"] = [*table["text"][:35], "a\0b", "c"]
    table["label"] = "a"
    table.to_parquet(path)
    with pytest.raises(InputError, match=r"one.parquet', column 'text': .* NUL character in 1 row \(35;"):
        counted(COLUMNS, shards[2])
    table["label"] = [float(i) for i in range(36)] + [0.5]
    table["text"] = "text"
    table.to_parquet(path)
    with pytest.raises(InputError, match=r"column 'label': the label is 0.5, .* in 1 row \(36;"):
        counted(COLUMNS, shards[2])
    table["label"] = [["a"]] * len(table)
    table.to_parquet(path)
    with pytest.raises(InputError, match="column 'label' holds lists"):
        shards_of(str(folder), ["text", "label"])
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="is not a sound Parquet file"):
        shards_of(str(folder), ["text"])
    with pytest.raises(InputError, match="is no folder of Parquet files"):
        shards_of(str(folder / "none.csv"), ["text"])


def test_classes_are_those_that_were_counted():
    assert class_names({"10": 3, "2": 5, "2.0": 1}, "table", False).names == ("2", "10")
    assert class_names({"Yes": 3, "yes": 5, "no": 1}, "table", True).names == ("no", "yes")
    with pytest.raises(InputError, match="every row has the label 'a'"):
        class_names({"a": 3}, "table", False)
    with pytest.raises(InputError, match="more than 20000 different labels"):
        class_names({str(i): 1 for i in range(20_001)}, "table", False)


def test_a_sample_is_the_same_at_every_call():
    rows = sampled_rows(1000, 50)
    assert len(set(rows.tolist())) == 50
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, sampled_rows(1000, 50))
    np.testing.assert_array_equal(sampled_rows(7, 50), np.arange(7))


def world(size, seed=0, wrong=0.2):
    """Features, right and given labels of three classes."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 3, size)
    given = np.where(rng.random(size) < wrong, (right + rng.integers(1, 3, size)) % 3, right)
    features = 1.5 * np.eye(3)[right][:, None, :] + rng.normal(size=(size, 2, 3))
    return features.astype(np.float16), right, given


def sample_of(rows, texts, given, features):
    return fit_sample(rows, [texts[i] for i in rows], given[rows], features[rows], NAMES, None)


def test_a_sample_of_all_rows_is_a_scan():
    features, _, given = world(900)
    texts = [f"{i:x} {i * 7919:o}" for i in range(900)]
    _, quality = fit_probe(features, given, 3, groups=np.arange(900))
    sample = sample_of(np.arange(900), texts, given, features)
    found = sample.judge(np.arange(900), texts, given, features)
    np.testing.assert_array_equal(found["clean_probability"], quality.clean_probability)
    np.testing.assert_array_equal(found["label_quality"], quality.self_confidence)
    np.testing.assert_array_equal(found["predicted_label"].cat.codes, quality.predicted)
    assert sample.sampling_error(900) == 0
    assert sample.interval(quality.noise_rate, 900) == quality.noise_rate_interval


def test_rows_beyond_the_sample_are_judged_by_it():
    size = 6000
    features, right, given = world(size)
    texts = [f"{i:x} {i * 7919:o}" for i in range(size)]
    rows = sampled_rows(size, 2000)
    sample = sample_of(rows, texts, given, features)
    shards = [slice(0, 2500), slice(2500, size)]
    parts = [sample.judge(np.arange(size)[some], texts[some], given[some], features[some]) for some in shards]
    p = pd.concat(parts)["clean_probability"].to_numpy()
    np.testing.assert_array_equal(p[rows], sample.quality.clean_probability)
    others = np.setdiff1d(np.arange(size), rows)
    expected = sample.probe.judge(features[others], given[others]).clean_probability
    np.testing.assert_allclose(p[others], expected, atol=1e-6)
    whole = fit_probe(features, given, 3)[1]
    assert 1 - p.mean() == pytest.approx(np.mean(right != given), abs=0.03)
    assert 1 - p.mean() == pytest.approx(whole.noise_rate, abs=0.02)
    assert np.corrcoef(p, whole.clean_probability)[0, 1] > 0.98
    low, high = sample.interval(1 - p.mean(), size)
    inner = sample.quality.noise_rate_interval
    more = 1.96 * np.sqrt(2 / 3 / 2000) * sample.quality.clean_probability.std()
    assert (low, high) == pytest.approx((inner[0] - more, inner[1] + more))


def test_a_copy_of_a_sampled_text_is_not_judged_by_it():
    features, right, given = world(400, wrong=0.1)
    texts = [f"{i:x} {i * 7919:o}" for i in range(400)]
    place = int(np.flatnonzero(right != given)[0])
    sample = sample_of(np.arange(400), texts, given, features)
    copy = sample.judge(np.array([400]), [texts[place]], given[[place]], np.asarray(features[[place]])).iloc[
        0
    ]
    assert copy["clean_probability"] == pytest.approx(sample.quality.clean_probability[place], rel=1e-4)
    seen = sample.probe.judge(features[[place]], given[[place]]).clean_probability[0]
    assert seen > sample.quality.clean_probability[place]


def test_a_class_that_the_sample_lacks_has_the_rate_of_the_table():
    features, _, given = world(600)
    texts = [f"{i:x} {i * 7919:o}" for i in range(600)]
    names = LabelNames(("a", "b", "c", "d"))
    with pytest.warns(UserWarning, match="1 of 4 classes have fewer than 5 rows in the sample"):
        sample = fit_sample(np.arange(600), texts, given, features, names, None)
    found = sample.judge(np.array([600]), ["new"], np.array([3]), features[:1])
    assert found["clean_probability"][0] == pytest.approx(1 - sample.probe.rate, abs=1e-6)


def test_the_most_suspicious_rows_of_all_shards_come_first(folder):
    shards = shards_of(str(folder), ["text"])
    p = np.random.default_rng(0).permutation(100) / 100

    def read(shard):
        part = p[shard.first : shard.first + len(shard)]
        return pd.DataFrame({"clean_probability": part, "label_quality": part, "is_label_issue": part < 0.5})

    top, rate, listed = most_suspicious(shards, read, 20)
    np.testing.assert_array_equal(top["place"], np.argsort(p)[:20])
    assert rate == pytest.approx(1 - p.mean())
    assert listed == 50
