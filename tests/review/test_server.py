"""The page in a real browser, and whom the server refuses."""

import http.client
import json
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from tables import Silent, written_table

from browser import started_browser
from clear_peft.errors import InputError
from clear_peft.pipeline.scan import ScanOptions
from clear_peft.review import Review, ReviewServer


@contextmanager
def _served(folder, batch_size=6):
    options = ScanOptions(
        data=str(folder / "table.csv"), embeddings=str(folder / "features.npy"), output=str(folder / "scan")
    )
    with ReviewServer(Review(options, Silent(), batch_size=batch_size)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


@pytest.fixture
def frame(tmp_path):
    return written_table(tmp_path)


@pytest.fixture
def server(tmp_path, frame):
    with _served(tmp_path) as running:
        yield running


def _ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    said = reply.read()
    connection.close()
    return reply, said


def _cookie(server):
    return {"Cookie": f"{server.cookie}={server.token}"}


def test_the_link_gives_a_cookie_and_hides_the_token(server):
    assert urlsplit(server.url).hostname == "127.0.0.1"
    reply, _ = _ask(server, "GET", urlsplit(server.url).path + "?" + urlsplit(server.url).query)
    assert (reply.status, reply.headers["Location"]) == (303, "/")
    cookie = reply.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


@pytest.mark.parametrize("path", ["/", "/?token=wrong", "/api/state", "/review.js", "/%2e%2e/etc/passwd"])
def test_whoever_has_no_token_gets_nothing(server, path):
    reply, said = _ask(server, "GET", path)
    assert reply.status == 403
    assert said == b"403 Forbidden\n"
    reply, _ = _ask(server, "GET", path, Cookie=f"{server.cookie}=wrong")
    assert reply.status == 403


def test_other_names_of_this_host_are_refused(server):
    reply, _ = _ask(server, "GET", "/api/state", Host="evil.example", **_cookie(server))
    assert reply.status == 403
    reply, _ = _ask(server, "GET", "/api/state", Host=f"localhost:{server.server_port}", **_cookie(server))
    assert reply.status == 200


def test_answers_of_another_site_are_refused(server):
    body = json.dumps({"row": 0, "action": "keep"})
    reply, _ = _ask(server, "POST", "/api/answer", body, **_cookie(server))
    assert reply.status == 403
    assert (server.review.verified < 0).all()
    reply, _ = _ask(server, "POST", "/api/answer", body, **_cookie(server), **{"X-Clear-Peft": "1"})
    assert reply.status == 200
    assert server.review.verified[0] >= 0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/answer", "{", 400),
        ("/api/answer", "[]", 400),
        ("/api/answer", '{"row": "x", "action": "keep"}', 400),
        ("/api/answer", '{"row": 1e400, "action": "keep"}', 400),
        ("/api/answer", '{"row": 9999, "action": "keep"}', 400),
        ("/api/apply", '{"pattern": 7}', 400),
        ("/api/answer", "[" * 60_000, 400),
        ("/api/answer", "x" * 70_000, 413),
        ("/api/nothing", "{}", 404),
    ],
)
def test_nonsense_is_refused_and_the_server_goes_on(server, path, body, status):
    reply, said = _ask(server, "POST", path, body, **_cookie(server), **{"X-Clear-Peft": "1"})
    assert reply.status == status
    assert b"Traceback" not in said
    assert (server.review.verified < 0).all()
    assert _ask(server, "GET", "/api/state", **_cookie(server))[0].status == 200


def test_a_port_that_is_taken_is_refused(server):
    with pytest.raises(InputError, match="give another --port"):
        ReviewServer(server.review, server.server_port)


def test_a_round_in_the_browser(tmp_path, frame, server):
    with started_browser() as browser:
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(15_000)
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: complaints.append(request.url) if "127.0.0.1" not in request.url else None,
        )
        page.goto(server.url)
        page.wait_for_selector("#answers button")
        assert "token" not in page.url
        rows = [one["row"] for one in server.review.state()["batch"]]

        page.keyboard.press("k")
        page.wait_for_selector("#progress-text:text-is('2 of 6')")
        assert server.review.verified[rows[0]] == server.review.given[rows[0]]
        page.keyboard.press("u")
        page.wait_for_selector("#progress-text:text-is('1 of 6')")
        assert (server.review.verified < 0).all()

        for place, row in enumerate(rows):
            assert page.inner_text("#text") == frame["text"][row]
            assert page.inner_text("#given") == frame["label"][row]
            if frame["label"][row] == frame["truth"][row]:
                page.click("#answers button.primary")
            elif place % 2:
                page.fill("#other", frame["truth"][row].upper())
                page.press("#other", "Enter")
            else:
                page.click(f"#answers button:has-text('No, {frame['truth'][row]}')")
            done = place == len(rows) - 1
            page.wait_for_selector("#done" if done else f"#progress-text:text-is('{place + 2} of 6')")
        verified = server.review.verified
        names = server.review.names.names
        assert [names[label] for label in verified[rows]] == frame["truth"][rows].tolist()

        assert page.is_visible("#done")
        page.reload()  # the cookie holds, and so do the answers
        page.wait_for_selector("#done:not([hidden])")
        page.keyboard.press("Enter")
        page.wait_for_selector("#progress-text:text-is('1 of 6')")
        assert "6 of 150" in page.inner_text("#figures")

        page.click("#finish")
        page.wait_for_selector("#end:not([hidden])")
        assert page.inner_text("#end-path") == str(server.review.path)
        assert complaints == []


def test_text_of_the_table_is_only_text(tmp_path):
    frame = written_table(tmp_path)
    frame["text"] = [f"<img src=x onerror=alert({i})>" for i in range(len(frame))]
    frame["label"] = frame["label"].replace("person", "<script>alert(1)</script>")
    frame.to_csv(tmp_path / "table.csv", index=False)
    with _served(tmp_path) as server, started_browser() as browser:
        page = browser.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
        page.goto(server.url)
        page.wait_for_selector("#answers button")
        assert page.inner_text("#text").startswith("<img src=x")
        assert page.locator("main img").count() == page.locator("main script").count() == 0
        assert complaints == []
