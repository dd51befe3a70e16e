"""The page in a real browser, and whom the server refuses."""

import http.client
import json
import socket
import struct
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from tables import Silent, written_table

from browser import overflow, started_browser
from clear_peft.errors import InputError
from clear_peft.pipeline.scan_options import ScanOptions
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


def _post(server, path, body, **headers):
    """As the page does it."""
    headers = {**_cookie(server), "X-Clear-Peft": "1", **headers}
    return _ask(server, "POST", server.home + path.lstrip("/"), body, **headers)


def test_the_link_gives_a_cookie_and_hides_the_token(server):
    assert urlsplit(server.url).hostname == "127.0.0.1"
    reply, _ = _ask(server, "GET", urlsplit(server.url).path + "?" + urlsplit(server.url).query)
    assert (reply.status, reply.headers["Location"]) == (303, server.home)
    cookie = reply.headers["Set-Cookie"]
    # other programs of this host, whoever runs them, get the cookies of all paths that they can name
    assert f"Path={server.home}" in cookie
    assert len(server.home) > 16
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_the_link_that_a_browser_is_started_with_works_once(server):
    once = server.url_for_once().partition(str(server.server_port))[2]
    assert server.token not in once
    assert [_ask(server, "GET", once)[0].status for _ in range(2)] == [303, 403]
    assert [_ask(server, "GET", f"/?token={server.token}")[0].status for _ in range(2)] == [303, 303]


@pytest.mark.parametrize(
    "path", ["/", "/?token=wrong", "/~", "/~api/state", "/~review.js", "/%2e%2e/etc/passwd"]
)
def test_whoever_has_no_token_gets_nothing(server, path):
    path = path.replace("/~", server.home)
    reply, said = _ask(server, "GET", path)
    assert reply.status == 403
    assert said == b"403 Forbidden: open the link that clear-peft review printed\n"
    reply, _ = _ask(server, "GET", path, Cookie=f"{server.cookie}=wrong")
    assert reply.status == 403


def test_cookies_of_other_programs_of_this_host_are_no_obstacle(server):
    ours = f"{server.cookie}={server.token}"
    for cookies in (f'a={{"b": [1, 2]}}; {ours}', f"{server.cookie}=x; {ours}; c=\xfc"):
        assert _ask(server, "GET", f"{server.home}api/state", Cookie=cookies)[0].status == 200


def test_requests_that_are_none_are_refused_in_silence(server, capfd):
    host = f"127.0.0.1:{server.server_port}"
    assert _ask(server, "GET", "http://[", Host=host)[0].status == 400
    assert _post(server, "/api/judge", None, **{"Content-Length": "\xb2"})[0].status == 413
    for _ in range(3):  # who asks and does not wait
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.sendall(b"GET / HTTP/1.0\r\nHost: " + host.encode())
    assert _ask(server, "GET", f"{server.home}api/state", **_cookie(server))[0].status == 200
    assert capfd.readouterr().err == ""


def test_other_names_of_this_host_are_refused(server):
    for host, status in (("evil.example", 403), (f"localhost:{server.server_port}", 200)):
        reply, _ = _ask(server, "GET", f"{server.home}api/state", Host=host, **_cookie(server))
        assert reply.status == status


def test_answers_of_another_site_are_refused(server):
    body = json.dumps({"row": 0, "action": "keep"})
    reply, _ = _ask(server, "POST", f"{server.home}api/answer", body, **_cookie(server))
    assert reply.status == 403
    assert (server.review.verified < 0).all()
    reply, _ = _post(server, "/api/answer", body)
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
        ("/api/apply", '{"pattern": true}', 400),
        ("/api/answer", "[" * 60_000, 400),
        ("/api/answer", "x" * 70_000, 413),
        ("/api/nothing", "{}", 404),
    ],
)
def test_nonsense_is_refused_and_the_server_goes_on(server, path, body, status):
    reply, said = _post(server, path, body)
    assert reply.status == status
    assert b"Traceback" not in said
    assert (server.review.verified < 0).all()
    assert _ask(server, "GET", f"{server.home}api/state", **_cookie(server))[0].status == 200


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

        page.dblclick("#answers button.primary")  # the second click hits the button of the next row
        page.wait_for_selector("#progress-text:text-is('2 of 6')")
        page.keyboard.down("k")
        page.wait_for_selector("#progress-text:text-is('3 of 6')")
        page.keyboard.down("k")  # held down: the key repeats
        page.keyboard.up("k")
        page.focus("#list-title ~ .scroll")
        page.keyboard.press("d")  # meant for what has the focus
        page.focus("#undo")
        for place in (2, 1):
            page.keyboard.press("u")
            page.wait_for_selector(f"#progress-text:text-is('{place} of 6')")
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

        page.keyboard.press("u")  # of the batch before: it is asked for again
        page.wait_for_selector("#progress-text:text-is('1 of 7')")
        assert page.inner_text("#text") == frame["text"][rows[-1]]
        assert server.review.verified[rows[-1]] == -1
        page.keyboard.press("s")
        page.wait_for_selector("#progress-text:text-is('2 of 7')")
        page.fill("#other", "nobody")
        page.click("#other-form button")
        page.wait_for_selector("#notice:has-text('There is no label “nobody”')")
        page.set_viewport_size({"width": 390, "height": 800})
        assert overflow(page) == 0

        page.click("#finish")
        page.wait_for_selector("#end:not([hidden])")
        assert page.inner_text("#end-path") == str(server.review.path)
        page.keyboard.press("Enter")
        page.keyboard.press("k")
        assert page.is_hidden("#notice")
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


def test_a_length_beyond_all_numbers_is_refused(server):
    headers = {**_cookie(server), "X-Clear-Peft": "1", "Content-Length": "9" * 5000}
    reply, _ = _ask(server, "POST", f"{server.home}api/answer", None, **headers)
    assert reply.status == 413
