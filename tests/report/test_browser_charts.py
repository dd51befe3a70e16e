"""Charts and looks of the report in a real browser."""

import re
from dataclasses import replace

import numpy as np
import pytest
from records import epochs_of, hostile_record, many_classes_record, metrics_of, news_record, small_record

from browser import PER_PAGE, overflow, row_numbers, table


def test_every_part_is_drawn(page, news):
    for name in ("accuracy-chart", "loss-chart", "histogram", "gates-blocks", "gates-classes"):
        assert page.inner_text(f"#{name} figcaption")
    assert page.locator("#accuracy-chart polyline.series").count() == 3
    assert "restarted" in page.inner_text("#accuracy-chart .plot")
    assert page.locator("#loss-chart polyline.series").count() == 2
    assert page.locator("#heat tbody td").count() == 25
    assert page.locator("#pairs li").count() == 15
    assert page.locator("#gates-blocks li").count() == 6
    assert page.locator("#gates-classes li").all_inner_texts()[3].startswith("sport")
    assert page.locator("#body tr").count() == PER_PAGE
    assert page.locator(".chosen").count() >= 2


def test_figures_of_every_epoch_are_in_a_table(page, news):
    page.click("text=All figures as a table")
    rows = page.locator("#epoch-table tbody tr")
    assert rows.count() == len(news[0].epochs)
    assert rows.nth(10).inner_text().startswith("11 (selected)")
    assert f"{news[0].epochs[2]['train_loss']:.4f}" in rows.nth(2).inner_text()


def test_charts_read_out_their_values_to_keys_and_pointer(page, news):
    chart, readout = page.locator("#accuracy-chart .plot"), page.locator("#accuracy-chart .readout")
    assert readout.inner_text().startswith("Epoch 11 (selected): test ")
    chart.focus()
    page.keyboard.press("ArrowLeft")
    assert f"in the steps {100 * news[0].epochs[9]['memorised']:.1f}" in readout.inner_text()
    page.keyboard.press("Home")
    assert chart.get_attribute("aria-valuetext").startswith("Epoch 1:")
    page.keyboard.press("End")
    assert readout.inner_text().startswith("Epoch 12:")
    box = chart.bounding_box()
    chart.hover(position={"x": 55, "y": box["height"] / 2})
    assert readout.inner_text().startswith("Epoch 1:")


def test_the_slider_goes_through_the_histograms(page):
    caption, slider = page.locator("#histogram figcaption"), page.locator("#epoch-slider")
    assert "epoch 4" in caption.inner_text()
    assert page.locator("#histogram polyline.curve").count() == 2
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert "epoch 5" in caption.inner_text()
    assert "nothing was fitted" in caption.inner_text()
    assert page.locator("#histogram polyline.curve").count() == 0
    assert page.inner_text("#epoch-name") == "5 of 12"
    page.keyboard.press("Home")
    assert "epoch 1" in caption.inner_text()
    page.click("#epoch-jumps button")
    assert "epoch 4" in caption.inner_text()
    assert slider.input_value() == "3"


def test_bars_are_the_counts(page, news):
    losses = news[0].epochs[3]["losses"]
    for part in ("right", "wrong"):
        assert page.locator(f"#histogram g .bar.{part}").count() == np.count_nonzero(losses[part])
    page.click("text=Counts as a table")
    cells = page.locator("#histogram tbody tr").nth(20).inner_text().split()
    assert cells[2:] == [str(losses["right"][20]), str(losses["wrong"][20])]


def test_the_slider_goes_through_the_routed_shares(page, news):
    assert page.inner_text("#routing-name") == "11 of 12 (selected)"
    page.locator("#routing-slider").focus()
    page.keyboard.press("Home")
    assert page.inner_text("#routing-name") == "5 of 12"
    share = news[0].epochs[4]["gate_rates"]["blocks"][0]
    assert page.locator("#gates-blocks li").first.inner_text().split() == [
        "Block",
        "1",
        f"{100 * share:.1f}",
        "%",
    ]


def test_the_heat_map_is_walked_through_and_leads_to_its_rows(page, issues):
    page.locator("#heat").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    readout = page.inner_text("#heat-readout")
    assert "truly “business” were given “entertainment”" in readout
    page.click("#heat-readout button")
    wanted = issues.query("given_label == 'entertainment' and predicted_label == 'business'")
    assert row_numbers(page) == wanted["row"].tolist()[:PER_PAGE]
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"  # keys go on there
    page.click("#heat tbody tr:nth-child(2) td:nth-of-type(1)")
    assert "truly “entertainment” were given “business”" in page.inner_text("#heat-readout")
    assert page.locator("#heat td").nth(2).get_attribute("aria-label") is not None


def test_a_confused_pair_leads_to_its_rows(page, issues):
    true, given = re.match(r"(\w+) given as (\w+)", page.locator("#pairs button").first.inner_text()).groups()
    page.locator("#pairs button").first.click()
    wanted = issues[(issues["given_label"] == given) & (issues["predicted_label"] == true)]
    assert row_numbers(page) == wanted["row"].tolist()[:PER_PAGE]


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(reports, news, system):
    other = {"light": "dark", "dark": "light"}[system]
    dark = "getComputedStyle(document.body).backgroundColor"
    page = reports.open(reports.write(news[1]), color_scheme=system)
    before = page.evaluate(dark)
    assert page.get_attribute("#theme", "aria-label") == f"Switch to the {other} theme"
    page.click("#theme")
    after = page.evaluate(dark)
    assert before != after
    assert page.get_attribute("#theme", "aria-label") == f"Switch to the {system} theme"
    page.reload()
    assert page.evaluate(dark) == after
    page.click("#theme")
    assert page.evaluate(dark) == before


# every text against what lies behind it, by WCAG's formula
CONTRASTS = """() => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
  const light = (c) => { const [r, g, b] = [...c].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (node) => { for (; node; node = node.parentElement) { const c = rgba(getComputedStyle(node).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255]; };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility() || node.closest('script, style, option, :disabled')) continue;
    const style = getComputedStyle(node);
    if (style.fontSize === '0px') continue;
    const [a, b] = [light(rgba(node.closest('svg') ? style.fill : style.color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${walk.currentNode.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""  # noqa: E501


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(reports, news, theme):
    record = replace(news[0], metrics=None, missing=["Something is missing."])
    page = reports.open(reports.write(record), color_scheme=theme)
    for key in ("Shift+K", "d", "r", "k"):
        page.keyboard.press(key)
    assert page.evaluate(CONTRASTS) == []


def test_every_control_has_a_name(page):
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, [role=slider], [role=img], [tabindex]')]"
        ".filter(node => !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby')"
        " || node.labels?.length || node.textContent.trim())).map(node => node.outerHTML)"
    )
    assert nameless == []


@pytest.mark.parametrize("record", [lambda: news_record(rows=120), many_classes_record, hostile_record])
def test_a_phone_never_scrolls_sideways(reports, record):
    page = reports.open(reports.write(record()), viewport={"width": 375, "height": 812}, has_touch=True)
    assert overflow(page) == 0
    for element in page.locator("details > summary").all():
        element.click()
    page.tap("#body tr >> nth=2")
    before = page.locator("#inspector").bounding_box()["y"]
    page.tap("#drop")
    assert page.locator("#inspector").bounding_box()["y"] == pytest.approx(before, abs=2)  # it stays in place
    assert overflow(page) == 0
    assert table(page)[2][3] == "✕ drop"
    assert page.locator("#given").is_visible()


def test_an_unfinished_run_shows_what_there_is(reports):
    record = small_record(metrics=None, audit=None, missing=["There is no label_issues.csv yet."])
    page = reports.open(reports.write(record))
    assert page.locator("#unfinished").is_visible()
    assert "label_issues.csv" in page.inner_text("#missing")
    assert page.inner_text("#accuracy-chart .readout").startswith("Epoch 3:")
    assert page.locator("#rows").count() == 0


def test_few_epochs(reports):
    context = reports.context()
    for epochs in ([], [{"epoch": 1}], [{"epoch": 1, "train_loss": float("nan")}], epochs_of(1, classes=5)):
        page = reports.open(reports.write(small_record(epochs=epochs, metrics=metrics_of(1))), context)
        assert page.locator("#body tr").count() > 0
        if epochs:
            assert page.inner_text("#epoch-name") == "1 of 1 (selected)"


def test_seventy_seven_classes(reports):
    page = reports.open(reports.write(many_classes_record()))
    assert page.locator("#heat tbody td").count() == 77 * 77
    assert page.locator("#gates-classes li").count() == 77
    assert page.locator("#new-label option").count() == 78
