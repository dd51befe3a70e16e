"""The report as text: what it says, what it leaves out, and that nothing in the data can break out of it."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import (
    NEWS,
    audit_of,
    epochs_of,
    issues_of,
    many_classes_record,
    metrics_of,
    news_record,
    small_record,
)

from clear_peft.report import render
from clear_peft.report.page.charts import confusion, epoch_charts
from clear_peft.report.page.embedding import embedded_json, showable
from clear_peft.report.page.rows import TEXT_CHARACTERS, row_columns
from clear_peft.report.page.summary import facts, headline, percent, whole_configuration

BREAKING_OUT = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "\"'`&amp; {{ 7 * 7 }} {% raw %}",
    "\u202eright to left\u2069",
    "NUL \0 and \x1b",
    "half \ud800 a pair",
    "two\u2028lines\u2029",
    "=HYPERLINK(1)",
    "\tTab",
    "👍🏽 emoji",
]


class _Parsed(HTMLParser):
    """Elements by name, the content of scripts and styles, and the text that is shown."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.blocks, self.text, self._inside = [], [], [], None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = (tag, dict(attrs))
            self.blocks.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        if self._inside and tag == self._inside[0]:
            self._inside = None

    def handle_data(self, data):
        if self._inside:
            self.blocks[-1][2] += data
        else:
            self.text.append(data)

    def json(self, name):
        return next((json.loads(text) for _, a, text in self.blocks if a.get("id") == name), None)

    @property
    def shown(self):
        return " ".join(" ".join(self.text).split())


def parsed(record):
    return _Parsed(render(record))


def shape(page):
    """The elements without the lists that grow with what is shown."""
    return [(tag, sorted(attributes)) for tag, attributes in page.elements]


@given(
    st.recursive(
        st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_embedded_json_means_nothing_to_html_and_comes_back(value):
    text = embedded_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    text.encode("utf-8")
    assert json.loads(text) == json.loads(json.dumps(value))


@given(st.text(alphabet=st.characters(categories=None)))
def test_shown_text_has_a_utf8_form(text):
    shown = showable(text)
    assert len(shown) == len(text)
    assert "\0" not in shown
    shown.encode("utf-8")


@pytest.mark.parametrize("text", BREAKING_OUT, ids=ascii)
def test_texts_labels_and_options_never_become_markup(text):
    plain = small_record(texts=["a text"] * 8, labels=("one", "two"))
    hostile = small_record(texts=[text] * 8, labels=(text, "two"), name=text)
    hostile = replace(
        hostile, missing=[text], config={**plain.config, "model": text, "peft_options": {text: [text]}}
    )
    plain = replace(plain, missing=["nothing"], name="plain", config={**plain.config, "peft_options": {}})
    page = render(hostile)
    page.encode("utf-8")
    found = _Parsed(page)
    assert shape(found) == shape(parsed(plain))
    rows = found.json("row-data")
    assert rows["text"] == [text] * 8
    assert rows["labels"] == [text, "two"]
    assert " ".join(showable(text).split()) in found.shown


def test_the_policy_names_the_hashes_of_what_is_there_and_nothing_else():
    page = parsed(small_record())
    policy = next(
        a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    run = [(tag, text) for tag, a, text in page.blocks if a.get("type") != "application/json"]
    assert [tag for tag, _ in run] == ["style", "script"]
    for tag, text in run:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for _, attributes in page.elements:
        assert not {"style", "src", "srcset"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#").startswith("#")


def test_every_label_and_reference_points_to_an_element():
    page = parsed(news_record(rows=60))
    names = [a["id"] for _, a in page.elements if "id" in a]
    assert len(names) == len(set(names))
    for _, attributes in page.elements:
        for key in ("for", "aria-labelledby"):
            assert attributes.get(key) is None or attributes[key] in names
        target = attributes.get("href", "#overview")
        assert target.removeprefix("#") in names


def test_a_finished_run_says_what_was_trained_on_what():
    record = news_record(rows=200)
    text = parsed(record).shown
    for part in ("sentence-transformers/all-MiniLM-L6-v2", "data/train.csv", "lora",
                 "clear (preset recommended)",
                 "1,602 train, 178 validation, 445 test", "epoch 11 selected", "4 min 13 s", "1.46 GiB",
                 "torch 2.13.0", "Whose predictions? The predictions are made-up ones."):  # fmt: skip
        assert part in text
    assert "not finished" not in text


def test_the_headline_is_the_metrics_and_the_audit():
    record = small_record(rows=40)
    cards = {card["name"]: card for card in headline(record)}
    assert cards["Test accuracy"]["value"] == "91.2\N{NO-BREAK SPACE}%"
    assert "445 rows" in cards["Test accuracy"]["detail"]
    assert cards["Validation accuracy"]["value"] == "57.1\N{NO-BREAK SPACE}%"
    low, high = record.audit.noise_rate_interval
    assert f"{percent(low)} to {percent(high)}" in cards["Estimated wrong labels"]["detail"]
    assert cards["Rows to check"]["value"] == str(record.audit.issues["is_label_issue"].sum())
    assert percent(record.audit.expected_precision) in cards["Rows to check"]["detail"]


def test_without_a_test_table_no_test_accuracy_is_shown():
    record = small_record(
        metrics=metrics_of(3) | {"test": None, "rows": {"train": 9, "test": None}}, epochs=[{"epoch": 1}]
    )
    assert next(card["name"] for card in headline(record)) == "Validation accuracy"
    assert ("Rows", "9 train") in facts(record)


def test_cut_texts_and_several_columns_are_shown():
    record = small_record(
        config={"text_column": ["title", "body"], "label_column": "team"},
        metrics=metrics_of(3) | {"cut_texts": {"train": 4, "validation": 0}},
    )
    assert ("Texts cut at the most tokens", "4 train, 0 validation") in facts(record)
    assert ("Columns", "texts in title and body, labels in team") in facts(record)


def test_an_unfinished_run_says_so_and_shows_what_there_is():
    record = small_record(metrics=None, audit=None, missing=["There is no label_issues.csv yet."])
    page = parsed(record)
    assert "This run is not finished. 3 epochs are done" in page.shown
    assert "There is no label_issues.csv yet." in page.shown
    assert "as of epoch 3" in page.shown
    assert len(page.json("chart-data")["epochs"]) == 3
    assert page.json("row-data") is None
    assert not [a for _, a in page.elements if a.get("http-equiv") == "refresh"]


def test_a_fresh_start_is_told():
    restarted = small_record()
    assert ("Epochs", "3 done: 2 to find wrong labels, 1 of 1 after the restart, epoch 3 selected") in facts(
        restarted
    )
    assert "After epoch 2 noise was found" in parsed(restarted).shown
    assert parsed(restarted).json("chart-data")["warm_up"] == 2
    plain = small_record(epochs=epochs_of(3, classes=5, fitted=()))
    assert ("Epochs", "3 done, 3 asked for, epoch 3 selected") in facts(plain)
    assert "labels were doubted" not in parsed(plain).shown


def test_a_test_measured_once_stands_at_the_selected_epoch():
    once = [{"epoch": number, "validation_accuracy": 0.5} for number in (1, 2, 3)]
    figures = [e["figures"] for e in parsed(small_record(epochs=once)).json("chart-data")["epochs"]]
    assert [f.get("test_accuracy") for f in figures] == [None, None, 0.912]
    curve = [e["figures"]["test_accuracy"] for e in parsed(small_record()).json("chart-data")["epochs"]]
    assert curve == [e["test_accuracy"] for e in small_record().epochs]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/home/somebody/models/mini/lm", "…/mini/lm"),
        ("/data/lm", "/data/lm"),
        ("data/of/mine/rows.csv", "data/of/mine/rows.csv"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
    ],
)
def test_of_an_absolute_path_the_end_is_shown(source, shown):
    record = small_record()
    config = {**record.config, **dict.fromkeys(("model", "data", "output"), source), "validation": None}
    named = dict(facts(replace(record, config=config)))
    assert named["Model"] == named["Training table"] == shown
    whole = json.loads(whole_configuration(config))
    assert whole == {**config, **dict.fromkeys(("model", "data", "output"), shown)}


def test_a_run_that_has_only_begun():
    page = parsed(small_record(metrics=None, audit=None, epochs=[]))
    assert "No epoch is done yet." in page.shown
    assert "slider" not in str(page.elements)


def test_a_method_without_an_adapter():
    record = small_record(metrics=metrics_of(3) | {"peft": None, "method": "full"})
    assert ("PEFT method", "none: all weights are trained") in facts(record)


def test_no_row_listed_and_no_truth_known():
    issues = issues_of(["a", "b"], [0, 1], [0, 1], [0.9, 0.8], labels=("x", "y"))
    audit = audit_of(issues, ("x", "y"))
    page = parsed(small_record(audit=audit, metrics=metrics_of(3) | {"detection": None, "memorised": None}))
    assert "0 of 2, clean probability below 0.5" in page.shown
    assert "memorised" not in page.shown


def test_rows_come_in_their_order_with_every_column():
    audit = news_record(rows=50).audit
    rows = row_columns(audit.issues, audit.labels, 10**6)
    assert rows["labels"] == list(NEWS)
    assert (rows["total"], rows["shown"], rows["cut"]) == (50, 50, 0)
    assert rows["row"] == audit.issues["row"].tolist()
    assert [NEWS[i] for i in rows["given"]] == audit.issues["given_label"].tolist()
    assert [NEWS[i] for i in rows["predicted"]] == audit.issues["predicted_label"].tolist()
    assert [rows["splits"][i] for i in rows["split"]] == audit.issues["split"].tolist()
    assert rows["clean"] == pytest.approx(audit.issues["clean_probability"], abs=1e-4)
    assert rows["conflict"] == audit.issues["duplicate_conflict"].astype(int).tolist()
    assert "id" not in rows


def test_ids_are_shown_where_there_are_some():
    issues = issues_of(["a"], [0], [1], [0.1], labels=("x", "y")).assign(id=["no. 7"])
    assert row_columns(issues, ("x", "y"), 10**6)["id"] == ["no. 7"]


def test_long_texts_are_cut_and_the_page_says_so():
    page = parsed(small_record(texts=["x" * 1_000_000, "short"]))
    rows = page.json("row-data")
    assert sorted(map(len, rows["text"])) == [5, TEXT_CHARACTERS]
    assert list(rows["lengths"].values()) == [1_000_000]
    assert "1 text is cut after 2,000 characters." in page.shown


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8), st.integers(0, 2_000))
def test_rows_beyond_the_budget_are_left_out_from_the_end(texts, budget):
    issues = issues_of(
        texts, [0] * len(texts), [1] * len(texts), np.linspace(0, 1, len(texts)), labels=("x", "y")
    )
    rows = row_columns(issues, ("x", "y"), budget)
    assert rows["row"] == issues["row"].tolist()[: rows["shown"]]
    shown = {name: rows[name] for name in ("labels", "row", "text", "clean", "issue", "group")}
    assert len(embedded_json(shown).encode()) <= max(budget, 200)


def test_a_table_of_expensive_texts_stays_below_30_megabytes():
    count = 20_000
    issues = issues_of(
        ["<é" * 400] * count, [0] * count, [1] * count, np.linspace(0, 1, count), labels=("x", "y")
    )
    page = render(small_record(audit=audit_of(issues, ("x", "y"))))
    assert 25_000_000 < len(page.encode()) < 30_000_000
    shown = _Parsed(page).json("row-data")["shown"]
    assert f"holds the {shown:,} most suspicious of 20,000 rows" in page
    assert f"the other {count - shown:,} are left out" in page


def test_the_mixture_is_drawn_where_it_was_fitted_and_sums_to_the_rows():
    first, second = epoch_charts(epochs_of(2, classes=5, rows=600, fitted=(2,)))
    assert first["histogram"]["of_steps"]
    assert "curves" not in first["histogram"]
    histogram = second["histogram"]
    assert not histogram["of_steps"]
    assert sum(histogram["counts"]["right"]) + sum(histogram["counts"]["wrong"]) == 600
    curves, edges = histogram["curves"], histogram["edges"]
    area = np.trapezoid(curves["lower"] + curves["upper"], curves["x"])
    assert area / (edges[1] - edges[0]) == pytest.approx(600, rel=0.05)
    assert curves["x"][curves["lower"].argmax()] < curves["x"][curves["upper"].argmax()]


@pytest.mark.parametrize("losses", [None, {"edges": [0, 1, 2], "all": [1, 2], "parameters": {}}])
def test_an_epoch_without_a_mixture(losses):
    (epoch,) = epoch_charts([{"epoch": 1, "losses": losses, "validation_accuracy": None}])
    assert epoch["figures"] == {}
    assert epoch["histogram"] is None or "curves" not in epoch["histogram"]


def test_confusion_is_the_estimate_and_names_the_worst_pairs_first():
    joint = np.array([[0.4, 0.1], [0.2, 0.3]])
    audit = audit_of(
        issues_of(["t"] * 10, [0] * 10, [0] * 10, [0.9] * 10, labels=NEWS[:2]), NEWS[:2], joint=joint
    )
    found = confusion(audit)
    assert found["pairs"] == [[1, 0, 0.4, 2.0], [0, 1, 0.2, 1.0]]
    assert found["given"].tolist() == [[0.8, 0.2], [0.4, 0.6]]
    assert found["rows"].tolist() == [[4, 1], [2, 3]]


def test_of_very_many_classes_the_most_confused_are_drawn():
    audit = many_classes_record(classes=300, rows=2000).audit
    joint = np.eye(300) / 310
    joint[7, 290] = 10 / 310
    found = confusion(replace(audit, joint=joint))
    assert len(found["classes"]) == 100
    assert {7, 290} <= set(found["classes"])
    assert found["pairs"][0][:2] == [7, 290]


def test_decisions_are_kept_apart_by_run_and_by_rows():
    def key(record):
        return parsed(record).json("chart-data")["key"]

    record = small_record()
    assert key(record) == key(small_record(epochs=[]))
    others = [small_record(name="other"), small_record(rows=41), small_record(config={"model": "other"})]
    assert len({key(record), *map(key, others)}) == 4


def test_the_report_starts_without_torch():
    heavy = "{'torch', 'transformers', 'peft', 'datasets'}"
    code = f"import sys, clear_peft.report; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_formula_rules_are_those_of_the_data_room():
    from clear_peft.data import formulas

    script = next(text for tag, a, text in parsed(small_record()).blocks if tag == "script" and not a)
    assert f"/^{formulas._RISKY.pattern}/" in script
    assert f"/^{formulas._NUMBER.pattern}$/" in script
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", script)
