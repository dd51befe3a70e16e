"""What a run is told."""

from dataclasses import fields
from importlib import import_module

import pytest

from clear_peft import pipeline
from clear_peft.errors import InputError
from clear_peft.pipeline.training import arguments_of
from clear_peft.run_folder import RunConfig
from clear_peft.run_folder.config import FIGURES_OF_ONE_LABEL, FIGURES_OF_SEVERAL_LABELS, options, read_yaml
from clear_peft.run_folder.training_settings import known_settings
from clear_peft.trainer import CleaRConfig
from clear_peft.trainer.config import LARGER_IS_BETTER, MEASURED, OF_MULTI_LABEL, OF_SINGLE_LABEL
from clear_peft.tuners import available_methods

NEEDED = {"model": "m", "data": "d.csv", "output": "o"}


def test_it_comes_back_as_it_was_saved(tmp_path):
    config = RunConfig(
        **NEEDED, learning_rate=1e-5, peft_options={"r": 8}, target_modules=["query"], test="ö.csv"
    )
    config.save(tmp_path)
    assert RunConfig.load(tmp_path) == config


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", None),
        ("model", 3),
        ("test", 3),
        ("epochs", "ten"),
        ("epochs", "3"),
        ("epochs", 1.5),
        ("epochs", True),
        ("epochs", None),
        ("seed", 2**32),
        ("learning_rate", "fast"),
        ("learning_rate", True),
        ("learning_rate", 10**400),
        ("learning_rate", float("nan")),
        ("validation_fraction", None),
        ("target_modules", 5),
        ("target_modules", "query"),
        ("target_modules", [5]),
        ("peft_options", None),
        ("peft_options", [1]),
        ("peft_options", {"r": (8,)}),
        ("peft_options", {"r": float("inf")}),
        ("trust_remote_code", "yes"),
        ("output", "a\0b"),
    ],
)
def test_a_wrong_value_is_named(option, value):
    with pytest.raises(InputError, match=f"{option} is .*: give "):
        RunConfig(**{**NEEDED, option: value})


def test_a_whole_number_is_a_number():
    assert RunConfig(**NEEDED, learning_rate=1).learning_rate == 1.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({**NEEDED, "epoch": 1}, "There is no option 'epoch': choose from model, data, output, "),
        ({"model": "m"}, "The run lacks data, output: give a value for each."),
        ({**NEEDED, "test_every_epoch": True}, "test_every_epoch needs a test table: give test."),
        (
            {**NEEDED, "dtype": "half"},
            "There is no dtype 'half': choose from auto, float32, bfloat16, float16.",
        ),
        ({**NEEDED, "quantization": "3bit"}, "There is no quantization '3bit': choose from 4bit, 8bit."),
        *(
            ({**NEEDED, "quantization": "4bit", "peft": peft}, f"quantization is '4bit', .* with {peft}: ")
            for peft in ("bitfit", "glora", "rosa", "oft")
            if peft in available_methods()
        ),
        ({**NEEDED, "quantization": "8bit", "peft": "dora"}, "which does not go with dora: leave it out"),
        ({**NEEDED, "quantization": "4bit", "method": "full"}, "full trains all weights, .* in float32"),
        ({**NEEDED, "dtype": "auto", "method": "full_early_stopping"}, "dtype is 'auto', and full_early_st"),
        (
            {**NEEDED, "peft": "prefix", "gradient_checkpointing": True},
            "gradient_checkpointing does not go with prefix, .*: leave it out, or choose lora.",
        ),
    ],
)
def test_what_is_too_much_or_missing_is_named(options, sentence):
    with pytest.raises(InputError, match=sentence):
        RunConfig(**options)


def test_yaml_takes_a_number_without_a_point_for_text(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "model: 1e3\nlearning_rate: 1e-3\nvalidation_fraction: 1.0e-1\n"
        "training: {weight_decay: 1.5e2, optim: adamw_torch}\npeft_options: {nested: [.5e1]}"
    )
    assert read_yaml(path) == {
        "model": "1e3",
        "learning_rate": 1e-3,
        "validation_fraction": 0.1,
        "training": {"weight_decay": 150.0, "optim": "adamw_torch"},
        "peft_options": {"nested": [5.0]},
    }


def test_functions_stay_functions_after_their_modules_are_imported():
    for module in (
        "commands",
        "demo",
        "finalize",
        "inference",
        "label_issues",
        "models",
        "progress",
        "training",
    ):
        import_module(f"clear_peft.pipeline.{module}")
    for name in pipeline.__all__:
        assert callable(getattr(pipeline, name)), name


@pytest.mark.parametrize(
    ("given", "metric", "larger"),
    [
        ({}, "weighted_accuracy", True),
        ({"metric_for_best_model": "macro_f1"}, "macro_f1", True),
        ({"metric_for_best_model": "loss"}, "loss", False),
        ({"clean_routing": False}, "weighted_accuracy", True),
    ],
)
def test_the_metric_that_selects_is_the_one_that_was_asked_for(tmp_path, given, metric, larger):
    config = RunConfig(model="m", data="d", output=str(tmp_path), training=given)
    made = arguments_of(config)  # what a whole run would take minutes to show
    assert (made.metric_for_best_model, made.greater_is_better) == (metric, larger)


@pytest.mark.parametrize("metric", sorted(LARGER_IS_BETTER))
@pytest.mark.parametrize("method", ["clear", "plain", "early_stopping"])
def test_select_by_takes_the_place_of_what_the_method_says(tmp_path, metric, method):
    made = arguments_of(RunConfig(model="m", data="d", output=str(tmp_path), method=method, select_by=metric))
    assert (made.metric_for_best_model, made.greater_is_better) == (metric, metric != "loss")


def test_every_figure_that_we_measure_can_be_selected_by():
    known = next(option.choices for option in options() if option.name == "select_by")
    assert set(known) == set(MEASURED)
    assert set(FIGURES_OF_ONE_LABEL) == set(OF_SINGLE_LABEL)
    assert set(FIGURES_OF_SEVERAL_LABELS) == set(OF_MULTI_LABEL)


@pytest.mark.parametrize(("method", "metric"), [("clear", "weighted_micro_f1"), ("plain", "micro_f1")])
def test_of_several_labels_micro_f1_takes_the_place_of_accuracy(tmp_path, method, metric):
    given = {"model": "m", "data": "d", "output": str(tmp_path), "method": method}
    made = arguments_of(RunConfig(**given), several=True)
    assert (made.metric_for_best_model, made.greater_is_better) == (metric, True)
    assert arguments_of(RunConfig(**given, select_by="loss"), several=True).metric_for_best_model == "loss"


def test_by_what_to_select_is_said_once(tmp_path):
    given = {**NEEDED, "select_by": "loss"}
    with pytest.raises(InputError, match="select_by is 'loss', and training sets metric_for_best_model to"):
        RunConfig(**given, training={"metric_for_best_model": "accuracy"})
    for same in ("loss", "eval_loss"):
        RunConfig(**given, training={"metric_for_best_model": same})
    config = RunConfig(**NEEDED, training={"metric_for_best_model": "accuracy"})
    config.save(tmp_path)
    assert RunConfig.load(tmp_path) == config
    with pytest.raises(InputError, match="There is no select_by 'f1': choose from accuracy, macro_f1"):
        RunConfig(**NEEDED, select_by="f1")


def test_class_weights_are_an_option_beside_training(tmp_path):
    given = {"model": "m", "data": "d", "output": str(tmp_path)}
    assert arguments_of(RunConfig(**given, class_weights="balanced")).class_weights == "balanced"
    with pytest.raises(InputError, match="training cannot set class_weights: set class_weights beside it"):
        arguments_of(RunConfig(**given, training={"class_weights": "balanced"}))


def test_settings_of_training_are_known_without_torch():
    assert known_settings() == {setting.name for setting in fields(CleaRConfig) if setting.init}


@pytest.mark.parametrize("given", [("loss", True), ("macro_f1", False)])
def test_a_metric_whose_worst_epoch_would_be_kept_is_refused(tmp_path, given):
    training = dict(zip(("metric_for_best_model", "greater_is_better"), given, strict=True))
    config = RunConfig(model="m", data="d", output=str(tmp_path), training=training)
    with pytest.raises(InputError, match="would keep the worst epoch"):
        arguments_of(config)
