"""Label names: their order, their ids, their file."""

import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from clear_peft.data import LabelNames
from clear_peft.errors import ClearWarning, InputError


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        ([10, 9, np.int64(-1)], ("-1", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        ([True, False, np.True_], ("False", "True")),
        ([1.0, np.float32(2), "3"], ("1", "2", "3")),
        (["1.0", "007"], ("1.0", "007")),
        (["1" * 5000, "2"], ("1" * 5000, "2")),
        (["NA", "null"], ("NA", "null")),
    ],
)
def test_fit_sorts(values, names):
    assert LabelNames.fit(values).names == names


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, unique_by=str.strip))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_encoding_and_the_file_keep_the_names(tmp_path, values):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClearWarning)
            names = LabelNames.fit(values)
    except InputError:
        reject()  # two look alike
    assume(len(names.names) == len(values))  # no two spellings of a number
    assert [names.names[i] for i in names.encode(values)] == values
    names.save(tmp_path / "labels.json")
    assert LabelNames.load(tmp_path / "labels.json") == names
    assert json.loads((tmp_path / "labels.json").read_text(encoding="utf-8")) == list(names.names)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            ["Bug", "bug", "bug", "x"],
            r"'Bug' \(1×\), 'bug' \(2×\) differ only in case: .* --normalize",
        ),
        (["a", "A", "b", "B"], "differ only in case, and so does 1 more"),
        (
            ["bug_report", "Bug report", "x"],
            "differ only in spaces, hyphens and underscores, or case: .* --norm",
        ),
        (["007", "7"], "differ only in zeros before a number: they are classes of their own"),
        (["a;b", "b;c", "a; c", "a;b;c"], r"look like lists of labels \('a; c'\)"),
    ],
)
def test_what_may_be_meant_otherwise_is_said(values, said):
    with pytest.warns(ClearWarning, match=said):
        assert len(LabelNames.fit(values).names) == len(set(values))


def test_normalised_names_join_what_stands_between_words():
    values = ["bug_report", "bug_report", "Bug Report ", "bug-report", "-1", "1", "_x", "x", "a_b", "ab"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ClearWarning)
        names = LabelNames.fit(values, normalize=True)
    assert set(names.names) == {"bug_report", "-1", "1", "_x", "x", "a_b", "ab"}
    assert len({*names.find(values[:4], normalize=True).tolist()}) == 1


def test_encode_gives_int64_also_for_nothing():
    assert LabelNames(("a",)).encode(["a"]).dtype == np.int64
    assert LabelNames(("a",)).encode([]).dtype == np.int64


def test_encode_names_what_it_does_not_know():
    with pytest.raises(InputError, match="'x', 'y' are not among the known ones \\('a'\\)"):
        LabelNames(("a",)).encode(["x", "a", "y", "x"])


@pytest.mark.parametrize(
    "value", [None, "", "  ", math.nan, pd.NA, pd.NaT, 0.5, math.inf, [1], b"a", object()]
)
def test_missing_labels_and_other_types_are_refused(value):
    with pytest.raises(InputError):
        LabelNames.fit(["a", value])


@pytest.mark.parametrize("content", ["", "{}", "[1]", '["a", "a"]', '["a", " "]', "[" * 100_000, "\ud800"])
def test_a_broken_file_is_refused(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError):
        LabelNames.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        LabelNames.load(tmp_path / "labels.json")
