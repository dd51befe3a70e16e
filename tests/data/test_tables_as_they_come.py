"""read_table on what spreadsheets and other tools write, and what its sentences say where it cannot."""

import bz2
import gzip
import json
import sys

import datasets
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clear_peft.data import load_examples, read_table, write_table
from clear_peft.errors import ClearWarning, InputError

TABLE = {"text": ["a, b; c", "dé"], "label": ["x", "y"]}


def as_lists(frame):
    return {name: frame[name].tolist() for name in frame.columns}


def read(tmp_path, content, name="table.csv", **options):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return as_lists(read_table(tmp_path / name, **options))


def refused(tmp_path, content, name="table.csv", **options):
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def classes(names, ids):
    """A Parquet table with a ClassLabel, as the hub keeps them."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    return pa.table({"text": [f"t{i}" for i in range(len(ids))], "label": pa.array(ids, pa.int64())}).cast(
        features.arrow_schema
    )


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("text;label\na, b; c;x\n".replace("a, b; c", '"a, b; c"') + "dé;y\n", "semicolons.csv"),
        ("text\tlabel\na, b; c\tx\ndé\ty\n", "tabs.csv"),
        ("text|label\na, b; c|x\ndé|y\n", "bars.csv"),
        ('text,label\n"a, b; c",x\ndé,y\n', "commas.tsv"),
        ('sep=;\r\ntext;label\r\n"a, b; c";x\r\ndé;y\r\n', "line.csv"),
        ('sep=,\ntext,label\n"a, b; c",x\ndé,y\n', "line.csv"),
        ('text,label,,,\n"a, b; c",x,,,\ndé,y,,,\n', "columns.csv"),
        ('text,label\n"a, b; c",x,\ndé,y,,\n', "cells.csv"),
        ('text,label\r"a, b; c",x\rdé,y\r', "mac.csv"),
        ("text\tlabel\r\na, b; c\tx\r\ndé\ty\r\n".encode("utf-16"), "excel.txt.tsv"),
        ('text,label\n"a, b; c",x\ndé,y\n'.encode("utf-8-sig"), "mark.csv"),
    ],
)
def test_one_table_as_spreadsheets_write_it(tmp_path, content, name):
    assert read(tmp_path, content, name) == TABLE


def test_signs_in_quotes_and_in_cells_separate_nothing(tmp_path):
    assert read(tmp_path, '"text; all",label\na;b,x\n') == {"text; all": ["a;b"], "label": ["x"]}
    assert read(tmp_path, '"text;label"\n"a;b"\n') == {"text;label": ["a;b"]}
    frame = pd.DataFrame({"sep=;": ["a"], "b|c": ["d"]})
    write_table(frame, tmp_path / "t.csv")
    assert as_lists(read_table(tmp_path / "t.csv")) == as_lists(frame)


def test_rows_that_do_not_fit_are_refused_with_the_sign_and_the_line(tmp_path):
    assert "line 3: the row has 3 cells but the header has 2" in refused(tmp_path, "text;label\na;b\nc;d;e\n")
    assert "line 3: the row has 3 cells" in refused(tmp_path, "sep=;\ntext;label\na;b;c\n")
    assert "line 2: the row has 1 cells" in refused(tmp_path, "text,label\na\n")
    assert "more than one column named ''" in refused(tmp_path, "text,,\na,b,c\n")


def test_quotes_in_tsv_are_characters_where_nothing_is_quoted(tmp_path):
    unquoted = 'text\tlabel\n"Hi" she said\tx\n5" wide\ty\n"open\tx\n'
    assert read(tmp_path, unquoted, "t.tsv")["text"] == ['"Hi" she said', '5" wide', '"open']
    assert read(tmp_path, 'text\tlabel\n"a\tb"\tx\n', "t.tsv")["text"] == ["a\tb"]
    assert "line 2: the quotes" in refused(tmp_path, 'text\tlabel\n"a\tb\nc\td\te\n', "t.tsv")


def test_a_carriage_return_alone_inside_a_cell(tmp_path):
    assert read(tmp_path, "text,label\na\rb,x\nc,y\n")["text"] == ["a b", "c"]
    assert read(tmp_path, 'text,label\n"a\rb",x\nc,y\n')["text"] == ["a\rb", "c"]


def test_other_encodings_are_named_and_taken(tmp_path):
    western = "text,label\nplain,x\n“quite plain” – café,y\n" + "more,x\n" * 9
    said = refused(tmp_path, western.encode("cp1252"))
    assert "line 3: byte 0x93 is not valid UTF-8; it looks like Windows-1252" in said
    assert "– café" in said
    assert "--encoding cp1252" in said
    assert read(tmp_path, western.encode("cp1252"), encoding="cp1252")["text"][1] == "“quite plain” – café"
    cyrillic = "text,label\nпосылка сломана,x\n"
    assert "Windows-1252" not in refused(tmp_path, cyrillic.encode("cp1251"))
    assert read(tmp_path, cyrillic.encode("cp1251"), encoding="cp1251")["text"] == ["посылка сломана"]
    assert "0xef is not valid ASCII; give another" in refused(
        tmp_path, cyrillic.encode("cp1251"), encoding="ascii"
    )
    for name in ("latin9000", "hex", "a\0b"):
        assert f"no encoding {name!r}" in refused(tmp_path, "a..\xfc\nb\n", encoding=name)


def test_json_arrays(tmp_path):
    rows = [{"text": "a", "label": 1}, {"text": "b"}]
    expected = {"text": ["a", "b"], "label": [1, None]}
    for name, text in (("t.json", json.dumps(rows, indent=1)), ("t.jsonl", f" {json.dumps(rows)}")):
        assert read(tmp_path, text, name) == expected
    assert read(tmp_path, '{"text": "a"}\n{"text": "b"}\n', "t.json") == {"text": ["a", "b"]}
    assert "row 1: holds no JSON object" in refused(tmp_path, '[{"text": "a"}, 3]', "t.json")
    assert "line 3: Expecting value" in refused(tmp_path, '[\n{"text": "a"},\n]\n', "t.json")
    assert "holds no rows" in refused(tmp_path, "[]", "t.json")


def test_packed_files(tmp_path):
    content = b'text,label\n"a, b; c",x\nd\xc3\xa9,y\n'
    assert read(tmp_path, gzip.compress(content), "t.csv.gz") == TABLE
    assert read(tmp_path, bz2.compress(content), "t.CSV.BZ2") == TABLE
    assert read(tmp_path, pa.compress(content, "zstd", asbytes=True), "t.csv.zst") == TABLE
    jsonl = "".join(json.dumps({"text": t, "label": x}) + "\n" for t, x in zip(*TABLE.values(), strict=True))
    assert read(tmp_path, gzip.compress(jsonl.encode()), "t.jsonl.gz") == TABLE
    assert "cannot be unpacked as gzip" in refused(tmp_path, gzip.compress(content)[:20], "t.csv.gz")
    assert "unknown format" in refused(tmp_path, gzip.compress(content), "t.tar.gz")


def test_excel(tmp_path, monkeypatch):
    book = openpyxl.Workbook()
    for row in (["text", "label", None], ["a, b; c", 1], [None, None], ["=1+1", True], ["007", 2.5]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    expected = {"text": ["a, b; c", None, "007"], "label": [1, True, 2.5], "": [None] * 3}
    assert as_lists(read_table(tmp_path / "t.xlsx")) == expected
    book.create_sheet("more").append(["x"])
    book.save(tmp_path / "t.xlsx")
    with pytest.warns(ClearWarning, match="2 sheets; the first, 'Sheet', is read"):
        read_table(tmp_path / "t.xlsx")
    assert "not a sound Excel workbook" in refused(tmp_path, "text,label\n", "t.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "pip install 'openpyxl>=3.1'" in refused(tmp_path, b"PK", "t.xlsx")


def test_parquet_of_the_hub_has_its_class_names(tmp_path):
    pq.write_table(classes(["negative", "neutral", "positive"], [2, 0, -1, 1]), tmp_path / "t.parquet")
    frame = read_table(tmp_path / "t.parquet")
    assert frame["label"].isna().tolist() == [False, False, True, False]
    assert frame["label"].dropna().tolist() == ["positive", "negative", "neutral"]
    write_table(frame, tmp_path / "copy.parquet")
    assert pq.read_table(tmp_path / "copy.parquet")["label"].to_pylist() == [
        "positive",
        "negative",
        None,
        "neutral",
    ]
    pq.write_table(classes(["a"], [0, 7]), tmp_path / "bad.parquet")
    with pytest.raises(InputError, match="values that pandas cannot"):
        read_table(tmp_path / "bad.parquet")


def test_folders_of_parquet_files(tmp_path):
    for part, ids in enumerate(([0, 1], [1, 1])):
        pq.write_table(classes(["n", "p"], ids), tmp_path / f"train-0000{part}-of-00002.parquet")
    assert read_table(tmp_path)["label"].tolist() == ["n", "p", "p", "p"]
    (tmp_path / "test").mkdir()
    pq.write_table(classes(["n", "p"], [0, 0]), tmp_path / "test" / "0.parquet")
    with pytest.raises(InputError, match=r"holds 'test', 'train'; say which split, as in '.*@test'"):
        read_table(tmp_path)
    assert read_table(f"{tmp_path}@test")["label"].tolist() == ["n", "n"]
    assert len(read_table(f"{tmp_path}@train")) == 4
    pq.write_table(pa.table({"other": ["x"]}), tmp_path / "test" / "1.parquet")
    with pytest.raises(InputError, match="have other columns"):
        read_table(f"{tmp_path}@test")
    (tmp_path / "test" / "1.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"1\.parquet' is not a sound Parquet file"):
        read_table(f"{tmp_path}@test")


def test_folders_of_save_to_disk(tmp_path):
    data = datasets.Dataset(classes(["n", "p"], [0, 1, -1]))
    data.save_to_disk(tmp_path / "one")
    assert read_table(tmp_path / "one")["label"].tolist()[:2] == ["n", "p"]
    datasets.DatasetDict({"train": data, "dev": data.select([1])}).save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match="holds 'train', 'dev'; say which split"):
        read_table(tmp_path / "two")
    assert read_table(f"{tmp_path / 'two'}@dev")["label"].tolist() == ["p"]
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(InputError, match="not a sound folder of save_to_disk"):
        read_table(tmp_path / "one")


def test_tables_in_memory():
    frame = pd.DataFrame({"text": list("abcd"), "label": [1, 0, 1, 0]}, index=list("wxyz"))
    for source in (frame, pa.table(dict(frame)), pa.table(classes(["n", "p"], [1, 0, 1, 0]))):
        assert load_examples(source).examples.labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(InputError, match="the DataFrame' has no column 'body'"):
        load_examples(frame, text_column="body")
    with pytest.raises(InputError, match="the Table' has no rows"):
        read_table(pa.table({"text": pa.array([], pa.string())}))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {0: list("ab"), 1: list("xy")},
            "no column 'text'; it has 0, 1: give every column a name that is text",
        ),
        (
            {"text": list("ab"), 1: list("xy")},
            "no column 'label'; it has 'text', 1: give every column a name",
        ),
        ({0: list("ab"), "Text": list("ab")}, r"it has 0, 'Text': did you mean 'Text'\?"),
        ({"text": list("ab"), 0: [0, 1], 1: [1, 0]}, r"columns of 0 and 1 \(0, 1\) are classes"),
    ],
)
def test_columns_that_are_numbered(columns, expected):
    with pytest.raises(InputError, match=expected):
        load_examples(pd.DataFrame(columns))
