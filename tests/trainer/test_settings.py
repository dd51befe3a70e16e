"""The settings of a training, and the presets."""

import pytest

from clear_peft.errors import InputError
from clear_peft.trainer import CleaRConfig, preset

PAPER = {
    "adapter": (0.7, 0.5, 0.9),
    "bitfit": (0.9, 1.0, 0.0),
    "lora": (0.85, 1.0, 0.0),
    "prefix": (0.85, 1.0, 0.0),
    "ia3": (0.85, 1.0, 0.0),
}


def config(tmp_path, **settings):
    return CleaRConfig(**{**settings, "output_dir": str(tmp_path), "use_cpu": True, "report_to": "none"})


@pytest.mark.parametrize(("peft", "numbers"), PAPER.items())
def test_the_papers_numbers_for_each_peft_method(peft, numbers):
    settings = preset("paper", peft)
    names = ("max_gate_prob", "consistency_temperature", "loss_ema")
    assert tuple(settings[name] for name in names) == numbers


@pytest.mark.parametrize("name", ["recommended", "paper"])
def test_a_preset_is_a_whole_recipe(tmp_path, name):
    args = config(tmp_path, **{**preset(name), "bf16": False})
    assert args.load_best_model_at_end
    assert args.greater_is_better
    assert args.eval_strategy == args.save_strategy == "epoch"
    assert args.train_sampling_strategy == "group_by_length"


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "weighted_accuracy", "eval_accuracy"])
def test_a_metric_that_would_keep_the_worst_epoch_is_refused(tmp_path, metric):
    with pytest.raises(InputError, match="would keep the worst epoch"):
        config(tmp_path, metric_for_best_model=metric, greater_is_better=False)
    with pytest.raises(InputError, match="would keep the worst epoch"):
        config(tmp_path, metric_for_best_model="loss", greater_is_better=True)
    assert config(tmp_path, metric_for_best_model=metric).greater_is_better


def test_a_metric_of_ones_own_may_be_better_small(tmp_path):
    settings = {"metric_for_best_model": "error", "greater_is_better": False}
    assert config(tmp_path, **settings).metric_name == "eval_error"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_gate_prob": 1.5}, "max_gate_prob is 1.5: give a number between 0 and 1"),
        ({"ema_epochs": -1}, "ema_epochs is -1"),
        ({"loss_ema": True}, "loss_ema is True"),
        ({"label_estimator": "steps"}, "There is no label_estimator 'steps': choose from probe, losses"),
        ({"scoring_gates": "shut"}, "There is no scoring_gates 'shut'"),
        ({"loss_options": "{"}, "loss_options is no JSON"),
        ({"loss_options": "[1]"}, "write a JSON object"),
        ({"gradient_accumulation_steps": 0}, "steps is 0: give a number of at least 1"),
        ({"per_device_eval_batch_size": -1}, "per_device_eval_batch_size is -1"),
        ({"data_seed": -1}, "data_seed is -1: give a number between 0 and 4294967295"),
        ({"train_sampling_strategy": "x"}, "There is no train_sampling_strategy 'x': choose from random"),
        ({"lr_scheduler_kwargs": "x"}, "lr_scheduler_kwargs is 'x': give options by name"),
        ({"optim_args": "x"}, "optim_args is 'x': write name=value"),
        ({"patience": 2}, "give metric_for_best_model and an eval_strategy too"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        config(tmp_path, **settings)
