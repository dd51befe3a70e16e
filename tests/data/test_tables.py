"""read_table and write_table: every format, round trips, hostile bytes, one sentence per mistake."""

import contextlib
import csv
import math
import os
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clear_peft.data import escape_formulas, read_table, unescape_formulas, write_table
from clear_peft.errors import InputError

ENDINGS = [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"]
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
nasty_text = st.one_of(
    any_text,
    st.text("\"',\t\r\n =+-@\ufeff\u2028\u200f1", max_size=6),
    st.sampled_from(["", "NA", "null", "007", "1.0", "True", '"', "\r", "\n", "\r\n", "\ufeffx", "-1.5"]),
)


@st.composite
def text_tables(draw):
    columns = draw(st.lists(nasty_text, min_size=1, max_size=3, unique=True))
    n = draw(st.integers(1, 4))
    cells = st.lists(nasty_text, min_size=n, max_size=n)
    return pd.DataFrame({name: pd.Series(draw(cells), dtype="str") for name in columns})


def as_lists(frame):
    return {name: frame[name].tolist() for name in frame.columns}


def refused(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as caught:
        read_table(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert path.name in sentence
    return sentence


@pytest.mark.parametrize("ending", ENDINGS)
@quick
@given(frame=text_tables())
def test_any_text_table_comes_back_as_it_was(tmp_path, ending, frame):
    path = tmp_path / f"table{ending}"
    write_table(frame, path)
    back = read_table(path)
    assert list(back.columns) == list(frame.columns)
    assert as_lists(back) == as_lists(frame)
    assert back.index.tolist() == list(range(len(frame)))


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@quick
@given(frame=text_tables())
def test_escaped_tables_are_inert_and_come_back(tmp_path, ending, frame):
    path = tmp_path / f"table{ending}"
    escaped = escape_formulas(frame)
    for cell in [*escaped.columns, *escaped.to_numpy().ravel()]:
        if cell and cell[0] in "=+-@\t\r\n＝＋－＠":
            float(cell)  # only a plain number may begin with a sign
    write_table(escaped, path)
    assert as_lists(unescape_formulas(read_table(path))) == as_lists(frame)


def test_escaping_leaves_numbers_and_the_input_alone():
    frame = pd.DataFrame({"text": ["=1+1", "-1.5", "- 1", "@x", "fine"], "n": [-1, 2, 3, 4, 5]})
    frame["kind"] = pd.Categorical(["=a", "b", "b", "b", "b"])
    before = frame.copy()
    escaped = escape_formulas(frame)
    assert escaped["text"].tolist() == ["'=1+1", "-1.5", "'- 1", "'@x", "fine"]
    assert escaped["kind"].tolist() == ["'=a", "b", "b", "b", "b"]
    assert escaped["n"].dtype == frame["n"].dtype
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("ending", ENDINGS)
@quick
@given(data=st.one_of(st.binary(max_size=200), nasty_text.map(str.encode)))
def test_hostile_bytes_give_a_table_or_a_sentence(tmp_path, ending, data):
    path = tmp_path / f"hostile{ending}"
    path.write_bytes(data)
    try:
        frame = read_table(path)
    except InputError:
        return
    assert len(frame)
    assert frame.columns.is_unique


@quick
@given(
    data=st.lists(
        st.sampled_from(
            [b'"', b",", b"\n", b"\r", b"{", b"}", b":", b"1", b'{"a":', b"NaN", b"[", b"\\ud800"]
        ),
        max_size=20,
    )
)
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_hostile_syntax_gives_a_table_or_a_sentence(tmp_path, ending, data):
    path = tmp_path / f"hostile{ending}"
    path.write_bytes(b"".join(data))
    with contextlib.suppress(InputError):
        assert len(read_table(path))


@quick
@given(where=st.floats(0, 1), byte=st.integers(0, 255))
def test_damaged_parquet_gives_a_table_or_a_sentence(tmp_path, where, byte):
    path = tmp_path / "damaged.parquet"
    write_table(pd.DataFrame({"text": ["a", "bc", "ä"], "label": [1, 2, 3]}), path)
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] = byte
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        read_table(path)


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_cells_stay_as_written(tmp_path, ending):
    mark = "\t" if ending == ".tsv" else ","
    path = tmp_path / f"table{ending}"
    rows = [["text", "label"], ["NA", "007"], ["null", "1.0"], ["", "True"], [" x ", "nan"]]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(mark.join(row) for row in rows).encode())
    assert as_lists(read_table(path)) == {
        "text": ["NA", "null", "", " x "],
        "label": ["007", "1.0", "True", "nan"],
    }


def test_a_megabyte_in_one_cell_and_the_csv_limit_is_restored(tmp_path):
    before = csv.field_size_limit()
    path = tmp_path / "long.csv"
    write_table(pd.DataFrame({"text": ["x\n" * 500_000], "label": ["a"]}), path)
    assert len(read_table(path)["text"][0]) == 1_000_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_file_is_refused(tmp_path, ending):
    assert "is empty" in refused(tmp_path / f"table{ending}", "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,label\n", "no rows"),
        ("\n\n", "only blank lines"),
        ("text,text\na,b\n", "more than one column named 'text'"),
        ("text,label\na,b\n\nc\n", "line 4: the row has 1 cells but the header has 2"),
        ('text,label\n"a\nb",x\nc,d,e\n', "line 4: the row has 3 cells"),
        ('text,label\na,b\n"c,d\ne,f\n', "line 3: the quotes"),
        ('text,label\n"a"b,c\n', "line 2: the quotes"),
        (b"text,label\na,b\n\xff,c\n", "line 3: byte 0xff is not valid UTF-8"),
        (b"text,label\na\0,b\n", "line 2: holds a NUL"),
    ],
)
def test_what_is_wrong_in_a_csv_is_named_with_its_line(tmp_path, content, expected):
    assert expected in refused(tmp_path / "table.csv", content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": 1}\n{"a": }\n', "line 2: not valid JSON"),
        ('{"a": 1}\n\n[1]\n', "line 3: holds no JSON object"),
        ('{"a": 1, "a": 2}\n', "line 1: the key 'a' stands twice"),
        ('{"a": NaN}\n', "line 1: NaN is not"),
        ('{"a": -Infinity}\n', "line 1: -Infinity is not"),
        ('{"a": 1e999}\n', "line 1: 1e999 is not"),
        ('{"a": "\\ud83d"}\n', "line 1: holds half a surrogate pair"),
        ('{"a": ' + "9" * 5000 + "}\n", "line 1: not valid JSON"),
        ('{"a": ' + "[" * 100_000 + "\n", "line 1: the JSON is nested too deeply"),
        ("{}\n{}\n", "only empty objects"),
        ("\n \n", "holds no rows"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2: byte 0xff"),
    ],
)
def test_what_is_wrong_in_a_jsonl_is_named_with_its_line(tmp_path, content, expected):
    assert expected in refused(tmp_path / "table.jsonl", content)


def test_jsonl_keeps_values_and_fills_missing_keys(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text(
        '{"text": "a\\u2028\\ud83d\\ude00", "label": 1}\n{"text": "b\\u0000", "more": [1, {"k": true}]}'
    )
    frame = read_table(path)
    expected = {"text": ["a\u2028😀", "b\0"], "label": [1, None], "more": [None, [1, {"k": True}]]}
    assert as_lists(frame) == expected
    write_table(frame, path)
    assert as_lists(read_table(path)) == expected


def test_parquet_keeps_whole_numbers_beside_missing_ones(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1, None]}), path)
    assert read_table(path)["label"].tolist() == [1, None]


def test_parquet_columns_keep_their_types(tmp_path):
    table = pa.table(
        {
            "text": ["a", "b", "c"],
            "narrow": pa.array([1, None, 3], pa.int32()),
            "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int16())),
            "list": pa.array([[1, None], None, []], pa.list_(pa.int8())),
            "struct": pa.array([{"a": 1}, None, {"a": None}], pa.struct([("a", pa.int8())])),
            "price": pa.array([Decimal("1.50"), None, Decimal("2.00")], pa.decimal128(10, 2)),
            "category": pa.array(["x", None, "y"]).dictionary_encode(),
            "nothing": pa.nulls(3),
            "undefined": [1.0, math.nan, math.inf],
        }
    ).replace_schema_metadata({"of": "a data set"})
    source, copy = tmp_path / "source.parquet", tmp_path / "copy.parquet"
    pq.write_table(table, source)
    frame = read_table(source)
    frame["text"] = frame["text"].iloc[[2, 1, 0]].set_axis(frame.index)
    write_table(frame.drop(index=0).reset_index(drop=True), copy)
    copied = pq.read_table(copy)
    assert copied.schema.equals(table.schema)
    assert copied.schema.metadata == table.schema.metadata
    assert repr(copied.drop(["text"]).to_pylist()) == repr(table.slice(1).drop(["text"]).to_pylist())
    assert copied["text"].to_pylist() == ["b", "a"]

    frame[["text", "narrow"]].to_parquet(copy)  # by pandas, which writes attributes too
    frame["narrow"] = ["other", "values", "by now"]
    write_table(frame.assign(another=1), copy)
    assert pq.read_schema(copy).metadata is None  # that of all columns, and no others
    assert pq.read_table(copy)["narrow"].to_pylist() == ["other", "values", "by now"]


def test_parquet_mistakes(tmp_path):
    path = tmp_path / "table.parquet"
    assert "not a sound Parquet" in refused(path, b"PAR1")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert "no rows" in refused(path, path.read_bytes())
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, ["x", "x"]), path)
    assert "more than one column" in refused(path, path.read_bytes())


def test_whole_numbers_beside_missing_ones_are_written_whole(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b"], "twin": pd.Series([7, None], dtype="Int64")})
    write_table(frame, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "text,twin\na,7\nb,\n"
    write_table(frame, tmp_path / "t.jsonl")
    assert (tmp_path / "t.jsonl").read_text() == '{"text": "a", "twin": 7}\n{"text": "b", "twin": null}\n'


def test_numbers_are_written_short_and_missing_values_empty(tmp_path):
    frame = pd.DataFrame(
        {
            "text": ["a", None],
            "p": np.array([0.9, np.nan], dtype=np.float32),
            "issue": [True, False],
            "nested": [[np.float32(0.1)], {"k": None}],
            "day": pd.Series(["2020-01-02", None]).astype("datetime64[s]"),
        }
    )
    write_table(frame, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == (
        'text,p,issue,nested,day\na,0.9,True,[0.1],2020-01-02T00:00:00\n,,False,"{""k"": null}",\n'
    )
    write_table(frame, tmp_path / "t.jsonl")
    assert as_lists(read_table(tmp_path / "t.jsonl")) == {
        "text": ["a", None],
        "p": [0.9, None],
        "issue": [True, False],
        "nested": [[0.1], {"k": None}],
        "day": ["2020-01-02T00:00:00", None],
    }


def test_halves_of_surrogate_pairs(tmp_path):
    frame = pd.DataFrame({"text": pd.Series(["a\ud83d"], dtype=object)})
    for ending in (".csv", ".parquet"):
        with pytest.raises(InputError, match="write JSONL instead"):
            write_table(frame, tmp_path / f"t{ending}")
    write_table(frame, tmp_path / "t.jsonl")
    assert (tmp_path / "t.jsonl").read_text() == '{"text": "a\\ud83d"}\n'


@pytest.mark.parametrize(
    ("frame", "name", "expected"),
    [
        (pd.DataFrame({"a": ["x"]}), "t.xlsx", "ending names no known format"),
        (pd.DataFrame({"a": ["x"]}), "t", "ending names no known format"),
        (pd.DataFrame([["x", "y"]], columns=["a", "a"]), "t.csv", "more than one column"),
        (pd.DataFrame({"a": ["x\0"]}), "t.csv", "NUL"),
        (pd.DataFrame({"a": pd.Series(["x", 1], dtype=object)}), "t.parquet", "write JSONL instead"),
        (pd.DataFrame({"a": ["x"]}), "missing/t.csv", "no such file or directory"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, frame, name, expected):
    with pytest.raises(InputError, match=expected):
        write_table(frame, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["gone.csv", "gone.PARQUET", "gone.txt", "./gone", "/gone", "a" * 5000 + ".csv"]
)
def test_a_missing_file_is_a_missing_file(name):
    with pytest.raises(InputError, match="Cannot read"):
        read_table(name)


def test_a_folder_or_unknown_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path)
    (tmp_path / "t.xls").write_bytes(b"PK")
    with pytest.raises(InputError, match="unknown format"):
        read_table(tmp_path / "t.xls")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_one_may_not_read_is_refused(tmp_path):
    path = tmp_path / "secret.csv"
    path.write_text("text\na\n")
    path.chmod(0)
    with pytest.raises(InputError, match="permission denied"):
        read_table(path)
