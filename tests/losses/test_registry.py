"""Losses by name: what there is, what it may be given, what is refused."""

import pytest
import torch

from clear_peft.errors import InputError
from clear_peft.losses import LOSSES, make_loss

NAN = float("nan")


def test_there_are_these():
    assert list(LOSSES) == [
        "cross_entropy",
        "label_smoothing",
        "gce",
        "sce",
        "elr",
        "selc",
        "stgn",
    ]


def test_options_arrive():
    assert make_loss("gce", 3, 2, {"q": 0.5}).q == 0.5
    assert make_loss("gce", 3, 2).q == 0.7


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hinge", {}, "no loss 'hinge': choose from cross_entropy, .*stgn"),
        ("gce", {"p": 1}, "'gce' has no option p: choose from q"),
        ("elr", {"momentum": 0.5, "beta": 1}, "'elr' has no option beta: choose from momentum, strength"),
        ("cross_entropy", {"q": 1}, "'cross_entropy' has no option q: leave it out"),
        ("stgn", {"seed": 1}, "'stgn' needs the option noise_rate"),
        ("gce", {"q": 0}, r"q is 0: give a finite number in \(0, 1\]"),
        ("gce", {"q": 1.1}, r"q is 1\.1"),
        ("gce", {"q": NAN}, "q is nan"),
        ("gce", {"q": "0.7"}, r"q is '0\.7'"),
        ("gce", {"q": True}, "q is True"),
        ("label_smoothing", {"epsilon": 1}, r"epsilon is 1: give a finite number in \[0, 1\)"),
        ("label_smoothing", {"epsilon": -0.1}, r"epsilon is -0\.1"),
        ("sce", {"alpha": -1}, r"alpha is -1: give a finite number in \[0, inf\)"),
        ("sce", {"beta": float("inf")}, "beta is inf"),
        ("sce", {"log_zero": 4}, r"log_zero is 4: give a finite number in \(-inf, 0\]"),
        ("elr", {"momentum": 1}, "momentum is 1"),
        ("elr", {"strength": -1}, "strength is -1"),
        ("selc", {"momentum": 1.5}, r"momentum is 1\.5"),
        ("selc", {"switch_epoch": -1}, "switch_epoch is -1"),
        ("stgn", {"noise_rate": 1}, r"noise_rate is 1: give a finite number in \[0, 1\)"),
        ("stgn", {"noise_rate": 0.2, "sigma": -1}, "sigma is -1"),
        ("stgn", {"noise_rate": 0.2, "forget_times": 0}, "forget_times is 0"),
        ("stgn", {"noise_rate": 0.2, "seed": -1}, "seed is -1"),
    ],
)
def test_wrong_options_are_refused_with_a_remedy(name, options, message):
    with pytest.raises(InputError, match=message):
        make_loss(name, 3, 2, options)


@pytest.mark.parametrize(("sizes", "message"), [((0, 2), "num_examples is 0"), ((3, 0), "num_classes is 0")])
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        make_loss("elr", *sizes)


def test_options_may_be_numpy_numbers():
    assert make_loss("gce", 3, 2, {"q": torch.tensor(0.5).numpy()[()]}).q == 0.5
