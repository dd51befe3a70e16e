"""Pictures of the report, for the docs.

    clear-peft demo
    python benchmarks/report_screenshots.py --run clear-peft-demo/clear [--output docs/images]

Writes report-light.png (the figures on top), report-dark.png (rows being worked through) and
report-phone.png. Needs Playwright, Chromium and Pillow.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
LAPTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}


def main():
    """Open the report and take its picture three times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder that holds a report.html")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "report"))
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


def _in_256_colours(path):
    """A third of the size, and hardly a difference to see."""
    with Image.open(path) as picture:
        # median cut, the default, would take a small green word for blue
        coverage = Image.Quantize.MAXCOVERAGE
        reduced = picture.convert("RGB").quantize(256, coverage, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def _overview(page):
    """As much of the top as shows the charts."""
    bottom = page.evaluate("document.getElementById('histogram').getBoundingClientRect().bottom + scrollY")
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
    "light": ("light", LAPTOP, _overview),
    "dark": ("dark", LAPTOP, _working),
    "phone": ("light", PHONE, _on_a_phone),
}

if __name__ == "__main__":
    main()
