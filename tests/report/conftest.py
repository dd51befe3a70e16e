"""Reports that are open in a browser."""

import pytest
from records import news_record

from browser import Opener, started_browser
from clear_peft.report import render


@pytest.fixture(scope="module")
def browser():
    with started_browser() as running:
        yield running


@pytest.fixture
def reports(browser, tmp_path):
    opener = Opener(browser, tmp_path)
    yield opener
    opener.close()


@pytest.fixture(scope="module")
def news():
    record = news_record(rows=400)
    return record, render(record)


@pytest.fixture(scope="module")
def window(browser, news, tmp_path_factory):
    """A new window costs most of a test's time, so those that need no other share one."""
    opener = Opener(browser, tmp_path_factory.mktemp("shared"))
    yield opener, opener.open(opener.write(news[1]))
    opener.close()


@pytest.fixture
def page(window):
    opener, page = window
    page.evaluate("localStorage.clear()")
    page.reload()
    page.evaluate("document.getElementById('rows').scrollIntoView()")
    yield page
    assert opener.complaints == []


@pytest.fixture
def issues(news):
    return news[0].audit.issues
