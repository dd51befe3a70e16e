"""Texts that try to break out of the report or its download, and very many of them."""

import numpy as np
import pandas as pd
from records import HOSTILE, NEWS, audit_of, hostile_record, issues_of, small_record

from browser import KEY, PER_PAGE, downloaded, overflow, row_numbers, search
from clear_peft.data import escape_formulas, read_table, unescape_formulas
from clear_peft.report import render


def test_texts_that_try_to_break_out_are_shown_as_text(reports):
    record = hostile_record()
    page = reports.open(reports.write(record))
    assert page.locator("script").count() == 3
    assert page.locator("img").count() == 0
    assert page.inner_text("h1") == "<svg onload=alert(1)>"
    assert "<script>alert(1)</script> is missing" in page.inner_text("#missing")
    assert "</p><script>alert(1)</script>" in page.inner_text("#predictions")
    assert page.inner_text("#inspector-given") == "<b>bold</b>"
    for text in record.audit.issues["text"]:
        shown = page.locator("#inspector-text").evaluate("node => node.firstChild.textContent")
        whole = text.replace("\0", "␀").replace("\x1b", "␛").replace("\ud800", "\ufffd")
        assert shown == whole[:2_000].replace("\r\n", "\r\n")
        page.keyboard.press("j")
    assert "1,000,000 characters" in page.inner_text("#inspector-text")
    assert overflow(page) == 0


def test_the_download_cannot_run_in_a_spreadsheet_and_comes_back(reports, tmp_path):
    record = hostile_record()
    page = reports.open(reports.write(record))
    for _ in HOSTILE:
        page.keyboard.press("r")
    raw = read_table(downloaded(page, tmp_path))
    kept = [text[:200].replace("\0", "\ufffd").replace("\ud800", "\ufffd") for text in HOSTILE]
    labels = record.audit.labels
    columns = {"row": [str(i) for i in range(len(kept))], "action": "relabel", "label": labels[1]}
    wanted = pd.DataFrame(columns | {"given_label": labels[0], "text": kept})
    pd.testing.assert_frame_equal(raw, escape_formulas(wanted), check_dtype=False)
    pd.testing.assert_frame_equal(unescape_formulas(raw), wanted, check_dtype=False)


def test_formulas_are_escaped_as_the_data_room_does(reports, tmp_path):
    signs = ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'", "a", "1", "", "."]
    rest = ["", "1", "1.5e3", "1.", ".5", "1e", "=1", "'", "٣", ",\"x\"", "1\n", " 1"]  # fmt: skip
    texts = sorted({quotes + sign + end for quotes in ("", "'", "''") for sign in signs for end in rest})
    issues = issues_of(
        texts, [0] * len(texts), [1] * len(texts), np.linspace(0, 0.4, len(texts)), labels=("x", "y")
    )
    page = reports.open(reports.write(small_record(audit=audit_of(issues, ("x", "y")))))
    dropped = "JSON.stringify(Array.from({length: count}, (_, row) => [row, 'drop']))"
    page.evaluate(f"count => localStorage.setItem({KEY}, {dropped})", len(texts))
    page.reload()
    raw = read_table(downloaded(page, tmp_path))
    wanted = pd.DataFrame({"text": texts})
    assert raw["text"].tolist() == escape_formulas(wanted)["text"].tolist()
    assert unescape_formulas(raw)["text"].tolist() == texts


def test_a_hundred_thousand_rows(reports, tmp_path):
    count = 100_000
    generator = np.random.default_rng(0)
    texts = [f"message {i}: " + "word " * 30 for i in range(count)]
    given, predicted = generator.integers(5, size=(2, count))
    issues = issues_of(texts, given, predicted, generator.uniform(size=count), labels=NEWS)
    html = render(small_record(audit=audit_of(issues, NEWS)))
    assert len(html.encode()) < 30_000_000
    page = reports.open(reports.write(html))
    page.select_option("#show", "all")
    assert page.inner_text("#count") == "100,000 rows"
    search(page, "message 4242:")
    page.locator("#count", has_text="1 row of").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    assert read_table(downloaded(page, tmp_path))["row"].tolist() == ["4242"]
    search(page, "")
    page.locator("#count", has_text="100,000 rows").wait_for()
    page.click("#headings th.c-text button")
    assert row_numbers(page)[0] == 0
    page.click("#last")
    assert len(row_numbers(page)) == PER_PAGE
