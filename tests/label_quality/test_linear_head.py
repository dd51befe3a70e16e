"""The head that training begins with: ridge regression, made as sharp as the labels allow."""

import numpy as np
import pytest
from worlds import blobs, linear, pair, symmetric

from clear_peft.label_quality import fit_linear_head
from clear_peft.label_quality.ridge import PENALTIES, one_hot


def plain_ridge(features, labels, classes, weights, penalty):
    """Normal equations on the features' unweighted mean and weighted scale, an intercept penalised as all."""
    centre = features.mean(axis=0)
    scale = np.sqrt((weights @ (features - centre) ** 2).sum() / weights.sum())
    rows = np.c_[(features - centre) / scale, np.ones(len(features))]
    weighted = rows.T * weights
    solved = np.linalg.solve(
        weighted @ rows + penalty * np.eye(rows.shape[1]), weighted @ one_hot(labels, classes)
    )
    slopes = solved[:-1] / scale
    return slopes, solved[-1] - centre @ slopes


@pytest.mark.parametrize("weighted", [False, True])
def test_its_coefficients_are_those_of_a_ridge_regression_times_a_number(weighted):
    world = linear(300, np.eye(3))
    features = world.features.astype(np.float64) * 3 + 5
    p = np.random.default_rng(0).uniform(0.2, 1, 300)
    head = fit_linear_head(features, world.given, 3, clean_probability=p if weighted else None)
    weights = p if weighted else np.ones(300)
    off = []
    for penalty in PENALTIES:
        slopes, intercepts = plain_ridge(features, world.given, 3, weights, penalty)
        sharpness = np.vdot(slopes, head.weights) / np.vdot(slopes, slopes)
        errors = (
            np.abs(head.weights - sharpness * slopes).max(),
            np.abs(head.bias - sharpness * intercepts).max(),
        )
        off.append(max(errors) / np.abs(head.weights).max())
    assert min(off) < 1e-3
    assert sorted(off)[1] > 3e-3  # so that the comparison tells penalties apart


def test_rows_that_are_surely_wrong_are_not_learned_from():
    world = blobs(600, pair(3, 0.6), spread=1.5)
    believing = fit_linear_head(world.features, world.given, 3)
    doubting = fit_linear_head(world.features, world.given, 3, clean_probability=1.0 - world.wrong)
    known, misled = (
        (head(world.features).argmax(axis=1) == world.true).mean() for head in (doubting, believing)
    )
    assert known > 0.97
    assert misled < 0.5
    right = ~world.wrong
    alone = fit_linear_head(world.features[right], world.given[right], 3)
    agree = doubting(world.features).argmax(axis=1) == alone(world.features).argmax(axis=1)
    assert agree.mean() > 0.99


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_it_is_as_sharp_as_makes_new_labels_likely(rate):
    world = blobs(2000, symmetric(3, rate), spread=3.0)
    head = fit_linear_head(world.features[:1000], world.given[:1000], 3)
    assert np.allclose(head(world.features).sum(axis=1), 1)
    logits, labels = world.features[1000:] @ head.weights + head.bias, world.given[1000:]

    def surprise(factor):
        rows = np.exp(factor * logits - (factor * logits).max(axis=1, keepdims=True))
        return -np.log(rows[np.arange(1000), labels] / rows.sum(axis=1)).mean()

    assert surprise(1) <= min(surprise(0.5), surprise(2))
    assert surprise(1) < np.log(3)


def test_copies_in_groups_do_not_make_it_sharper():
    # more features than texts, and labels of chance: whoever has seen a copy is sure of it
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 80)), rng.integers(0, 2, 40)
    rows = np.repeat(np.arange(40), 5)
    grouped, unaware = (
        fit_linear_head(features[rows], labels[rows], 2, groups=groups)(features).max(axis=1).mean()
        for groups in (rows, None)
    )
    assert grouped < 0.8
    assert unaware > 0.95


@pytest.mark.parametrize(("size", "classes"), [(1, 2), (2, 2), (5, 7)])
def test_small_tables(size, classes):
    features = np.random.default_rng(0).normal(size=(size, 4))
    head = fit_linear_head(features, np.arange(size) % classes, classes)
    assert head.weights.shape == (4, classes)
    assert head.bias.shape == (classes,)
    assert np.isfinite(head(features)).all()
