"""A run folder from a stranger runs no code, and nothing outside of it is read or written."""

import os
from pathlib import Path

import pytest

from clear_peft.errors import InputError
from clear_peft.files import atomic_write
from clear_peft.pipeline import evaluate, predict, train
from clear_peft.run_folder import RunConfig

LINKS = {
    "report.html": "secret.txt",
    "label_issues.csv": "secret.txt",
    "metrics.json": "not-there-yet",
    "checkpoint-21": "folder",
    "checkpoint-21/optimizer.pt": "secret.txt",
    "adapter": "folder",
    ".adapter.part": "folder",
    ".earlier": "folder",
    "config.yaml": "secret.txt",
}


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("how", ["resume", "overwrite", "predict"])
def test_no_link_leads_out(scene, tmp_path, name, how):
    here = scene(finished=how == "predict")
    config = RunConfig.load(here.run)
    here.link(name, LINKS[name])
    ways = {
        "resume": lambda: train(config, resume=True),
        "overwrite": lambda: train(config, overwrite=True),
        "predict": lambda: predict(here.run, here.data, str(tmp_path / "out.csv")),
    }
    with pytest.raises(InputError, match="symbolic link"):
        ways[how]()
    assert here.unharmed()


def test_a_link_inside_the_folder_and_one_to_the_folder_are_followed(scene, tmp_path):
    here = scene(finished=True)
    (here.run / "latest").symlink_to(here.checkpoint)
    (tmp_path / "elsewhere").symlink_to(here.run)
    assert evaluate(tmp_path / "elsewhere", here.data)["examples"] == 60


def test_a_temporary_file_is_not_written_through_a_link(tmp_path):
    (tmp_path / "secret.txt").write_text("precious")
    (tmp_path / f".a.{os.getpid()}.tmp").symlink_to(tmp_path / "secret.txt")
    atomic_write(tmp_path / "a", "x")
    assert (tmp_path / "secret.txt").read_text() == "precious"
    assert (tmp_path / "a").read_text() == "x"


def _plant_code(here):
    """A tokenizer with code of its own, and a config.yaml that says that it may run."""
    (here.run / "adapter" / "planted.py").write_text(
        f"import pathlib\npathlib.Path({str(here.proof)!r}).touch()\n"
        "from transformers import PreTrainedTokenizerFast\nclass T(PreTrainedTokenizerFast): pass\n"
    )
    auto_map = {"AutoTokenizer": ["planted.T", "planted.T"]}
    here.set_json("adapter/tokenizer_config.json", auto_map=auto_map, tokenizer_class="T")
    here.set_config(trust_remote_code=True)


@pytest.fixture
def _dynamic_modules(tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.mark.usefixtures("_dynamic_modules")
def test_the_folder_does_not_say_whether_its_code_is_trusted(scene, tmp_path):
    here = scene(finished=True)
    _plant_code(here)
    with pytest.raises(InputError, match="code"):
        predict(here.run, here.data, str(tmp_path / "out.csv"))
    with pytest.raises(InputError, match="code"):
        evaluate(here.run, here.data)
    assert here.unharmed()
    assert not (tmp_path / "out.csv").exists()


def test_a_file_of_options_does_not_say_so_either(scene, capsys, monkeypatch):
    from clear_peft.cli import main

    here = scene(finished=False)
    here.set_config(trust_remote_code=True)
    words = ["clear-peft", "train", "--config", str(here.run / "config.yaml"), "--resume"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "add --trust-remote-code" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["output_dir", "push_to_hub", "report_to", "accelerator_config", "hub_token", "trackio_space_id"],
)
def test_options_of_the_trainer_do_not_lead_out(scene, name):
    here = scene(finished=False)
    here.set_config(training={name: str(here.outside / "folder")})
    with pytest.raises(InputError, match=f"training cannot set {name}"):
        here.resume()
    assert here.unharmed()


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {proof}']",
        "{{output: !!python/object/new:pathlib.Path ['{proof}']}}",
        "a: &a [*a]",
        "&a {{*a : 1}}",
        "epochs: " + "[" * 20_000,
        "{{a: " * 20_000,
    ],
)
def test_yaml_runs_nothing(scene, text):
    here = scene(finished=False)
    config = Path(here.run / "config.yaml")
    config.write_text(text.format(proof=here.proof))
    with pytest.raises(InputError):
        RunConfig.load(here.run)
    assert here.unharmed()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1, 2, 3]",
        "[" * 200_000,
        "[" + "1" * 5000 + "]",
        '["\\ud800", "b", "c"]',
        '["a", "a", "c"]',
        "[]",
    ],
)
def test_labels_that_are_none(scene, text):
    here = scene(finished=True)
    (here.run / "adapter" / "labels.json").write_text(text)
    with pytest.raises(InputError):
        evaluate(here.run, here.data)


def test_too_many_labels(scene, tmp_path):
    here = scene(finished=True)
    (here.run / "adapter" / "labels.json").write_text(str([str(i) for i in range(50_000)]).replace("'", '"'))
    with pytest.raises(InputError, match="does not fit"):
        predict(here.run, here.data, str(tmp_path / "out.csv"))
