"""Where training stands, in every case, and what follows from it."""

from itertools import product
from types import SimpleNamespace

import pytest

from clear_peft.trainer import CleaRConfig, Phase
from clear_peft.trainer.phases import Schedule, epochs_of

PLAIN, WARM_UP, CONTINUE, ROBUST = Phase.PLAIN, Phase.WARM_UP, Phase.CONTINUE, Phase.ROBUST
EPOCHS, WARM_UPS = (0.5, 1, 2, 3, 3.5, 10), (0, 1, 2, 3, 5)


def found(epoch, noise_found):
    """As much of an estimate as a schedule asks."""
    return None if epoch is None else SimpleNamespace(epoch=epoch, noise_found=noise_found)


# epochs, of warm-up, restart, epoch of the last estimate, noise found → phase, restarts, first selectable
TABLE = [
    # the warm-up, with and without an estimate that somebody has asked for meanwhile
    ((5, 2, True), None, False, WARM_UP, False, 2),
    ((5, 2, True), 0, True, WARM_UP, False, 2),
    ((5, 2, True), 1, True, WARM_UP, False, 2),
    # it ends
    ((5, 2, True), 2, False, CONTINUE, False, 2),
    ((5, 2, True), 2, True, ROBUST, True, 3),
    ((5, 2, False), 2, True, ROBUST, False, 2),
    # later estimates
    ((5, 2, True), 4, False, CONTINUE, False, 2),
    ((5, 2, True), 4, True, ROBUST, True, 3),
    ((5, 2, True), 5, True, ROBUST, True, 3),
    # no warm-up
    ((5, 0, True), None, False, WARM_UP, False, 0),
    ((5, 0, True), 0, False, CONTINUE, False, 0),
    ((5, 0, True), 0, True, ROBUST, True, 1),
    ((5, 0, False), 0, True, ROBUST, False, 0),
    # a single epoch, or half of one
    ((1, 0, True), 0, True, ROBUST, True, 1),
    ((0.5, 0, True), 0, True, ROBUST, True, 0.5),
    ((1, 1, True), None, False, WARM_UP, False, 1),
    # a warm-up that leaves no epoch, or part of one
    ((5, 5, True), 5, True, CONTINUE, False, 5),
    ((5, 9, True), None, False, WARM_UP, False, 5),
    ((2.5, 2, True), 2, True, ROBUST, True, 2.5),
    ((2.5, 3, True), None, False, WARM_UP, False, 2.5),
]


@pytest.mark.parametrize(("schedule", "epoch", "noise_found", "phase", "restarts", "selectable"), TABLE)
def test_the_table(schedule, epoch, noise_found, phase, restarts, selectable):
    num_epochs, warm_up, restart = schedule
    schedule = Schedule(num_epochs, warm_up, restart=restart)
    assert schedule.phase(True, found(epoch, noise_found)) is phase
    assert schedule.restarts(phase) is restarts
    assert schedule.first_selectable(phase) == selectable
    assert schedule.phase(False, found(epoch, noise_found)) is PLAIN


@pytest.mark.parametrize("num_epochs", EPOCHS)
def test_every_combination(num_epochs):
    for case in product(WARM_UPS, (True, False), (None, 0, 1, 2, 3, 5, 10), (True, False)):
        warm_up, restart, epoch, noise_found = case
        schedule, last = Schedule(num_epochs, warm_up, restart=restart), found(epoch, noise_found)
        plain, phase = (schedule.phase(uses, last) for uses in (False, True))
        assert plain is PLAIN
        assert not schedule.restarts(plain), case
        assert schedule.first_selectable(plain) == 0, case

        estimated = epoch is not None and epoch >= warm_up
        assert phase is not PLAIN, case
        assert (phase is WARM_UP) == (not estimated), case
        assert (phase is ROBUST) == (estimated and noise_found and warm_up < num_epochs), case
        assert schedule.restarts(phase) == (restart and phase is ROBUST), case
        first = schedule.first_selectable(phase)
        assert first in (num_epochs, warm_up + schedule.restarts(phase)), case
        assert first <= num_epochs, case  # some epoch is always selected


def test_phases_are_words():
    assert [phase.value for phase in Phase] == ["plain", "warm_up", "continue", "robust"]


@pytest.mark.parametrize(
    ("settings", "num_epochs", "warm_up", "restart"),
    [
        ({}, 10, 2, True),
        ({"restart": False}, 10, 2, False),
        ({"clean_routing": False}, 10, 2, False),
        ({"warm_up_epochs": 3}, 10, 3, True),
        ({"warm_up_epochs": 0.5}, 7, 4, True),
        ({}, 1, 0, True),
        ({"label_estimator": "losses"}, 1, 1, True),
    ],
)
def test_the_schedule_of_settings(tmp_path, settings, num_epochs, warm_up, restart):
    args = CleaRConfig(str(tmp_path), use_cpu=True, report_to="none", **settings)
    assert Schedule.of(args, num_epochs) == Schedule(num_epochs, warm_up, restart=restart)


def test_steps_make_epochs(tmp_path):
    by_epochs = CleaRConfig(str(tmp_path), use_cpu=True, report_to="none", num_train_epochs=4)
    by_steps = CleaRConfig(str(tmp_path), use_cpu=True, report_to="none", max_steps=9, num_train_epochs=4)
    assert epochs_of(by_epochs, 24, 6) == 4
    assert epochs_of(by_steps, 9, 6) == 1.5
