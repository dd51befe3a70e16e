"""The page of a review, served to one browser on this machine."""

import hmac
import json
import os
import secrets
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from clear_peft.errors import InputError
from clear_peft.report.page.embedding import showable
from clear_peft.review.session import Review

_HOST = "127.0.0.1"
_LARGEST_BODY = 1 << 16
_SECONDS = 60
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS = {
    "": ("clear_peft.review", "page/page.html", "text/html"),
    "review.js": ("clear_peft.review", "page/review.js", "text/javascript"),
    "review.css": ("clear_peft.review", "page/review.css", "text/css"),
    "base.css": ("clear_peft.report.page", "templates/base.css", "text/css"),
}
# no other site can send it without asking first, and we answer no such question
_OURS = "X-Clear-Peft"


class ReviewServer(ThreadingHTTPServer):
    """Serves a review on the loopback address, to whoever has its link.

    The link holds a random token. The first request changes it into a cookie. Requests without either, or to
    another host name, are refused. Browsers send cookies to all ports of a host, and some may belong to other
    users: this one belongs to a path that they cannot know.

    Attributes:
        review: The review.
        token: Of the link.
        home: The path that all of the page lies below, with a slash at its end.
        lock: Held while the review is read or changed.

    Args:
        review: The review.
        port: Port, 0 for a free one.

    Raises:
        InputError: If the port is taken.
    """

    daemon_threads = True
    # Windows would let another program listen on our port
    allow_reuse_address = os.name == "posix"

    def __init__(self, review: Review, port: int = 0) -> None:
        self.review, self.token, self.lock = review, secrets.token_urlsafe(24), threading.Lock()
        self.home = f"/{secrets.token_urlsafe(12)}/"
        self._once: dict[str, None] = {}
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"Cannot listen on port {port}: {reason}; give another --port.") from error

    @property
    def url(self) -> str:
        """The link to open."""
        return self._link(self.token)

    def url_for_once(self) -> str:
        """A link that works once: other users see with what a browser was started."""
        token = secrets.token_urlsafe(24)
        self._once[token] = None
        return self._link(token)

    def lets_in(self, token: str) -> bool:
        """Whether the token is that of a link."""
        # taken out in one step: of two requests at a time one gets in
        return self.is_token(token) or self._once.pop(token, self) is None

    def is_token(self, token: str) -> bool:
        """Whether it is the token of the link and the cookie."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _link(self, token: str) -> str:
        return f"http://{_HOST}:{self.server_port}/?token={token}"

    @property
    def cookie(self) -> str:
        """Name of the cookie: browsers share cookies between the ports of a host."""
        return f"clear_peft_{self.server_port}"

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Say nothing of a browser that did not wait for its answer."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version, sys_version = "clear-peft", ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        if not self._expected_host():
            return self._refuse(HTTPStatus.FORBIDDEN)
        try:
            address = urlsplit(self.path)
            token = parse_qs(address.query).get("token", [""])[0]
        except ValueError:
            return self._refuse(HTTPStatus.BAD_REQUEST)
        server = self.server
        if address.path == "/" and server.lets_in(token):
            self.send_response(HTTPStatus.SEE_OTHER)
            self.send_header("Location", server.home)
            self.send_header(
                "Set-Cookie", f"{server.cookie}={server.token}; HttpOnly; SameSite=Strict; Path={server.home}"
            )
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if not self._known():
            return self._refuse(HTTPStatus.FORBIDDEN)
        path = self._below_home(address.path)
        if path == "api/state":
            with server.lock:
                state = server.review.state()
            return self._send_json(state)
        if path not in _ASSETS:
            return self._refuse(HTTPStatus.NOT_FOUND)
        package, name, kind = _ASSETS[path]
        return self._send(files(package).joinpath(name).read_bytes(), kind)

    def do_POST(self) -> None:
        if not (self._expected_host() and self._known() and self.headers.get(_OURS)):
            return self._refuse(HTTPStatus.FORBIDDEN)
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 9) or int(length) > _LARGEST_BODY:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        path = self._below_home(self.path)
        try:
            asked = json.loads(self.rfile.read(int(length)) or b"{}")
            with self.server.lock:
                answered = self._act(path, asked)
        except (InputError, OSError) as error:
            return self._send_json({"error": showable(str(error))}, HTTPStatus.BAD_REQUEST)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self._refuse(HTTPStatus.BAD_REQUEST)
        if answered is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        self._send_json(answered)
        if path == "api/finish":
            threading.Thread(target=self.server.shutdown, daemon=True).start()
        return None

    def _act(self, path: str | None, asked: dict[str, Any]) -> dict[str, Any] | None:
        review = self.server.review
        if path == "api/answer":
            label = asked.get("label")
            review.answer(_whole(asked["row"]), str(asked["action"]), None if label is None else str(label))
            return {}
        if path == "api/undo":
            undone = review.undo()
            row, rows = (None, 0) if undone is None else undone
            return {"row": row, "rows": rows, "state": review.state()}
        if path == "api/apply":
            return {"rows": review.apply(_whole(asked["pattern"]))}
        if path == "api/judge":
            review.judge()
            return review.state()
        return {} if path == "api/finish" else None

    def _expected_host(self) -> bool:
        """Whether the browser means this machine: a foreign name could point here, too."""
        return self.headers.get("Host") in {
            f"{name}:{self.server.server_port}" for name in (_HOST, "localhost")
        }

    def _below_home(self, path: str) -> str | None:
        home = self.server.home
        return path.removeprefix(home) if path.startswith(home) else None

    def _known(self) -> bool:
        # by hand: SimpleCookie gives up on all if another program of this host has set a strange one
        cookies = (pair.strip().partition("=") for pair in self.headers.get("Cookie", "").split(";"))
        return any(name == self.server.cookie and self.server.is_token(value) for name, _, value in cookies)

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        # only ASCII: half a surrogate pair becomes an escape
        self._send(json.dumps(value, allow_nan=False).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus) -> None:
        hint = ": open the link that clear-peft review printed" if status == HTTPStatus.FORBIDDEN else ""
        self._send(f"{status.value} {status.phrase}{hint}\n".encode(), "text/plain", status)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as the base class names it)
        """Say nothing: the terminal is for the person who reviews."""


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value
