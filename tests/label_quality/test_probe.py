"""The probe: wrong labels come to light, whatever the table looks like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from worlds import blobs, calibration_error, linear, pair, symmetric

from clear_peft.errors import InputError
from clear_peft.label_quality import Calibration, NoiseModel, fit_probe, interval, probe
from clear_peft.label_quality.calibration import Fit, Shape
from clear_peft.label_quality.probe import judged, sampled


def is_sound(quality, size, classes):
    p = quality.clean_probability
    low, high = quality.noise_rate_interval
    dense = quality.pred_probs.dense()
    return (
        p.shape == (size,)
        and dense.shape == (size, classes)
        and ((p >= 0) & (p <= 1)).all()
        and np.allclose(dense.sum(axis=1), 1, atol=1e-4)
        and 0 <= low <= quality.noise_rate + 1e-9
        and quality.noise_rate - 1e-9 <= high <= 1
    )


@pytest.mark.parametrize(
    ("size", "transition", "kind"),
    [
        (1000, symmetric(2, 0.3), None),  # with two classes, flips and symmetric noise are the same
        (1500, symmetric(5, 0.4), "symmetric"),
        (1500, pair(5, 0.4), "pair_flip"),
        (3000, symmetric(150, 0.3), "symmetric"),
    ],
)
def test_wrong_labels_of_blobs_are_found(size, transition, kind, monkeypatch):
    classes = len(transition)
    monkeypatch.setattr(interval, "_DRAWS", 2)  # the interval has its own tests
    monkeypatch.setattr(probe, "_FIT_CELLS", 1 << 17)  # 873 rows of 150 classes
    world = blobs(size, transition, dimensions=24)
    fitted, quality = fit_probe(world.features, world.given, classes)
    assert is_sound(quality, size, classes)
    assert average_precision_score(world.wrong, 1 - quality.clean_probability) > 0.95
    assert quality.noise_rate == pytest.approx(world.wrong.mean(), abs=0.05)
    assert (quality.predicted == world.true).mean() > 0.95
    assert kind in (None, quality.noise.kind)
    np.testing.assert_array_equal(quality.given, world.given)
    np.testing.assert_array_equal(quality.groups, np.arange(size))
    assert fitted.support.sum() == size


@pytest.mark.parametrize("transition", [np.eye(3), symmetric(4, 0.2), symmetric(4, 0.4), pair(4, 0.3)])
def test_p_is_a_probability(transition):
    world = linear(4000, transition)
    _, quality = fit_probe(world.features, world.given, len(transition))
    assert calibration_error(quality.clean_probability, ~world.wrong) <= 0.05
    assert quality.noise_rate == pytest.approx(world.wrong.mean(), abs=0.04)


def test_rows_are_judged_by_fits_that_have_not_seen_them():
    rng = np.random.default_rng(0)
    # more features than rows: a fit repeats what it was fitted to, and knows nothing else
    features, labels = rng.normal(size=(200, 400)), rng.integers(0, 2, 200)
    _, quality = fit_probe(features, labels, 2)
    assert abs((quality.predicted == labels).mean() - 0.5) < 0.2


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_the_only_row_of_a_class_is_as_doubtful_as_any(rate):
    world = blobs(600, symmetric(4, rate))
    labels = world.given.copy()
    labels[17] = 4  # its features are those of another class
    fitted, quality = fit_probe(world.features, labels, 6)
    assert fitted.support[4:].tolist() == [1, 0]
    assert quality.clean_probability[17] == pytest.approx(1 - fitted.rate, abs=0.01)
    # as are all rows of a class that was never seen, and of one other row a quarter
    for label, share in ((5, 1.0), (4, 0.25)):
        found = fitted.judge(world.features[:9], np.full(9, label))
        least = share * (1 - fitted.rate)
        assert (found.clean_probability > least - 0.01).all()


def test_the_fewer_others_name_a_class_the_more_the_noise_rate_speaks_of_it():
    noise = NoiseModel("symmetric", symmetric(3, 0.3))
    shape = Shape("symmetric", np.full(3, 1 / 3))
    fit = Fit(Calibration(np.ones(1), np.zeros(3), None), noise, 0.0, 0.0, shape, np.zeros(0))
    views, labels = [np.tile([4.0, 0.0, 0.0], (3, 1))], np.array([1, 2, 2])
    pred_probs, p = judged(fit, views, labels, np.array([9, 0, 1]), 0.3)
    posterior = noise.clean_probability(pred_probs, labels)
    assert posterior.max() < 0.2
    share = np.array([1, 1 / 4, 1 / 4])
    np.testing.assert_allclose(p, (1 - share) * posterior + share * 0.7)


@pytest.mark.parametrize("rare", ["one row", "no row", "few rows"])
def test_a_rare_class_does_not_hide_the_noise(rare):
    world = blobs(1600, np.eye(4), seed=1)
    rng = np.random.default_rng(0)
    some = (world.true < 3) | (
        np.cumsum(world.true == 3) <= {"one row": 1, "no row": 0, "few rows": 20}[rare]
    )
    features, true = world.features[some], world.true[some]
    # who labels without looking names rare classes rarely
    blind = np.flatnonzero(rng.random(len(true)) < 0.4)
    labels = true.copy()
    labels[blind] = rng.permutation(true[blind])
    _, quality = fit_probe(features, labels, 4)
    assert quality.noise_rate == pytest.approx((labels != true).mean(), abs=0.06)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=14),
    st.integers(1, 3),
    st.sampled_from(["alone", "one group", "pairs"]),
    st.sampled_from(["random", "equal", "zero"]),
)
def test_small_tables(labels, dimensions, grouping, kind):
    labels, size = np.array(labels), len(labels)
    features = np.random.default_rng(size).normal(size=(size, dimensions))
    features = {"random": features, "equal": np.repeat(features[:1], size, 0), "zero": 0 * features}[kind]
    groups = {"alone": None, "one group": np.zeros(size, int), "pairs": np.arange(size) // 2}[grouping]
    fitted, quality = fit_probe(features, labels, 4, groups=groups)
    assert is_sound(quality, size, 4)
    found = fitted.judge(features[:2] + 1, labels[:2])
    assert np.isfinite(found.clean_probability).all()
    assert np.allclose(found.pred_probs.sum(axis=1), 1)


@pytest.mark.parametrize("classes", [2, 150])
def test_one_group_that_is_everything(classes):
    world = blobs(450, symmetric(classes, 0.2))
    _, quality = fit_probe(world.features, world.given, classes, groups=np.zeros(450, int))
    assert is_sound(quality, 450, classes)
    low, high = quality.noise_rate_interval
    assert high - low == 1  # nothing is known


def test_rows_that_are_all_equal_say_that_the_rare_label_is_the_doubtful_one():
    labels = np.repeat([0, 1], [90, 10])
    _, quality = fit_probe(np.ones((100, 3)), labels, 2)
    assert is_sound(quality, 100, 2)
    assert (quality.predicted == 0).all()
    assert quality.clean_probability[labels == 0].min() > quality.clean_probability[labels == 1].max()


@pytest.fixture(scope="module")
def copied():
    """Each text 6 times, and its wrong label with it; far more features than texts, so that copies tell."""
    world = blobs(150, symmetric(3, 0.25), spread=1.5, dimensions=120)
    return world, np.repeat(np.arange(150), 6)


def recall(quality, wrong):
    return (quality.is_label_issue & wrong).sum() / wrong.sum()


def test_copies_vouch_for_each_other_unless_they_are_a_group(copied):
    world, rows = copied
    features, labels, wrong = world.features[rows], world.given[rows], world.wrong[rows]
    once = recall(fit_probe(world.features, world.given, 3)[1], world.wrong)
    assert once > 0.8
    grouped = fit_probe(features, labels, 3, groups=rows)[1]
    assert abs(recall(grouped, wrong) - once) <= 0.15
    assert recall(fit_probe(features, labels, 3)[1], wrong) < once - 0.5
    np.testing.assert_array_equal(grouped.groups, rows)
    # copies of a text are judged alike
    assert np.ptp(grouped.clean_probability.reshape(150, 6), axis=1).max() < 1e-3


def test_a_text_that_is_there_500_times_counts_once():
    world = blobs(300, symmetric(3, 0.2), spread=2.5)
    loud = np.flatnonzero(world.wrong)[0]
    rows = np.r_[np.arange(300), np.full(500, loud)]
    features, labels = world.features[rows], world.given[rows]
    alone = fit_probe(world.features, world.given, 3)[1].clean_probability
    grouped = fit_probe(features, labels, 3, groups=rows)[1]
    off = np.abs(grouped.clean_probability[:300] - alone)
    assert off.mean() < 0.02
    unaware = fit_probe(features, labels, 3)[1].clean_probability[:300]
    assert np.abs(unaware - alone).mean() > 3 * off.mean()


def test_groups_that_are_no_copies_are_left_out_together_but_count_in_full():
    world = blobs(240, symmetric(3, 0.2))
    together, alone = np.arange(240) // 2, np.arange(240)
    fitted, quality = fit_probe(world.features, world.given, 3, groups=together, copies=alone)
    plain, _ = fit_probe(world.features, world.given, 3)
    np.testing.assert_allclose(fitted.ridges[0].values, plain.ridges[0].values, rtol=1e-5)
    np.testing.assert_array_equal(quality.groups, together)
    counted_once, _ = fit_probe(world.features, world.given, 3, groups=together)
    assert counted_once.ridges[0].values.sum() < 0.6 * plain.ridges[0].values.sum()
    assert fitted.support.sum() < 240


def test_new_rows_are_judged_as_those_that_were_fitted_to():
    world = blobs(1500, symmetric(4, 0.3), spread=1.5)
    fitted, _ = fit_probe(world.features[:1000], world.given[:1000], 4)
    found = fitted.judge(world.features[1000:], world.given[1000:])
    assert (found.pred_probs.argmax(axis=1) == world.true[1000:]).mean() > 0.95
    assert average_precision_score(world.wrong[1000:], 1 - found.clean_probability) > 0.95
    assert calibration_error(found.clean_probability, ~world.wrong[1000:]) <= 0.05


@pytest.mark.parametrize("views", [1, 2])
def test_no_new_rows_are_judged_as_none(views):
    world = blobs(60, symmetric(3, 0.2))
    features = world.features if views == 1 else np.stack([world.features] * views, axis=1)
    found = fit_probe(features, world.given, 3)[0].judge(features[:0], world.given[:0])
    assert found.pred_probs.shape == (0, 3)
    assert found.clean_probability.shape == (0,)


def test_one_representation_is_one_plane_and_a_good_one_is_found_among_noise():
    world = blobs(800, pair(4, 0.3))
    flat, single = fit_probe(world.features, world.given, 4)
    planar, of_plane = fit_probe(world.features[:, None], world.given, 4)
    np.testing.assert_array_equal(single.clean_probability, of_plane.clean_probability)
    for mine, its in zip(
        flat.judge(world.features, world.given),
        planar.judge(world.features[:, None], world.given),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, its)
    noise = np.random.default_rng(0).normal(size=world.features.shape)
    views = np.stack([noise, world.features, 0 * noise], axis=1)
    fitted, many = fit_probe(views, world.given, 4)
    assert len(fitted.ridges) == 3
    assert np.abs(many.clean_probability - single.clean_probability).mean() < 0.03
    assert average_precision_score(world.wrong, 1 - fitted.judge(views, world.given).clean_probability) > 0.95


def test_prior_scores_help_where_features_know_little():
    world = linear(600, symmetric(4, 0.3), sharpness=8.0)
    poor = world.features + 3 * np.random.default_rng(1).normal(size=world.features.shape)
    _, without = fit_probe(poor, world.given, 4)
    fitted, quality = fit_probe(poor, world.given, 4, prior_scores=world.scores)
    for p in (quality.clean_probability, fitted.judge(poor, world.given, world.scores).clean_probability):
        found = average_precision_score(world.wrong, 1 - p)
        assert found > average_precision_score(world.wrong, 1 - without.clean_probability) + 0.15


class Lazy:
    """Rows that are read when they are asked for."""

    def __init__(self, rows):
        self.rows, self.shape = rows, rows.shape

    def __getitem__(self, part):
        assert isinstance(part, slice) or np.issubdtype(np.asarray(part).dtype, np.integer)
        return self.rows[part]


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("grouped", [False, True])
def test_features_may_be_read_from_elsewhere(views, grouped):
    world = blobs(300, symmetric(3, 0.2), dimensions=6)
    features = world.features if views == 1 else np.stack([world.features, world.features[:, ::-1] ** 2], 1)
    groups = np.random.default_rng(0).integers(0, 200, 300) if grouped else None
    there, quality = fit_probe(features, world.given, 3, groups=groups)
    read, lazily = fit_probe(Lazy(features), world.given, 3, groups=groups)
    np.testing.assert_array_equal(lazily.clean_probability, quality.clean_probability)
    np.testing.assert_array_equal(lazily.pred_probs.dense(), quality.pred_probs.dense())
    np.testing.assert_array_equal(
        read.judge(Lazy(features), world.given).clean_probability,
        there.judge(features, world.given).clean_probability,
    )


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_the_scale_of_features_does_not_matter(scale):
    world = blobs(400, symmetric(3, 0.3), spread=2.0)
    mine, quality = fit_probe(world.features, world.given, 3)
    other, scaled = fit_probe(world.features * scale + 3, world.given, 3)
    np.testing.assert_allclose(scaled.clean_probability, quality.clean_probability, atol=0.01)
    elsewhere = other.judge(world.features * scale + 3, world.given).clean_probability
    np.testing.assert_allclose(
        elsewhere, mine.judge(world.features, world.given).clean_probability, atol=0.01
    )


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones(4), np.zeros(4, int), r"features have shape \(4,\)"),
        (np.ones((4, 1, 1, 1)), np.zeros(4, int), r"features have shape"),
        (np.ones((4, 2)), np.zeros(3, int), r"features have shape \(4, 2\) and labels \(3,\)"),
        (np.ones((0, 2)), np.zeros(0, int), r"features have shape \(0, 2\)"),
        (np.ones((4, 2)), np.array([0, 1, 2, 3]), r"labels are not all whole numbers from 0 to 2"),
        (np.ones((4, 2)), np.array([0, 1, 2, -1]), r"labels are not all whole numbers from 0 to 2"),
        (np.array([[1.0, np.nan]] * 4), np.array([0, 1, 2, 0]), r"The features are not all finite numbers"),
        (np.array([[1.0, np.inf]] * 4), np.array([0, 1, 2, 0]), r"The features are not all finite numbers"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(features, labels, message):
    with pytest.raises(InputError, match=rf"^{message}") as refused:
        fit_probe(features, labels, 3)
    said = str(refused.value)
    assert "\n" not in said
    assert said.endswith(".")
    assert ". " not in said


@pytest.mark.parametrize("option", ["groups", "copies"])
def test_groups_of_another_length_are_refused(option):
    with pytest.raises(InputError, match=r"^groups have shape \(3,\)"):
        fit_probe(np.eye(4), np.array([0, 1, 0, 1]), 2, **{option: [0, 1, 2]})


@pytest.mark.parametrize("grouped", [False, True])
def test_samples_of_a_periodic_table_are_fair(grouped):
    groups = np.arange(6000) // 3 if grouped else None
    some = sampled(groups, 6000, 900, np.random.default_rng(0))
    assert 890 < len(some) <= 900
    assert (np.diff(some) > 0).all()
    for period in (2, 3, 4, 5, 7, 8):
        share = np.bincount(some % period, minlength=period) / len(some)
        assert np.abs(share - 1 / period).max() < 0.05
    assert np.ptp(np.bincount(some * 4 // 6000)) < 120  # from all over the table
    if grouped:
        assert np.isin(groups[some], groups[some]).sum() == 3 * len(set(groups[some]))
    np.testing.assert_array_equal(sampled(groups, 6000, 6000, np.random.default_rng(0)), np.arange(6000))


def test_a_periodic_table_beyond_the_limits_of_samples_is_judged_as_any(monkeypatch):
    world = blobs(2400, symmetric(4, 0.3))
    order = np.argsort(world.true, kind="stable").reshape(4, 600).T.ravel()
    features, labels, wrong = world.features[order], world.given[order], world.wrong[order]
    assert (world.true[order] == np.arange(2400) % 4).all()
    monkeypatch.setattr(probe, "_PENALTY_CELLS", 400)
    monkeypatch.setattr(probe, "_FIT_CELLS", 1600)
    monkeypatch.setattr(probe, "_MOST_FIT_ROWS", 400)
    fitted_to = []
    calibrate = probe.calibrate
    monkeypatch.setattr(
        probe, "calibrate", lambda v, given, *w: fitted_to.append(len(given)) or calibrate(v, given, *w)
    )
    _, quality = fit_probe(features, labels, 4)
    assert fitted_to == [400]
    assert average_precision_score(wrong, 1 - quality.clean_probability) > 0.95
    assert quality.noise_rate == pytest.approx(wrong.mean(), abs=0.05)


@pytest.mark.parametrize("grouped", [False, True])
def test_twice_is_the_same(grouped, monkeypatch):
    monkeypatch.setattr(probe, "_FIT_CELLS", 900)
    world = linear(500, symmetric(3, 0.2))
    groups = np.arange(500) // 2 if grouped else None
    one, other = (fit_probe(world.features, world.given, 3, groups=groups)[1] for _ in range(2))
    np.testing.assert_array_equal(one.clean_probability, other.clean_probability)
    assert one.noise_rate_interval == other.noise_rate_interval


def test_memory_holds_few_classes_of_each_row(monkeypatch):
    monkeypatch.setattr(interval, "_DRAWS", 2)
    world = blobs(900, symmetric(70, 0.2), dimensions=70)
    _, whole = fit_probe(world.features, world.given, 70)
    assert whole.pred_probs.classes.shape == (900, 32)
    chunks = probe._chunks
    monkeypatch.setattr(probe, "_chunks", lambda *table: chunks(*table[:2], 1 << 22))
    _, parts = fit_probe(world.features, world.given, 70)
    np.testing.assert_allclose(parts.clean_probability, whole.clean_probability, atol=1e-4)
