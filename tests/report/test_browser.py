"""Working through the rows in a real browser: every control does what it says."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from records import NEWS, audit_of, issues_of, small_record

from browser import KEY, PER_PAGE, current, downloaded, listed, progress, row_numbers, search, table
from clear_peft.audit import read_corrections
from clear_peft.data import Examples, LabelNames, read_table

FILTERS = [
    ({"show": "all"}, "row >= 0"),
    ({"show": "unlisted"}, "not is_label_issue"),
    ({"show": "conflict"}, "duplicate_conflict"),
    ({"given": "sport"}, "is_label_issue and given_label == 'sport'"),
    ({"show": "all", "predicted": "politics"}, "predicted_label == 'politics'"),
    ({"split": "validation"}, "is_label_issue and split == 'validation'"),
    ({"show": "all", "given": "sport", "predicted": "business", "split": "train"},
     "given_label == 'sport' and predicted_label == 'business' and split == 'train'"),
]  # fmt: skip


def test_the_listed_rows_come_first_and_most_suspicious_first(page, issues):
    assert row_numbers(page) == listed(issues)["row"].tolist()[:PER_PAGE]
    assert current(page) == issues["row"][0]
    assert progress(page) == f"0 of {len(listed(issues))} listed rows looked at"


def test_search(page, issues):
    page.select_option("#show", "all")
    word = "STRIKER"
    search(page, word)
    wanted = issues[issues["text"].str.lower().str.contains(word.lower())]
    assert page.inner_text("#count") == f"{len(wanted)} rows of 400"
    assert row_numbers(page) == wanted["row"].tolist()[:PER_PAGE]
    search(page, "#17")
    assert row_numbers(page) == [17]
    search(page, "no such words")
    assert "No row matches" in page.inner_text("#body")
    assert page.locator("#inspector").is_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("d")  # with no row to decide on
    page.click("#reset")
    assert row_numbers(page) == listed(issues)["row"].tolist()[:PER_PAGE]
    assert page.input_value("#search") == ""


def test_filters(page, issues):
    for choices, query in FILTERS:
        page.click("#reset")
        for name, value in choices.items():
            option = page.locator(f"#{name} option").filter(has_text=re.compile(rf"^{value} \("))
            page.select_option(f"#{name}", value if name == "show" else option.get_attribute("value"))
        wanted = issues.query(query)["row"].tolist()
        assert len(wanted) > 0
        assert row_numbers(page) == wanted[:PER_PAGE]
        assert page.inner_text("#count").startswith(f"{len(wanted)} row")


def test_the_decision_filter(page, issues):
    for key in ("Shift+K", "d", "r"):
        page.keyboard.press(key)
    rows = listed(issues)["row"].tolist()
    for choice, wanted in (
        ("keep", rows[:1]),
        ("drop", rows[1:2]),
        ("relabel", rows[2:3]),
        ("done", rows[:3]),
    ):
        page.select_option("#decision", choice)
        assert row_numbers(page) == wanted
    page.select_option("#decision", "open")
    assert row_numbers(page) == rows[3:][:PER_PAGE]
    page.keyboard.press("Escape")
    page.locator("#body tr").first.focus()
    page.keyboard.press("d")  # what is decided leaves the list
    assert row_numbers(page) == rows[4:][:PER_PAGE]
    assert current(page) == rows[4]


def test_sorting(page, issues):
    names = {"row": "Row", "text": "Text", "given_label": "Given", "predicted_label": "Predicted"}
    for column, name in names.items():
        heading = page.locator("#headings th", has_text=name)
        for ascending in (True, False):
            heading.locator("button").click()
            wanted = listed(issues).sort_values(column, ascending=ascending, kind="stable")
            assert row_numbers(page) == wanted["row"].tolist()[:PER_PAGE]
            assert heading.get_attribute("aria-sort") == ("ascending" if ascending else "descending")
        assert page.locator("#headings [aria-sort=none]").count() == 5


def test_labels_sort_in_their_order(reports):
    labels = tuple(map(str, range(12)))
    audit = audit_of(issues_of(["text"] * 12, range(12), [0] * 12, [0.1] * 12, labels=labels), labels)
    page = reports.open(reports.write(small_record(audit=audit)))
    page.click("#headings th.c-given button")
    assert row_numbers(page) == list(range(12))


def test_sorting_by_suspicion_and_by_decision(page, issues):
    rows = listed(issues)["row"].tolist()
    page.click("#headings th.c-wrong button")
    assert row_numbers(page) == rows[::-1][:PER_PAGE]
    page.click("#headings th.c-wrong button")
    page.locator("#body tr").nth(4).click()
    page.keyboard.press("d")
    page.click("#headings th.c-decision button")
    assert row_numbers(page)[0] == rows[4]


def test_pages(page, issues):
    rows = listed(issues)["row"].tolist()
    pages = -(-len(rows) // PER_PAGE)
    assert pages > 2
    assert page.inner_text("#pages") == f"of {pages}"
    assert page.is_disabled("#previous")
    page.click("#next")
    assert row_numbers(page) == rows[PER_PAGE : 2 * PER_PAGE]
    page.click("#last")
    assert row_numbers(page) == rows[(pages - 1) * PER_PAGE :]
    assert page.is_disabled("#next")
    page.click("#previous")
    assert page.input_value("#page") == str(pages - 1)
    page.click("#first")
    for typed, shown in (("2", 2), ("999", pages), ("-5", 1), ("", 1)):
        page.fill("#page", typed)
        page.press("#page", "Enter")
        assert row_numbers(page) == rows[(shown - 1) * PER_PAGE : shown * PER_PAGE]
        assert page.input_value("#page") == str(shown)


def test_the_keyboard_alone(page, issues):
    rows = listed(issues)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert current(page) == rows["row"][1]
    page.keyboard.press("ArrowDown")
    assert current(page) == rows["row"][2]
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+K")
    page.keyboard.press("d")
    page.keyboard.press("r")
    shown = [line[3] for line in table(page)[:5]]
    assert shown == ["", "✓ keep", "✕ drop", f"→ {rows['predicted_label'][3]}", ""]
    assert current(page) == rows["row"][4]
    assert progress(page).endswith(f"3 of {len(rows)} listed rows looked at: 1 keep, 1 relabel, 1 drop")
    assert page.locator("#progress").evaluate("bar => [bar.value, bar.max]") == [3, len(rows)]
    assert f"Row {rows['row'][3]}: relabel to {rows['predicted_label'][3]}." in page.inner_text(
        "#announcement"
    )
    page.keyboard.press("u")
    assert current(page) == rows["row"][3]
    page.keyboard.press("u")
    page.keyboard.press("u")
    page.keyboard.press("u")  # nothing is left to undo
    assert [line[3] for line in table(page)[:5]] == [""] * 5
    assert page.is_disabled("#download")


def test_keys_type_where_there_is_something_to_type_into(page, issues):
    page.keyboard.press("/")
    page.keyboard.type("drunk")
    assert page.input_value("#search") == "drunk"
    page.keyboard.press("Escape")
    page.click("#reset")
    page.select_option("#given", index=1)
    page.locator("#given").focus()
    page.keyboard.press("d")
    assert page.is_disabled("#download")


def test_nothing_is_decided_on_a_row_out_of_sight(reports, news):
    page = reports.open(reports.write(news[1]), at="overview")
    page.keyboard.press("d")
    assert page.is_disabled("#download")
    assert page.evaluate("document.getElementById('review').getBoundingClientRect().top < innerHeight")
    page.keyboard.press("d")
    assert page.is_enabled("#download")


def test_nor_where_the_list_is_in_sight_below_the_row(reports, news):
    page = reports.open(reports.write(news[1]), viewport={"width": 390, "height": 800})
    page.locator("#body tr").nth(40).scroll_into_view_if_needed()
    page.keyboard.press("d")
    assert page.is_disabled("#download")
    page.keyboard.press("d")
    assert page.is_enabled("#download")


def test_a_key_that_is_held_decides_once(page, issues):
    for _ in range(4):
        page.keyboard.down("j")
    assert current(page) == listed(issues)["row"][4]
    for _ in range(3):
        page.keyboard.down("d")  # without an up: what a held key sends
    assert ": 0 keep, 0 relabel, 1 drop" in progress(page)
    page.keyboard.up("d")
    page.keyboard.up("j")
    page.locator("#new-label").focus()
    for _ in range(2):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    assert ": 0 keep, 1 relabel, 1 drop" in progress(page)


@pytest.mark.parametrize(("shift", "moves", "kept"), [(False, -1, 0), (True, 1, 1)])
def test_with_caps_lock_k_goes_back_all_the_same(page, issues, shift, moves, kept):
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.evaluate(
        "shiftKey => document.body.dispatchEvent("
        "new KeyboardEvent('keydown', {key: shiftKey ? 'k' : 'K', shiftKey, bubbles: true}))",
        shift,
    )
    assert current(page) == listed(issues)["row"][2 + moves]
    assert page.is_enabled("#download") == bool(kept)


def test_help_and_switching_the_keys_off(page, issues):
    page.locator("#body tr").first.focus()
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("d")
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()
    page.keyboard.press("d")
    assert page.is_disabled("#download")
    page.reload()
    page.click("#help-open")
    assert not page.is_checked("#keys-on")
    page.check("#keys-on")
    page.click("#help-close")
    page.keyboard.press("d")
    assert page.is_enabled("#download")


def test_buttons_decide_and_take_back(page, issues):
    row = current(page)
    page.click("#keep")
    assert current(page) != row
    page.click("#body tr >> nth=0")
    assert page.get_attribute("#keep", "aria-pressed") == "true"
    page.click("#drop")
    page.click("#undo")
    assert table(page)[0][3] == "✓ keep"  # what was decided before
    page.click("#keep")
    assert table(page)[0][3] == ""
    assert current(page) == row


def test_relabelling_to_another_class(page, issues):
    first = issues.iloc[0]
    other = next(name for name in NEWS if name not in (first["given_label"], first["predicted_label"]))
    page.select_option("#new-label", label=other)
    page.click("#relabel")
    assert table(page)[0][3] == f"→ {other}"
    page.keyboard.press("k")
    assert page.locator("#new-label option:checked").inner_text() == other
    page.keyboard.press("j")
    page.keyboard.press("c")
    page.select_option("#new-label", label=other)
    page.keyboard.press("Enter")
    assert table(page)[1][3] == f"→ {other}"


def test_a_row_whose_prediction_is_its_label_has_to_be_told_its_class(reports):
    audit = audit_of(issues_of(["a", "b"], [0, 1], [0, 1], [0.4, 0.9], labels=("x", "y")), ("x", "y"))
    page = reports.open(reports.write(small_record(audit=audit)))
    page.keyboard.press("r")
    assert page.evaluate("document.activeElement.id") == "new-label"
    assert "choose a class" in page.inner_text("#announcement")
    page.select_option("#new-label", label="y")
    page.keyboard.press("Enter")
    assert table(page)[0][3] == "→ y"


def test_relabelling_to_the_given_label_keeps_it(page, issues):
    page.select_option("#new-label", label=listed(issues)["given_label"][0])
    page.click("#relabel")
    assert table(page)[0][3] == "✓ keep"


def test_decisions_outlive_a_reload_but_belong_to_their_run(reports, news):
    context = reports.context()
    page = reports.open(reports.write(news[1]), context)
    page.keyboard.press("d")
    page.keyboard.press("r")
    before = table(page)
    page.reload()
    assert table(page) == before
    page.keyboard.press("u")
    assert [line[3] for line in table(page)[:2]] == ["✕ drop", ""]
    other = reports.open(reports.write(replace(news[0], name="another run"), "other.html"), context)
    assert progress(other).startswith("0 of")


def test_a_window_follows_another(reports, news):
    context, path = reports.context(), reports.write(news[1])
    one, two = reports.open(path, context), reports.open(path, context)
    one.keyboard.press("d")
    two.locator("#body .decided").wait_for()
    assert table(two)[0][3] == "✕ drop"


def test_nonsense_in_the_browsers_memory_is_passed_over(page):
    for text in ("{", '"text"', '[1, null, ["x", "keep"], [3, "explode"], [4, "relabel", 5]]'):
        page.evaluate(f"localStorage.setItem({KEY}, {text!r})")
        page.reload()
        assert progress(page).startswith("0 of")


def test_a_page_from_a_file_works_without_a_server(reports, news, tmp_path):
    page = reports.open(reports.write(news[1]), from_file=True)
    page.keyboard.press("d")
    assert page.inner_text("#storage-note") == ""
    assert read_table(downloaded(page, tmp_path))["row"].tolist() == [
        str(listed(news[0].audit.issues)["row"][0])
    ]


def test_opening_a_page_writes_nothing_down(page):
    page.reload()
    assert page.evaluate("Object.keys(localStorage)") == []


def test_where_storage_is_forbidden_everything_else_works(reports, news, tmp_path):
    refuse = "{get() { throw new DOMException('no', 'SecurityError'); }}"
    forbidden = f"Object.defineProperty(window, 'localStorage', {refuse})"
    page = reports.open(reports.write(news[1]), script=forbidden)
    assert "keeps nothing" in page.inner_text("#storage-note")
    page.keyboard.press("d")
    page.click("#theme")
    assert len(read_table(downloaded(page, tmp_path))) == 1


def test_the_download_is_what_the_audit_reads(page, issues, tmp_path):
    rows = listed(issues)
    other = next(
        name for name in NEWS if name not in rows.loc[3, ["given_label", "predicted_label"]].tolist()
    )
    for key in ("Shift+K", "d", "r"):
        page.keyboard.press(key)
    page.select_option("#new-label", label=other)
    page.click("#relabel")
    path = downloaded(page, tmp_path)
    frame = read_table(path)
    assert list(frame.columns) == ["row", "action", "label", "given_label", "text"]
    assert frame["row"].astype(int).is_monotonic_increasing
    table = issues.sort_values("row")
    names = LabelNames(tuple(NEWS))
    given = np.array([names.names.index(label) for label in table["given_label"]])
    found = read_corrections(path, Examples(table["text"].tolist(), given, table["row"].to_numpy()), names)
    assert found.keep == [rows["row"][0]]
    assert found.drop == [rows["row"][1]]
    wanted = {rows["row"][2]: rows["predicted_label"][2], rows["row"][3]: other}
    assert {row: names.names[label] for row, label in found.relabel.items()} == wanted


def test_near_duplicates_with_other_labels_are_flagged_and_lead_to_each_other(page, issues):
    page.select_option("#show", "conflict")
    assert page.locator("#body .chip.warn").count() == page.locator("#body tr").count() > 0
    first = issues[issues["duplicate_conflict"]].iloc[0]
    group = issues[(issues["duplicate_group"] == first["duplicate_group"]) & (issues["row"] != first["row"])]
    twin = group.iloc[0]
    assert f"Row {twin['row']}: {twin['given_label']}" in page.inner_text("#inspector-twins")
    page.select_option("#split", index=0)
    page.locator("#inspector-twins button").first.focus()
    page.keyboard.press("Enter")
    assert current(page) == twin["row"]
    assert page.evaluate("document.activeElement.id") == "inspector-text"
    assert f"Row {twin['row']}: given" in page.inner_text("#announcement")


def test_a_scan_has_neither_epochs_nor_splits(reports):
    record = small_record()
    audit = replace(record.audit, issues=record.audit.issues.drop(columns="split"))
    scan = replace(record, audit=audit, epochs=(), trained=False)
    page = reports.open(reports.write(scan))
    assert page.locator("#split").is_hidden()
    assert page.locator("#given").is_visible()
    assert page.locator("#body tr").count() > 0
    assert "train" not in page.locator("#inspector-chips").inner_text()
    assert reports.complaints == []


def test_rows_to_look_at_first(reports, tmp_path):
    record = small_record()
    assert reports.open(reports.write(record)).locator("#show-proposed").count() == 0
    wanted = sorted(record.audit.issues["row"].sample(3, random_state=0).tolist())
    page = reports.open(reports.write(replace(record, proposed=wanted)))
    page.click("#show-proposed")
    shown = page.locator("#body .c-row").all_inner_texts()
    assert sorted(int(text.removeprefix("#")) for text in shown) == wanted
    for _ in wanted:
        page.click("#keep")
    kept = pd.read_csv(downloaded(page, tmp_path))
    assert sorted(kept["row"]) == wanted
    assert set(kept["action"]) == {"keep"}
    assert reports.complaints == []
