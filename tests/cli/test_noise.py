"""``noise``: the same table with noisy labels, in any format; refusals that change nothing."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from clear_peft.data import read_table, write_table
from clear_peft.noise import KINDS, symmetric
from tiny_text import keyword_table

NAMES = ["farming", "sailing", "weaving"]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "in.csv"
    keyword_table(300, seed=0).drop(columns="clean_label").assign(note="007").to_csv(path, index=False)
    return path


@pytest.fixture
def matrix(tmp_path):
    path = tmp_path / "matrix.csv"
    path.write_text("0.5,0.5,0\n0,1,0\n0,0,1\n")
    return path


def _options(kind, matrix, place):
    rate = [] if kind == "matrix" else ["--rate", 0.4]
    more = {
        "map": ["--map", "farming=sailing", "--map", "sailing=farming"],
        "matrix": ["--matrix", matrix],
        "instance": ["--model", place.model],
    }
    return ["--kind", kind, *rate, *more.get(kind, [])]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_it_did(cli, data, matrix, place, tmp_path, kind):
    output = tmp_path / "out.csv"
    words = ["noise", "--data", data, "--output", output, *_options(kind, matrix, place)]
    end = cli(*words, "--format", "json")
    assert (end.status, end.err) == (0, "")
    said = json.loads(end.out)
    before, after = read_table(data), read_table(output)
    assert list(after.columns) == ["text", "label", "note", "clean_label"]
    pd.testing.assert_frame_equal(after[["text", "note"]], before[["text", "note"]])
    assert after["clean_label"].tolist() == before["label"].tolist()
    wrong = after["label"] != after["clean_label"]
    assert said["output"] == str(output)
    assert (said["rows"], said["changed"]) == (300, wrong.sum())
    assert 0 < said["rate"] == wrong.mean()
    assert said["labels"] == NAMES
    realised = pd.crosstab(after["clean_label"], after["label"], normalize="index")
    realised = realised.reindex(index=NAMES, columns=NAMES, fill_value=0)
    np.testing.assert_allclose(said["matrix"], realised)

    first = output.read_bytes()
    assert cli(*words, "--overwrite", "--format", "quiet").out == ""
    assert output.read_bytes() == first
    if kind != "matrix":
        cli(*words, "--overwrite", "--seed", 1)
        assert output.read_bytes() != first


def test_the_labels_are_those_of_the_noise_model(cli, data, tmp_path):
    cli(
        "noise",
        "--data",
        data,
        "--kind",
        "symmetric",
        "--rate",
        0.6,
        "--seed",
        9,
        "--output",
        tmp_path / "o.csv",
    )
    clean = [NAMES.index(label) for label in read_table(data)["label"]]
    expected = [NAMES[i] for i in symmetric(clean, 3, 0.6, seed=9).labels]
    assert read_table(tmp_path / "o.csv")["label"].tolist() == expected


def test_to_a_person(cli, data, tmp_path):
    end = cli("noise", "--data", data, "--kind", "pair", "--rate", 1, "--output", tmp_path / "o.csv")
    assert end.out == f"300 of 300 labels changed (100.0%): {tmp_path / 'o.csv'}\n"


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("values", [NAMES, [7, -1, 30], [True, False, True]])
def test_labels_stay_what_they_are_in_every_format(cli, tmp_path, ending, values):
    data, output = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    frame = keyword_table(60, seed=0)
    frame = frame.assign(team=[values[NAMES.index(name)] for name in frame["label"]])[["team", "text"]]
    write_table(frame, data)
    words = ("--kind", "symmetric", "--rate", 0.5, "--label-column", "team")
    assert cli("noise", "--data", data, "--output", output, *words).status == 0
    before, after = read_table(data), read_table(output)
    assert list(after.columns) == ["team", "text", "clean_label"]
    assert after.dtypes["team"] == after.dtypes["clean_label"] == before.dtypes["team"]
    assert after["clean_label"].tolist() == before["team"].tolist()
    assert {type(value) for value in after["team"]} == {type(value) for value in before["team"]}
    assert set(after["team"]) == set(before["team"])
    assert (after["team"] != after["clean_label"]).any()


def test_a_messy_table_is_read_as_by_the_other_commands(cli, tmp_path):
    data, output = tmp_path / "in.csv", tmp_path / "out.csv"
    labels = ["Grün", "grün ", "rot", "", "NA", "rot"] * 10
    frame = pd.DataFrame({"title": "Tür", "body": "offen", "label": labels})
    data.write_bytes(frame.to_csv(index=False).encode("cp1252"))
    columns = ("--text-column", "title", "--text-column", "body")
    reading = ("--encoding", "cp1252", "--unlabelled", "NA", "--normalize-labels", *columns)
    end = cli("noise", "--data", data, "--kind", "pair", "--rate", 1, "--output", output, *reading)
    assert end.status == 0, end.err
    assert "40 of 40 labels changed" in end.out
    after = read_table(output)
    assert after["clean_label"].tolist() == labels
    apart = after["clean_label"].isin(["", "NA"])
    assert (after["label"] == after["clean_label"])[apart].all()
    assert after["label"][~apart].str.strip().str.lower().tolist() == ["rot", "rot", "grün", "grün"] * 10


NAMED = pd.DataFrame(
    [[0.0, 0.25, 0.75], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
    index=["weaving", "farming", "sailing"],
    columns=["sailing", "weaving", "farming"],
)
IN_ORDER = NAMED.loc[NAMES, NAMES]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", NAMED.to_csv()),
        ("m.csv", IN_ORDER.to_csv(index=False, header=False)),
        ("m.json", NAMED.to_json(orient="index")),
        ("m.json", IN_ORDER.to_json(orient="values")),
    ],
)
def test_matrix_files(cli, data, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    words = ("--kind", "matrix", "--matrix", tmp_path / name, "--output", tmp_path / "o.csv")
    end = cli("noise", "--data", data, *words, "--format", "json")
    assert end.status == 0
    realised = pd.DataFrame(json.loads(end.out)["matrix"], NAMES, NAMES)
    assert realised.loc["farming", "sailing"] == 1
    assert realised.loc["sailing", "sailing"] == 1
    # 100 rows: five standard deviations
    assert abs(realised.loc["weaving", "farming"] - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 100)


def test_a_label_may_hold_the_sign_between(cli, tmp_path):
    data, output = tmp_path / "in.csv", tmp_path / "out.csv"
    pd.DataFrame({"text": "x", "label": ["a=b", "c"] * 4}).to_csv(data, index=False)
    words = ("--kind", "map", "--rate", 1, "--map", "a=b=c", "--output", output)
    assert cli("noise", "--data", data, *words).status == 0
    assert set(read_table(output)["label"]) == {"c"}


def _file(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


# name: (folder → options in place of the usual ones, words of the sentence)
REFUSED = {
    "unknown kind": (lambda d: {"kind": "uniform"}, "choose from symmetric"),
    "no rate": (lambda d: {"rate": None}, "needs --rate: add it"),
    "rate too high": (lambda d: {"rate": 1.5}, "noise rate is 1.5"),
    "negative seed": (lambda d: {"seed": -1}, "--seed"),
    "map without a map": (lambda d: {"kind": "map"}, "needs --map"),
    "a map for another kind": (lambda d: {"map": "farming=sailing"}, "takes no --map"),
    "a map to nowhere": (lambda d: {"kind": "map", "map": "farming=nothing"}, "two of 'farming'"),
    "a map without a sign": (lambda d: {"kind": "map", "map": "farming"}, "write a=b"),
    "matrix without a matrix": (lambda d: {"kind": "matrix", "rate": None}, "needs --matrix"),
    "matrix with a rate": (
        lambda d: {"kind": "matrix", "matrix": _file(d, "m.csv", "1,0\n0,1\n")},
        "takes no --rate",
    ),
    "instance without a model": (lambda d: {"kind": "instance"}, "needs --model"),
    "a model for another kind": (lambda d: {"model": "m"}, "takes no --model"),
    "no such model": (lambda d: {"kind": "instance", "model": d / "no"}, "There is no folder"),
    "no such file": (lambda d: {"data": d / "no.csv"}, "no such file"),
    "no such column": (lambda d: {"label_column": "lable"}, "did you mean 'label'"),
    "a clean label already": (
        lambda d: {"data": _file(d, "x.csv", "text,label,clean_label\n" + "t,a,a\nt,b,b\n" * 2)},
        "rename or drop it",
    ),
    "unknown ending": (lambda d: {"output": d / "out.txt"}, "no known format"),
    "no such folder": (lambda d: {"output": d / "no" / "out.csv"}, "no folder"),
    "the input itself": (lambda d: {"output": d / "in.csv", "overwrite": True}, "is the input itself"),
    "there already": (lambda d: {"output": _file(d, "mine.csv", "mine")}, "is there already"),
}


def _matrix(name, text):
    return lambda d: {"kind": "matrix", "rate": None, "matrix": _file(d, name, text)}


REFUSED |= {
    "matrix: none": (lambda d: {"kind": "matrix", "rate": None, "matrix": d / "m.csv"}, "Cannot read"),
    "matrix: ending": (_matrix("m.txt", "1"), "ends in .csv or .json"),
    "matrix: size": (_matrix("m.csv", "1,0\n0,1\n"), "no 3 × 3 matrix"),
    "matrix: ragged": (_matrix("m.csv", "1,0,0\n0,1\n0,0,1\n"), "unequal length"),
    "matrix: empty": (_matrix("m.csv", ""), "no 3 × 3 matrix"),
    "matrix: words": (_matrix("m.csv", "1,0,x\n0,1,0\n0,0,1\n"), "no number"),
    "matrix: no distribution": (_matrix("m.csv", "1,0,1\n0,1,0\n0,0,1\n"), "no distribution"),
    "matrix: other names": (_matrix("m.csv", IN_ORDER.rename(index={"farming": "x"}).to_csv()), "names 'x'"),
    "matrix: no JSON": (_matrix("m.json", "{"), "is no JSON"),
    "matrix: a number": (_matrix("m.json", "1"), "holds no matrix"),
    "matrix: a list": (_matrix("m.json", "[1, 2, 3]"), "holds no matrix"),
    "matrix: a gap": (_matrix("m.json", '{"farming": {"sailing": 1, "weaving": 0}}'), "no 3 × 3 matrix"),
    "matrix: no UTF-8": (
        lambda d: {
            "kind": "matrix",
            "rate": None,
            "matrix": [d / "m.csv", (d / "m.csv").write_bytes(b"\xff")][0],
        },
        "not valid UTF-8",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_one_sentence_and_no_file(cli, data, tmp_path, case):
    change, expected = REFUSED[case]
    options = {"data": data, "kind": "symmetric", "rate": 0.4, "output": tmp_path / "out.csv"}
    options |= change(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    words = ["noise", "--format", "quiet"]
    for name, value in options.items():
        if value is not None:
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [value]
    end = cli(*words)
    assert (end.status, end.out) == (2, "")
    assert expected in end.err
    assert end.err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_matrix_is_never_overwritten_by_the_table(cli, data, matrix):
    before = matrix.read_bytes()
    words = ("--kind", "matrix", "--matrix", matrix, "--output", matrix, "--overwrite")
    assert "is the input itself" in cli("noise", "--data", data, *words).err
    assert matrix.read_bytes() == before


def test_a_map_names_a_label_once(cli, data, tmp_path):
    words = ("--map", "farming=sailing", "--map", "farming=weaving", "--output", tmp_path / "o.csv")
    end = cli("noise", "--data", data, "--kind", "map", "--rate", 1, *words)
    assert "names 'farming' twice" in end.err


def test_help_names_every_kind_and_imports_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from clear_peft.cli.app import app\n"
        "end = CliRunner().invoke(app, ['noise', '--help'], env={'COLUMNS': '200'})\n"
        "assert end.exit_code == 0, end.output\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(end.output)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert all(kind in said for kind in KINDS)
