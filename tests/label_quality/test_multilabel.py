"""``MultilabelQuality``: what is found in worlds of several labels a row, and what is refused."""

import numpy as np
import pytest
from cleanlab.multilabel_classification.rank import (
    get_label_quality_scores,
    get_label_quality_scores_per_class,
)
from sklearn.metrics import average_precision_score

from clear_peft.errors import InputError
from clear_peft.label_quality import (
    MultilabelQuality,
    fit_multilabel,
    fit_multilabel_probe,
    multilabel_quality_from_pred_probs,
)


def _clusters(size=800, labels=6, dimensions=12, seed=0):
    """Points, and which of the centres are near: features (N, D) and labels (N, C)."""
    rng = np.random.default_rng(seed)
    centers = 1.5 * rng.normal(size=(labels, dimensions))
    points = rng.normal(size=(size, dimensions)) + centers[rng.integers(labels, size=size)]
    distances = np.linalg.norm(points[:, None] - centers, axis=2)
    return points.astype(np.float32), distances < np.quantile(distances, 0.25, axis=0)


def _noisy(true, missing=0.1, added=0.1, seed=1):
    rng = np.random.default_rng(seed)
    lost = true & (rng.random(true.shape) < missing)
    extra = ~true & (rng.random(true.shape) < added * true.mean() / (1 - true.mean()))
    return (true & ~lost) | extra


@pytest.fixture(scope="module")
def found():
    features, true = _clusters()
    given = _noisy(true)
    return fit_multilabel(features, given), given, given != true


def test_wrong_and_missing_labels_are_found(found):
    quality, given, wrong = found
    p = quality.clean_probability
    assert average_precision_score(wrong[given], -p[given]) > 0.8
    assert average_precision_score(wrong[~given], -p[~given]) > 0.6
    assert wrong[quality.is_label_issue].mean() > 0.8
    assert abs(quality.wrong_rate - wrong[given].mean()) < 0.03
    assert (
        abs(quality.missing_rate - wrong[~given].sum() / (wrong[~given].sum() + (given & ~wrong).sum()))
        < 0.04
    )


def test_the_rankings_are_not_worse_than_those_of_cleanlab(found):
    quality, given, wrong = found
    lists = [np.flatnonzero(row).tolist() for row in given]
    q = quality.pred_probs.astype(float)
    theirs = get_label_quality_scores_per_class(lists, q)
    ours = average_precision_score(wrong.ravel(), -quality.clean_probability.ravel())
    assert ours > average_precision_score(wrong.ravel(), -theirs.ravel()) - 0.01
    rows = wrong.any(axis=1)
    ours = average_precision_score(rows, -quality.row_probability)
    assert ours > average_precision_score(rows, -get_label_quality_scores(lists, q))


def test_predictions_of_others_are_judged(found):
    quality, given, wrong = found
    same = multilabel_quality_from_pred_probs(quality.pred_probs, given)
    assert same.source == "out_of_sample"
    assert abs(same.wrong_rate - wrong[given].mean()) < 0.04
    assert average_precision_score(wrong.ravel(), -same.clean_probability.ravel()) > 0.7


def test_labels_that_are_right_are_left_alone():
    features, true = _clusters()
    quality = fit_multilabel(features, true)
    assert quality.wrong_rate < 0.02
    assert quality.missing_rate < 0.03
    assert quality.is_label_issue.mean() < 0.002


def test_labels_that_are_in_one_row_or_in_none_stop_nothing():
    features, true = _clusters(200, 4)
    given = _noisy(true)
    given[:, 2:] = False
    given[7, 2] = True
    quality = fit_multilabel(features, given)
    assert np.isfinite(quality.clean_probability).all()
    assert (quality.pred_probs[:, 2:] < 0.3).all()
    assert quality.wrongly_given[3] == 0


def test_copies_do_not_judge_one_another():
    features, true = _clusters(300)
    given = _noisy(true)
    twice, labels = np.repeat(features, 2, axis=0), np.repeat(given, 2, axis=0)
    together = fit_multilabel(twice, labels, groups=np.arange(len(twice)) // 2)
    once = fit_multilabel(features, given)
    np.testing.assert_allclose(together.clean_probability[::2], once.clean_probability, atol=0.02)
    assert (together.groups == np.arange(len(twice)) // 2).all()
    apart, wrong = fit_multilabel(twice, labels), np.repeat(given != true, 2, axis=0)
    assert together.clean_probability[wrong].mean() < apart.clean_probability[wrong].mean()


def test_the_names_of_labels_help_where_rows_are_few():
    features, true = _clusters(80)
    given = _noisy(true)
    wrong = (given != true).ravel()
    likeness = true + np.random.default_rng(2).normal(0, 0.5, true.shape)

    def ranked(prior):
        p = fit_multilabel(features, given, prior_scores=prior).clean_probability
        return average_precision_score(wrong, -p.ravel())

    assert ranked(likeness) > ranked(None)


def test_the_list_has_given_labels_and_missing_ones_that_may_apply():
    given = np.array([[True, False], [False, False]])
    p = np.array([[0.9, 0.2], [0.999, 0.6]], np.float32)
    q = np.array([[0.8, 0.9], [0.001, 0.4]], np.float32)
    quality = MultilabelQuality(given, q, p, np.zeros((2, 2)), np.arange(2))
    issues = quality.issues(["a", "b"])
    assert issues["row"].tolist() == [0, 1, 0]
    assert issues["label"].tolist() == ["b", "b", "a"]
    assert issues["given"].tolist() == [False, False, True]
    assert issues["suggested"].tolist() == [True, False, True]
    assert issues["is_label_issue"].tolist() == [True, False, False]
    np.testing.assert_allclose(issues["label_quality"], [0.1, 0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(issues["row_clean_probability"], [0.18, 0.5994, 0.18], rtol=1e-6)
    assert issues["clean_probability"].is_monotonic_increasing
    np.testing.assert_allclose(quality.wrongly_given, [0.1, 0], atol=1e-6)
    np.testing.assert_allclose(quality.wrongly_missing, [0.001 / 0.901, 1], atol=1e-5)
    assert len(quality) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0, 1], r"shape \(2,\): give \(N, C\)"),
        ([[0, 2], [1, 0]], "not all 0 or 1"),
        ([["a"], ["b"]], "not all 0 or 1"),
        ([[0, 0], [0, 0]], "No row has a label"),
        ([[0, 1], [1, 0], [1, 1]], r"features have shape \(2, 3\) and labels \(3, 2\)"),
    ],
)
def test_labels_that_are_none_are_refused(given, expected):
    with pytest.raises(InputError, match=expected):
        fit_multilabel(np.ones((2, 3)), np.array(given))


@pytest.mark.parametrize(
    ("pred_probs", "expected"),
    [
        (np.ones((2, 3)), r"pred_probs have shape \(2, 3\) and labels \(2, 2\)"),
        (np.full((2, 2), 1.5), "not all numbers from 0 to 1"),
        (np.full((2, 2), np.nan), "not all numbers from 0 to 1"),
        (np.array([["a", "b"], ["a", "b"]]), "not all numbers from 0 to 1"),
    ],
)
def test_predictions_that_are_none_are_refused(pred_probs, expected):
    with pytest.raises(InputError, match=expected):
        multilabel_quality_from_pred_probs(pred_probs, [[0, 1], [1, 0]])


def _quality(given, p):
    given, p = np.array(given, bool), np.array(p, np.float32)
    return MultilabelQuality(given, p, p, np.zeros((given.shape[1],) * 2), np.arange(len(given)))


def test_rows_are_trusted_by_the_labels_that_matter():
    given = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    p = [[0.9, 1, 1, 1], [1, 0, 1, 1], [1, 0.4, 1, 1], [0.98, 0.98, 0.98, 0.98]]
    quality = _quality(given, p)
    # one given label; one of two is wrong; one is likely missing, .6 of a label; a row without any
    trust = [0.9, 0.5, (1 + 0.6 * 0.4) / 1.6, 0.98]
    np.testing.assert_allclose(quality.trust, trust, rtol=1e-5)
    np.testing.assert_allclose(quality.certainty, [0.9, 1, (1 + 0.6 * 0.6) / 1.6, 0.98], rtol=1e-5)
    many = _quality(np.pad(given, ((0, 0), (0, 500))), np.pad(p, ((0, 0), (0, 500)), constant_values=1))
    np.testing.assert_allclose(many.trust[:3], trust[:3], rtol=1e-5)


def test_the_noise_rate_counts_wrong_and_missing_labels():
    quality = _quality([[1, 0], [1, 0]], [[0.5, 1], [1, 0.6]])
    assert quality.noise_rate == pytest.approx((0.5 + 0.4) / (2 + 0.4))


def test_other_rows_are_judged_by_the_same_fit():
    features, true = _clusters()
    given, rows = _noisy(true), np.arange(600)
    probe, seen = fit_multilabel_probe(features[:600], given[:600], groups=rows, copies=rows)
    wrong = given[600:] != true[600:]
    judged = probe.judge(features[600:], given[600:], np.arange(200))
    assert average_precision_score(wrong.ravel(), -judged.clean_probability.ravel()) > 0.6
    np.testing.assert_array_equal(
        seen.clean_probability, fit_multilabel(features[:600], given[:600]).clean_probability
    )


def test_parts_are_joined_in_the_order_of_the_table_and_survive_a_file(found):
    quality = found[0]
    odd, even = np.arange(1, 800, 2), np.arange(0, 800, 2)
    parts = [
        MultilabelQuality(
            quality.given[rows],
            quality.pred_probs[rows],
            quality.clean_probability[rows],
            quality.confusion,
            quality.groups[rows],
            row=rows,
        )
        for rows in (odd, even)
    ]
    back = MultilabelQuality.from_arrays(*MultilabelQuality.concatenate(parts).arrays())
    assert back.issues().equals(quality.issues())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("given", np.zeros((4, 2), np.int64)),
        ("pred_probs", np.full((4, 2), 2, np.float32)),
        ("clean_probability", np.zeros((4, 3), np.float32)),
        ("confusion", np.zeros((3, 3))),
        ("groups", np.zeros(3, np.int64)),
        ("row", np.zeros(4)),
        ("another", np.zeros(4)),
    ],
)
def test_arrays_that_are_no_quality_are_refused(name, value):
    arrays, rest = _quality(np.eye(4, 2), np.full((4, 2), 0.5)).arrays()
    with pytest.raises(ValueError, match=r"^its? "):
        MultilabelQuality.from_arrays(arrays | {name: value}, rest)
