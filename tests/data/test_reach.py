"""A hub that refuses connections, never answers, or answers."""

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import datasets
import pytest
from huggingface_hub import close_session, constants, is_offline_mode

from clear_peft.data import reach, read_table
from clear_peft.errors import InputError
from clear_peft.pipeline.models import load_encoder, load_tokenizer


@pytest.fixture
def online(monkeypatch):
    """Lets the hub's clients go online, to the given port of this machine."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(reach, "_SECONDS", 0.5)
    yield lambda port: monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    close_session()


@pytest.fixture(params=["refuses", "never answers"])
def silent(request, online):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if request.param == "never answers":
            server.listen()
        online(server.getsockname()[1])
        yield


@pytest.mark.parametrize("load", [load_tokenizer, load_encoder, read_table])
def test_what_is_nowhere_is_refused_without_retries(silent, load, caplog):
    with pytest.raises(InputError, match=r"127.0.0.1:\d+ does not answer, and 'no-such-owner/no-such-name'"):
        load("no-such-owner/no-such-name")
    assert "Retry" not in caplog.text
    assert not is_offline_mode()
    assert not datasets.config.HF_HUB_OFFLINE


def test_without_a_hub_the_cache_alone_is_asked(silent):
    with reach.hub_or_cache("owner/name"):
        assert is_offline_mode()
        assert datasets.config.HF_HUB_OFFLINE
    with pytest.raises(InputError, match="as it was"), reach.hub_or_cache("owner/name"):
        raise InputError("as it was")


def test_any_answer_of_the_hub_is_one(online):
    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        online(server.server_port)
        with reach.hub_or_cache("owner/name"):
            assert not is_offline_mode()
        server.shutdown()


def test_the_hub_is_not_asked_of_a_folder(online, monkeypatch, tmp_path):
    monkeypatch.setattr(reach, "_answers", lambda: pytest.fail("asked"))
    for name in (str(tmp_path), "./no-such-folder", "~/no-such-folder"):
        with reach.hub_or_cache(name):
            assert not is_offline_mode()
