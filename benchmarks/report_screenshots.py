"""Pictures of a report, for README and docs.

    clear-peft demo
    clear-peft scan --data clear-peft-demo/data/train.csv
    python benchmarks/report_screenshots.py --run scan-train [--output docs/images]

Writes report-light.png and report-dark.png (rows being worked through), report-overview.png (the figures and
the classes that are confused) and report-phone.png. With --table, a table with a column clean_label,
review.png too: the page of clear-peft review after 20 right answers. Needs Playwright, Chromium and Pillow.
"""

import argparse
import sys
import tempfile
import threading
from pathlib import Path

import pandas as pd
from PIL import Image

ROOT = Path(__file__).parent.parent
LAPTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}


def main():
    """Open the report and take its pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder that holds a report.html")
    parser.add_argument("--table", type=Path, help="table to review")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import Opener, started_browser

    options.output.mkdir(parents=True, exist_ok=True)
    with started_browser() as browser, tempfile.TemporaryDirectory() as folder:
        opener = Opener(browser, Path(folder))
        path = (options.run / "report.html").resolve()
        for name, (theme, viewport, prepare) in PICTURES.items():
            page = opener.open(path, at="overview", color_scheme=theme, viewport=viewport)
            page.wait_for_timeout(300)
            prepare(page)
            target = options.output / f"report-{name}.png"
            page.screenshot(path=target)
            _in_256_colours(target)
            print(f"{target}: {target.stat().st_size / 1000:.0f} kB")
        opener.close()
        if options.table is not None:
            _review(browser, options.table, Path(folder), options.output / "review.png")


def _review(browser, table, folder, target):
    """The page that asks, after a batch of right answers."""
    from clear_peft.pipeline.progress import Silent
    from clear_peft.pipeline.scan_options import ScanOptions
    from clear_peft.review import Review, ReviewServer

    frame = pd.read_csv(table)
    review = Review(ScanOptions(data=str(table), output=str(folder / f"scan-{table.stem}")), Silent())
    for one in review.state()["batch"]:
        review.answer(one["row"], "relabel", str(frame["clean_label"][one["row"]]))
    review.judge()
    with ReviewServer(review) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(color_scheme="light", viewport=LAPTOP)
        page.goto(server.url)
        page.wait_for_selector("#answers button")
        page.screenshot(path=target)
        page.close()
        server.shutdown()
    _in_256_colours(target)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


def _in_256_colours(path):
    """A third of the size, and hardly a difference to see."""
    with Image.open(path) as picture:
        # median cut, the default, would take a small green word for blue
        coverage = Image.Quantize.MAXCOVERAGE
        reduced = picture.convert("RGB").quantize(256, coverage, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def _overview(page):
    """From the top to the classes that are confused."""
    bottom = page.evaluate("document.getElementById('pairs').getBoundingClientRect().bottom + scrollY")
    page.set_viewport_size({"width": LAPTOP["width"], "height": round(bottom) + 24})
    page.wait_for_timeout(300)


def _working(page):
    """A few rows decided."""
    page.evaluate("document.getElementById('rows').scrollIntoView()")
    for key in ("r", "r", "Shift+K", "r", "d", "r"):
        page.keyboard.press(key)
    page.evaluate("document.getElementById('rows').scrollIntoView()")


def _on_a_phone(page):
    _working(page)
    page.evaluate("document.getElementById('inspector').scrollIntoView()")


PICTURES = {
    "light": ("light", LAPTOP, _working),
    "dark": ("dark", LAPTOP, _working),
    "overview": ("light", LAPTOP, _overview),
    "phone": ("light", PHONE, _on_a_phone),
}

if __name__ == "__main__":
    main()
