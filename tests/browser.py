"""Reports in a real browser: opened from a file, watched for errors, closed again."""

import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clear_peft.report import render

PER_PAGE = 50
KEY = "JSON.parse(document.getElementById('chart-data').textContent).key"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def lacking(what):
    """Skip, or fail where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}, and CI=true")
    pytest.skip(what)


@contextmanager
def started_browser():
    """A running browser, without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        lacking("there is no Chromium")
    with sync_playwright() as playwright:
        # root may not have a sandbox
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class _Handler(SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Cache-Control", "no-store")  # tests write a report anew under its name
        super().end_headers()

    def log_message(self, *_):
        pass


class Opener:
    """Opens reports and remembers what went wrong in them.

    They are served, since Chromium loses every twentieth write to the localStorage of a page from a file.
    """

    def __init__(self, browser, folder):
        self.browser, self.folder, self.contexts, self.complaints = browser, folder, [], []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/"

    def context(self, **options):
        context = self.browser.new_context(**{"reduced_motion": "reduce", **options})
        context.set_default_timeout(15_000)
        self.contexts.append(context)
        return context

    def write(self, record_or_html, name="report.html"):
        html = record_or_html if isinstance(record_or_html, str) else render(record_or_html)
        path = self.folder / name
        path.write_text(html, encoding="utf-8", newline="")
        return path

    def open(self, path, context=None, *, at="rows", script=None, from_file=False, **options):
        page = (context or self.context(**options)).new_page()
        page.on("console", lambda message: self.complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        page.on("request", self._watch)
        if script:
            page.add_init_script(script)
        page.goto(f"{path.as_uri() if from_file else self.address + path.name}#{at}")
        return page

    def _watch(self, request):
        if not request.url.startswith("blob:") and not request.is_navigation_request():
            self.complaints.append(f"request: {request.url}")

    def close(self):
        for context in self.contexts:
            context.close()
        self.server.shutdown()
        self.server.server_close()
        assert self.complaints == []


def listed(issues):
    return issues[issues["is_label_issue"]].reset_index(drop=True)


def table(page):
    """Row number, given and predicted label, and decision of each row that the table shows."""
    lines = page.eval_on_selector_all(
        "#body tr", "lines => lines.map(line => [...line.cells].map(cell => cell.textContent))"
    )
    shown = [
        [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in cells] for cells in lines if len(cells) == 6
    ]
    return [(int(cells[0][1:]), cells[2], cells[3], cells[5]) for cells in shown]


def row_numbers(page):
    return [line[0] for line in table(page)]


def current(page):
    return int(page.inner_text("#inspector-title").removeprefix("Row "))


def progress(page):
    return page.inner_text("#progress-text")


def search(page, words):
    page.fill("#search", words)
    page.wait_for_timeout(200)  # typing is waited for


def downloaded(page, folder):
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "corrections.csv"
    path = folder / "corrections.csv"
    waiting.value.save_as(path)
    return path


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
