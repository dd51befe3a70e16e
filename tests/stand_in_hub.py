"""A hub on this machine: it answers what huggingface_hub asks when a repository is made and filled."""

import base64
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest


@dataclass
class Hub:
    """What was sent to it.

    Attributes:
        token: The one that it knows.
        public: Repositories that are public whatever is asked for.
        repositories: What was asked for when a repository was made, by its name.
        files: Content of the files of all commits, by their names.
        bodies: All that was sent.
    """

    token: str = "hf_stand_in"
    public: tuple[str, ...] = ()
    repositories: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    bodies: list = field(default_factory=list)
    url: str = ""

    def answer(self, method, path, body):
        name = path.removeprefix("/api/models/")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = (
                asked["name"] if "organization" not in asked else f"{asked['organization']}/{asked['name']}"
            )
            self.repositories[name] = asked
            return {"url": f"{self.url}/{name}", "name": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            }
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.url}/{name.partition('/commit/')[0]}/commit/{'0' * 40}"
            return {"commitUrl": url, "commitOid": "0" * 40}
        if method == "GET" and name in self.repositories:
            private = is_private(self.repositories[name]) and name not in self.public
            return {"id": name, "private": private, "siblings": [], "tags": []}
        return None


def is_private(asked):
    # the word of newer releases of huggingface_hub, and of older ones
    return asked.get("visibility") == "private" or asked.get("private") is True


@pytest.fixture
def hub(monkeypatch):
    """The hub, which huggingface_hub takes for the real one."""
    made = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _do(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            made.bodies.append(body)
            known = self.headers.get("Authorization") == f"Bearer {made.token}"
            said = made.answer(self.command, self.path.partition("?")[0], body) if known else None
            content = json.dumps(said or {"error": "Not for you"}).encode()
            self.send_response(200 if said is not None else 404 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _do  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    # first: it remembers the hub as it is imported
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", made.url)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.url)
    # newer releases keep the one that another test may have made
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", made.token)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()
