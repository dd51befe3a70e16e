"""The README says what is there."""

import re
from pathlib import Path

import pytest
import torch

from clear_peft.routing.router import detach

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readmes_test_command():
    command = next(block for block in re.findall(r"```sh\n(.*?)\n```", README, re.S) if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def _options(command):
    for parameter in command.params:
        yield from (option.removeprefix("--") for option in parameter.opts if option.startswith("--"))
    for child in getattr(command, "commands", {}).values():
        yield from _options(child)


def test_options_in_the_readme_exist():
    from typer.main import get_command

    from clear_peft.cli.app import app

    ours = re.sub(r"torchrun --[a-z-]+", "", README)
    used = set(re.findall(r"(?<!\w)--([a-z][a-z-]+)", ours))
    known = set(_options(get_command(app)))
    assert used <= known, used - known


def test_every_method_noise_and_grid_is_named():
    from clear_peft.baselines import METHODS
    from clear_peft.bench.grid import shipped_grids
    from clear_peft.noise import KINDS

    for name in [*METHODS, *KINDS, *shipped_grids()]:
        assert f"`{name}`" in README, name


def test_count_of_peft_methods():
    from clear_peft.tuners import available_methods

    named = 9
    assert f"and {len(available_methods()) - named} more tuner types" in README


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers and peft
def test_python_in_the_readme_runs(tmp_path, monkeypatch):
    """As it stands, but on fewer rows and epochs, and with the packaged model in place of the hub's."""
    from clear_peft.pipeline import demo
    from clear_peft.pipeline.packages import bbc_news, minilm

    monkeypatch.chdir(tmp_path)
    news = bbc_news().groupby("label").head(60)
    news["text"] = news["text"].str[:300]
    demo._write_data(news.reset_index(drop=True), tmp_path / "clear-peft-demo" / "data")
    changes = {
        "sentence-transformers/all-MiniLM-L6-v2": str(minilm()),
        '**preset("recommended")': '**{**preset("recommended"), "num_train_epochs": 2}',
    }
    finding, training, classifying, routing = re.findall(r"```python\n(.*?)```", README, re.S)
    for old, new in changes.items():
        assert old in training
        training = training.replace(old, new)
    names: dict = {}
    exec(finding, names)
    assert names["issues"]["is_label_issue"].any()
    exec(training, names)
    assert sorted(names["issues"]["row"]) == list(range(len(names["table"])))
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()

    assert 'peft="lora"' in classifying
    exec(classifying.replace('peft="lora"', "epochs=1"), names)
    assert (tmp_path / "classifier" / "classifier.json").is_file()

    detach(names["model"])  # from the trainer's router
    batch = names["tokenizer"](names["table"]["text"].tolist()[:4], return_tensors="pt", padding=True)
    given = {
        "peft_model": names["model"].cpu(),
        "clean_probability": torch.tensor([0.1, 0.5, 0.9, 1.0]),
        "ids": torch.arange(4),
        "step": 0,
        "batch": batch,
        "loss_of": lambda outputs: outputs.logits.logsumexp(dim=1).mean(),
    }
    exec(routing, given)
    assert any(p.grad is not None for n, p in names["model"].named_parameters() if "lora_" in n)
