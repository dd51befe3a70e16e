"""The options of ``train`` are the fields of ``RunConfig``, on the command line and in a file."""

import pytest
import yaml
from typer.main import get_command

from clear_peft.cli.app import app
from clear_peft.run_folder.config import RunConfig, options

TOLD = {
    "text_column": ("body", "body"),
    "validation_fraction": ("0.25", 0.25),
    "test": ("t.csv", "t.csv"),
    "test_every_epoch": (None, True),
    "peft_options": ('{"r": 2}', {"r": 2}),
    "target_modules": ("query, value", ["query", "value"]),
    "training": ('{"max_gate_prob": 0.5}', {"max_gate_prob": 0.5}),
    "epochs": ("3", 3),
    "learning_rate": ("1e-3", 1e-3),
    "trust_remote_code": (None, True),
    "report_to": ("wandb,mlflow", ["wandb", "mlflow"]),
}
NEEDED = {"model": "m", "data": "d", "output": "o"}


@pytest.fixture
def told(cli, monkeypatch):
    """What ``train`` would run, or its sentence."""
    runs = []

    def stop(config, **_):
        runs.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("clear_peft.pipeline.commands.train", stop)

    def call(*words):
        end = cli("train", *words, "--format", "quiet")
        return runs.pop() if runs else end.err

    return call


def _words(values):
    return [
        word
        for name, value in values.items()
        for word in (f"--{name.replace('_', '-')}", value)
        if word is not None
    ]


def test_every_field_is_an_option():
    flags = {parameter.name for parameter in get_command(app).commands["train"].params}
    own = {"config", "resume", "overwrite", "format"}
    assert flags - own == {option.name for option in options()} == set(RunConfig.__dataclass_fields__)


def test_a_default_is_that_of_the_field(told):
    assert told(*_words(NEEDED)) == RunConfig(**NEEDED)


@pytest.mark.parametrize("name", TOLD)
def test_what_the_command_line_says(told, name):
    written, meant = TOLD[name]
    needed = {**NEEDED, "test": "t.csv"}
    assert told(*_words({**needed, name: written})) == RunConfig(**{**needed, name: meant})


def test_a_file_says_the_same(told, tmp_path):
    values = {**NEEDED, **{name: meant for name, (_, meant) in TOLD.items()}}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    assert told("--config", path, "--trust-remote-code") == RunConfig(**values)


def test_the_command_line_wins_over_the_file(told, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "model: m\ndata: d\noutput: o\nepochs: 3\nseed: 4\ntest_every_epoch: true\nlearning_rate: null\n"
    )
    config = told("--config", path, "--epochs", "10", "--test", "t")
    assert config == RunConfig(**NEEDED, epochs=10, seed=4, test="t", test_every_epoch=True)


def test_who_said_what_is_wrong(told, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: m\ndata: d\noutput: o\nepochs: 3\n")
    wanted = "epochs is 0: give a whole number of at least 1.\n"
    assert told("--config", path, "--epochs", "0") == f"clear-peft: {wanted}"
    path.write_text("model: m\ndata: d\noutput: o\nepochs: 0\n")
    assert told("--config", path, "--epochs", "3") == f"clear-peft: {path}: {wanted}"
    path.write_text("epochs: 3\n")
    assert told("--config", path).startswith("clear-peft: Missing option '--model'")


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("[" * 100_000, "--training is no JSON"),
        (f'{{"a": {"9" * 5000}}}', "--training is no JSON"),
        ('{"a": NaN}', "training is {'a': nan}: give options by name"),
        ("[1]", "--training must be a JSON object"),
    ],
)
def test_json_that_is_none(told, written, sentence):
    assert sentence in told(*_words({**NEEDED, "training": written}))
