"""Where else figures go while a run trains: TensorBoard for real, the others by stand-ins."""

import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import yaml
from transformers.integrations import integration_utils
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from clear_peft.data import LabelNames
from clear_peft.errors import InputError
from clear_peft.pipeline import train
from clear_peft.pipeline.loggers import check_loggers
from clear_peft.run_folder import RunConfig
from tiny_text import keyword_table, tiny_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_checkpoint(folder / "model")
    keyword_table(24, seed=0, noise=0.2).to_csv(folder / "train.csv", index=False)
    return folder


def config(place, output, report_to, **more):
    return RunConfig(
        model=str(place / "model"),
        data=str(place / "train.csv"),
        output=str(output),
        epochs=2,
        max_length=16,
        report_to=report_to,
        **more,
    )


def stand_in(monkeypatch, name, *inner):
    """A package that takes every call and remembers it."""
    module = MagicMock()
    for part in (name, *inner):
        monkeypatch.setitem(sys.modules, part, module)
    module.__spec__ = ModuleSpec(name, None)
    module.__version__ = "3.0.0"
    return module


def test_tensorboard_gets_every_figure_into_the_run_folder(place, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = train(config(place, tmp_path / "run", ["tensorboard"]))
    log = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    tags = set(log.Tags()["scalars"])
    assert {"train/loss", "eval/accuracy", "eval/macro_f1", "train/noise_rate"} <= tags
    assert {"train/gate_rate", "train/gate_rate/block_0", "train/gate_rate/block_1"} <= tags
    shown = [event.value for event in log.Scalars("eval/accuracy")]
    assert shown == pytest.approx([epoch["validation_accuracy"] for epoch in metrics["epochs"]])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_reporting_changes_nothing(place, tmp_path):
    pytest.importorskip("tensorboard")
    for name, loggers in (("a", []), ("b", ["tensorboard"])):
        train(config(place, tmp_path / name, loggers, method="plain"))
    for file in ("adapter/adapter_model.safetensors", "label_issues.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert not (tmp_path / "a" / "tensorboard").exists()


def test_overwrite_replaces_the_logs(place, tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    train(config(place, run, ["tensorboard"], method="plain"))
    (run / "tensorboard" / "earlier").touch()
    train(config(place, run, [], method="plain"), overwrite=True)
    assert not (run / "tensorboard").exists()


def test_tensorboards_own_variable_is_heeded(place, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "elsewhere"))
    train(config(place, tmp_path / "run", ["tensorboard"], method="plain"))
    assert list((tmp_path / "elsewhere").iterdir())
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_wandb(place, tmp_path, monkeypatch):
    wandb = stand_in(monkeypatch, "wandb", "wandb.sdk", "wandb.sdk.lib", "wandb.sdk.lib.config_util")
    wandb.ConfigError = KeyError
    wandb.run = None
    wandb.init.side_effect = lambda **_: setattr(wandb, "run", MagicMock())
    train(config(place, tmp_path / "run", ["wandb"], method="plain"))
    assert wandb.init.call_args.kwargs["name"] == "run"
    logged = [call.args[0] for call in wandb.log.call_args_list]
    assert sum("eval/accuracy" in figures for figures in logged) == 2
    assert not any(isinstance(value, dict) for figures in logged for value in figures.values())


def test_trackio(place, tmp_path, monkeypatch):
    trackio = stand_in(monkeypatch, "trackio")
    trackio.context_vars.current_space_id.get.return_value = None
    train(config(place, tmp_path / "run", ["trackio"], method="plain"))
    assert trackio.init.call_args.kwargs["name"] == "run"
    assert sum("eval/accuracy" in call.args[0] for call in trackio.log.call_args_list) == 2
    trackio.finish.assert_called_once()


def test_mlflow(place, tmp_path, monkeypatch):
    mlflow = stand_in(monkeypatch, "mlflow")
    mlflow.utils.validation.MAX_PARAM_VAL_LENGTH = 250
    mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH = 100
    mlflow.active_run.side_effect = lambda: mlflow.start_run.call_args and MagicMock()
    train(config(place, tmp_path / "run", ["mlflow"], method="plain"))
    assert mlflow.start_run.call_args.kwargs["run_name"] == "run"
    logged = [call.kwargs["metrics"] for call in mlflow.log_metrics.call_args_list]
    assert sum("eval_accuracy" in figures for figures in logged) == 2
    assert mlflow.end_run.called


def test_folds_are_no_runs_of_their_own(place, tmp_path, monkeypatch):
    pytest.importorskip("cleanlab")
    trackio = stand_in(monkeypatch, "trackio")
    trackio.context_vars.current_space_id.get.return_value = None
    train(config(place, tmp_path / "run", ["trackio"], method="cleanlab"))
    trackio.init.assert_called_once()


@pytest.mark.parametrize(
    ("loggers", "said"),
    [
        (["tensorbord"], "'tensorbord', which transformers does not know: choose from .*tensorboard"),
        (["tensorboard", ""], "'', which"),
        (["wandb"], "'wandb', whose package is not installed"),
    ],
)
def test_a_logger_that_cannot_be_is_refused_first(place, tmp_path, monkeypatch, loggers, said):
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    with pytest.raises(InputError, match=said):
        train(config(place, tmp_path / "run", loggers))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", INTEGRATION_TO_CALLBACK)
def test_each_name_of_transformers_can_be_asked_for(name):
    try:
        check_loggers([name])
    except InputError as error:
        assert "not installed" in str(error)  # noqa: PT017  (it may be, here)


def test_the_command_line_takes_it_from_a_file_too(place, tmp_path, monkeypatch):
    from clear_peft.cli import main

    asked = []
    tables = SimpleNamespace(names=LabelNames(("a", "b")))
    monkeypatch.setattr("clear_peft.pipeline.commands.read_tables", lambda config: tables)
    monkeypatch.setattr(
        "clear_peft.pipeline.training.check_loggers", lambda names: asked.append(names) or 1 / 0
    )
    options = tmp_path / "run.yaml"
    lines = {"model": "m", "data": "d.csv", "output": str(tmp_path / "run"), "report_to": ["wandb", "mlflow"]}
    options.write_text(yaml.safe_dump(lines))
    for words in ([], ["--report-to", "tensorboard, trackio"]):
        monkeypatch.setattr(sys, "argv", ["clear-peft", "train", "--config", str(options), *words])
        with pytest.raises(ZeroDivisionError):
            main()
    assert asked == [["wandb", "mlflow"], ["tensorboard", "trackio"]]
