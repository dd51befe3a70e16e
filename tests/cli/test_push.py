"""A run on the hub: what goes there, and what stays."""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import pytest
import transformers

from clear_peft.pipeline.push import TOKENIZER_FILES
from stand_in_hub import is_private


@pytest.fixture
def run(finished):
    return finished("clear", "lora")


def test_adapter_tokenizer_and_card_go_and_nothing_else(cli, hub, run, place):
    (run / "adapter" / "corrections.csv").write_text("row,text\n0,secret\n")
    try:
        done = cli("push", "--run", run, "--repo-id", "someone/tickets", "--private", "--format", "json")
    finally:
        (run / "adapter" / "corrections.csv").unlink()
    assert done.status == 0, done.err
    names = [
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "labels.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    assert json.loads(done.out) == {"url": f"{hub.url}/someone/tickets", "files": names}
    assert is_private(hub.repositories["someone/tickets"])
    assert sorted(hub.files) == names
    for name in set(names) - {"adapter_config.json"}:
        assert hub.files[name] == (run / "adapter" / name).read_bytes()
    sent = b"".join([*hub.bodies, *hub.files.values()])
    for text in pd.read_csv(place.train)["text"]:
        assert text.encode() not in sent
    # the base model is a folder of this machine
    assert place.model.encode() not in sent
    assert "adapter_config.json on the hub names none" in done.err
    assert "Not sent: 'corrections.csv', which no adapter" in done.err
    config = json.loads((run / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert json.loads(hub.files["adapter_config.json"]) == {**config, "base_model_name_or_path": None}


@pytest.mark.parametrize(("method", "peft"), [("clear", "adapter"), ("clear", "apt"), ("full", "lora")])
def test_other_formats_go_whole(cli, hub, finished, place, method, peft):
    run = finished(method, peft)
    done = cli("push", "--run", run, "--repo-id", "someone/tickets")
    assert done.status == 0
    assert sorted(hub.files) == sorted(entry.name for entry in (run / "adapter").iterdir())
    if peft in ("adapter", "apt"):
        config = "bottleneck_config.json" if peft == "adapter" else "apt_config.json"
        assert f"{config} on the hub names none" in done.err
        assert json.loads(hub.files[config])["base_model_name_or_path"] is None
    assert place.model.encode() not in b"".join(hub.files.values())


def test_all_files_of_every_tokenizer_go():
    folder = Path(transformers.__file__).parent / "models"
    names = set()
    for source in folder.glob("*/tokenization_*.py"):
        found = re.search(r"VOCAB_FILES_NAMES = \{(.*?)\}", source.read_text(encoding="utf-8"), re.DOTALL)
        names |= set(re.findall(r': "([^"]+)"', found[1])) if found else set()
    assert len(names) > 15
    assert [name for name in names if not any(fnmatch(name, known) for known in TOKENIZER_FILES)] == []


def test_a_public_repository_gets_nothing_thatis_private(cli, hub, run):
    hub.public = ("someone/tickets",)
    refused = cli("push", "--run", run, "--repo-id", "someone/tickets", "--private")
    assert refused.status == 2
    assert "there already, and public" in refused.err
    assert not hub.files


def test_without_a_token_it_is_one_sentence(cli, hub, run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    refused = cli("push", "--run", run, "--repo-id", "someone/tickets")
    assert refused.status == 2
    assert "There is no token of the hub: run `hf auth login`, or set HF_TOKEN." in refused.err
    assert not hub.bodies


def test_what_the_hub_refuses_is_one_sentence(cli, hub, run, monkeypatch):
    wrong = cli("push", "--run", run, "--repo-id", "some one/tickets")
    assert wrong.status == 2
    assert "Cannot push to 'some one/tickets' (" in wrong.err
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    refused = cli("push", "--run", run, "--repo-id", "someone/tickets")
    assert refused.status == 2
    assert "Cannot push to 'someone/tickets' (" in refused.err
    assert "401" in refused.err
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    gone = cli("push", "--run", run, "--repo-id", "someone/tickets")
    assert gone.status == 2
    assert "check the name, your token and the network" in gone.err
    assert not hub.files


def test_a_run_that_is_not_finished_is_refused(cli, hub, tmp_path):
    refused = cli("push", "--run", tmp_path, "--repo-id", "someone/tickets")
    assert refused.status == 2
    assert "no run folder" in refused.err
