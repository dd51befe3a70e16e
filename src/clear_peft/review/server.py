"""The page of a review, served to one browser on this machine."""

import hmac
import json
import secrets
import threading
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from clear_peft.errors import InputError
from clear_peft.report.page.embedding import showable
from clear_peft.review.session import Review

_HOST = "127.0.0.1"
_LARGEST_BODY = 1 << 16
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS = {
    "/": ("clear_peft.review", "page/page.html", "text/html"),
    "/review.js": ("clear_peft.review", "page/review.js", "text/javascript"),
    "/review.css": ("clear_peft.review", "page/review.css", "text/css"),
    "/base.css": ("clear_peft.report.page", "templates/base.css", "text/css"),
}
# no other site can send it without asking first, and we answer no such question
_OURS = "X-Clear-Peft"


class ReviewServer(ThreadingHTTPServer):
    """Serves a review on the loopback address, to whoever has its link.

    The link holds a random token. The first request changes it into a cookie. Requests without either, or to
    another host name, are refused.

    Args:
        review: The review.
        port: Port, 0 for a free one.

    Raises:
        InputError: If the port is taken.
    """

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        self.review, self.token, self.lock = review, secrets.token_urlsafe(24), threading.Lock()
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"Cannot listen on port {port}: {reason}; give another --port.") from error

    @property
    def url(self) -> str:
        """The link to open."""
        return f"http://{_HOST}:{self.server_port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """Name of the cookie: browsers share cookies between the ports of a host."""
        return f"clear_peft_{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version, sys_version = "clear-peft", ""

    def do_GET(self) -> None:
        if not self._expected_host():
            return self._refuse(HTTPStatus.FORBIDDEN)
        address = urlsplit(self.path)
        token = parse_qs(address.query).get("token", [""])[0]
        if address.path == "/" and self._matches(token):
            self.send_response(HTTPStatus.SEE_OTHER)
            self.send_header("Location", "/")
            self.send_header("Set-Cookie", f"{self.server.cookie}={token}; HttpOnly; SameSite=Strict; Path=/")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if not self._known():
            return self._refuse(HTTPStatus.FORBIDDEN)
        if address.path == "/api/state":
            with self.server.lock:
                return self._send_json(self.server.review.state())
        if address.path not in _ASSETS:
            return self._refuse(HTTPStatus.NOT_FOUND)
        package, name, kind = _ASSETS[address.path]
        return self._send(files(package).joinpath(name).read_bytes(), kind)

    def do_POST(self) -> None:
        if not (self._expected_host() and self._known() and self.headers.get(_OURS)):
            return self._refuse(HTTPStatus.FORBIDDEN)
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _LARGEST_BODY:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            asked = json.loads(self.rfile.read(int(length)) or b"{}")
            with self.server.lock:
                answered = self._act(self.path, asked)
        except (InputError, OSError) as error:
            return self._send_json({"error": showable(str(error))}, HTTPStatus.BAD_REQUEST)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self._refuse(HTTPStatus.BAD_REQUEST)
        if answered is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        self._send_json(answered)
        if self.path == "/api/finish":
            threading.Thread(target=self.server.shutdown, daemon=True).start()
        return None

    def _act(self, path: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        review = self.server.review
        if path == "/api/answer":
            label = asked.get("label")
            review.answer(_whole(asked["row"]), str(asked["action"]), None if label is None else str(label))
            return {}
        if path == "/api/undo":
            return {"row": review.undo()}
        if path == "/api/apply":
            return {"rows": review.apply(_whole(asked["pattern"]))}
        if path == "/api/judge":
            review.judge()
            return review.state()
        return {} if path == "/api/finish" else None

    def _expected_host(self) -> bool:
        """Whether the browser means this machine: a foreign name could point here, too."""
        return self.headers.get("Host") in {
            f"{name}:{self.server.server_port}" for name in (_HOST, "localhost")
        }

    def _known(self) -> bool:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return False
        return cookie is not None and self._matches(cookie.value)

    def _matches(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.server.token.encode())

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
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(f"{status.value} {status.phrase}\n".encode(), "text/plain", status)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as the base class names it)
        """Say nothing: the terminal is for the person who reviews."""


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value
