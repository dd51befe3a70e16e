"""Verified rows: they make visible what looks right, and never make things worse."""

import json
from functools import cache

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from worlds import World, blobs, class_conditional, linear, pair, symmetric

from clear_peft.errors import InputError
from clear_peft.label_quality import LabelQuality, fit_probe, noise_rate_from_sample, verified, with_verified
from clear_peft.label_quality.verified import check_verified, chosen
from clear_peft.run_folder.quality_file import load_label_quality, save_label_quality


def reasoned(size=800, seed=0):
    """A world of labels that are wrong for a reason: of the two kinds of rows of each class, all of one."""
    kinds = blobs(size, np.eye(8), distance=5.0, seed=seed)
    true, other = kinds.true // 2, kinds.true % 2
    return World(kinds.features, kinds.scores[:, ::2], true, (true + other) % 4)


def answers(world, k, seed=0, errs=0.0):
    """True classes of k random rows, by reviewers who err, and −1 elsewhere."""
    rng = np.random.default_rng(seed)
    some = rng.choice(len(world.true), k, replace=False)
    told = np.full(len(world.true), -1)
    told[some] = world.true[some]
    off = some[rng.random(k) < errs]
    told[off] = (told[off] + 1) % (world.true.max() + 1)
    return told


@cache
def ignoring(make):
    world = make()
    return world, *fit_probe(world.features, world.given, int(world.true.max()) + 1)


def conditional(size=800):
    return blobs(size, class_conditional(4, 0.3), distance=5.0)


def drawn(size=800):
    return blobs(size, symmetric(4, 0.4), distance=5.0)


def flipped(size=800):
    return linear(size, pair(4, 0.3), sharpness=8.0)


def clean(size=800):
    return linear(size, np.eye(3), sharpness=8.0)


def precision(world, quality, others):
    return average_precision_score(world.wrong[others], 1 - quality.clean_probability[others])


def same(one, other):
    (arrays, rest), (others, told) = one.arrays(), other.arrays()
    return rest == told and all(np.array_equal(arrays[name], others[name]) for name in arrays | others)


def test_without_verified_rows_nothing_changes():
    world, probe, quality = ignoring(drawn)
    none = np.full(len(world.true), -1)
    again, told = fit_probe(world.features, world.given, 4, verified=none)
    assert again.verified is told.verified is told.blind_probability is None
    assert same(quality, told)
    assert with_verified(probe, quality, world.features, none) == (probe, quality)


@pytest.mark.parametrize(("k", "classes"), [(1, 4), (4, 4), (5, 70), (40, 4)])
def test_a_verified_row_is_what_the_answer_says(k, classes):
    world, told = drawn(), answers(drawn(), k)
    _, quality = fit_probe(world.features, world.given, classes, verified=told)
    known = told >= 0
    np.testing.assert_array_equal(quality.verified, told)
    np.testing.assert_array_equal(quality.clean_probability[known], (told == world.given)[known])
    assert quality.predicted[known].tolist() == told[known].tolist()
    assert (quality.pred_probs.dense()[known].max(axis=1) == 1).all()
    np.testing.assert_array_equal(quality.self_confidence[known], quality.clean_probability[known])
    np.testing.assert_array_equal(quality.blind_probability[~known], quality.clean_probability[~known])
    assert ((quality.clean_probability > 0) & (quality.clean_probability < 1))[~known].all()
    low, high = quality.noise_rate_interval
    assert 0 <= low <= quality.noise_rate <= high <= 1
    np.testing.assert_allclose(quality.noise.transition.sum(axis=1), 1)


def test_the_first_part_can_be_kept_for_all_rounds_of_a_review():
    world, probe, quality = ignoring(reasoned)
    told = answers(world, 30)
    fitted, at_once = fit_probe(world.features, world.given, 4, verified=told)
    again, in_parts = with_verified(probe, quality, world.features, told)
    assert same(at_once, in_parts)
    for one, other in zip(*(p.judge(world.features, world.given) for p in (fitted, again)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_noise_that_follows_from_the_features_becomes_visible():
    world, _, blind = ignoring(reasoned)
    told = answers(world, 100)
    probe, quality = fit_probe(world.features, world.given, 4, verified=told)
    others = told < 0
    assert precision(world, blind, others) < 0.6
    assert precision(world, quality, others) > 0.95
    assert blind.noise_rate < 0.05
    assert quality.noise_rate == pytest.approx(world.wrong.mean(), abs=0.1)
    assert (blind.predicted == world.true).mean() < 0.6
    assert (quality.predicted == world.true)[others].mean() > 0.8
    fresh = reasoned(400)  # other rows of the same kinds
    assert (probe.judge(fresh.features, fresh.given).pred_probs.argmax(axis=1) == fresh.true).mean() > 0.8


@pytest.mark.parametrize(("k", "errs"), [(5, 0.0), (10, 0.0), (30, 0.1)])
@pytest.mark.parametrize("make", [drawn, flipped, conditional, reasoned])
def test_they_never_make_it_worse(make, k, errs):
    world, probe, blind = ignoring(make)
    gaps = []
    for seed in range(2):
        told = answers(world, k, seed, errs)
        _, quality = with_verified(probe, blind, world.features, told)
        others = told < 0
        gaps.append(
            (
                precision(world, quality, others) - precision(world, blind, others),
                (quality.predicted == world.true)[others].mean()
                - (blind.predicted == world.true)[others].mean(),
            )
        )
    assert np.min(np.mean(gaps, axis=0)) > -0.02


def test_what_no_answer_can_be_left_out_of_is_not_followed():
    """Opinions cannot be weighed: all rows are in one group."""
    world, told = reasoned(200), answers(reasoned(200), 20)
    groups = np.zeros(200, int)
    _, blind = fit_probe(world.features, world.given, 4, groups=groups)
    _, quality = fit_probe(world.features, world.given, 4, groups=groups, verified=told)
    others = told < 0
    np.testing.assert_array_equal(quality.predicted[others], blind.predicted[others])


def test_right_labels_stay_right():
    world, _, _ = ignoring(clean)
    _, quality = fit_probe(world.features, world.given, 3, verified=answers(world, 30))
    assert quality.is_label_issue.mean() < 0.03


def test_in_whatever_order_the_rows_stand():
    world = reasoned(400)
    groups = np.arange(400) // 2 * (np.arange(400) < 40)
    told = answers(world, 20)
    order = np.random.default_rng(3).permutation(400)
    _, one = fit_probe(world.features, world.given, 4, groups=groups, verified=told)
    _, other = fit_probe(
        world.features[order], world.given[order], 4, groups=groups[order], verified=told[order]
    )
    np.testing.assert_allclose(one.clean_probability[order], other.clean_probability, atol=0.02)
    np.testing.assert_allclose(one.pred_probs.dense()[order], other.pred_probs.dense(), atol=0.02)


def test_the_answer_to_a_row_says_nothing_of_its_copies():
    rng = np.random.default_rng(0)
    # features tell nothing but which rows are copies
    features, groups = np.repeat(rng.normal(size=(150, 200)), 2, axis=0), np.repeat(np.arange(150), 2)
    labels, told = rng.integers(0, 2, 300), np.full(300, -1)
    told[0:160:2] = rng.integers(0, 2, 80)
    copies, answered = np.arange(1, 160, 2), told[0:160:2]
    _, apart = fit_probe(features, labels, 2, groups=groups, verified=told)
    _, unaware = fit_probe(features, labels, 2, verified=told)
    assert abs(apart.pred_probs.dense()[copies, answered].mean() - 0.5) < 0.12
    assert unaware.pred_probs.dense()[copies, answered].mean() > 0.65


def test_rows_that_opinions_were_not_formed_on_are_judged_as_well(monkeypatch):
    world, _, _ = ignoring(reasoned)
    told = answers(world, 100)
    monkeypatch.setattr(verified, "_MOST_ROWS", 300)
    monkeypatch.setattr(verified, "_LAST_ROWS", 400)
    probe, quality = fit_probe(world.features, world.given, 4, verified=told)
    fitted = np.isin(np.arange(800), chosen(None, told, 400))
    assert fitted.sum() == 400
    assert fitted[told >= 0].all()
    for rows in (fitted, ~fitted):
        assert precision(world, quality, rows & (told < 0)) > 0.85
    # but for the fit that ignores verified rows, which has seen them
    judged = probe.judge(world.features[~fitted], world.given[~fitted])
    np.testing.assert_allclose(judged.clean_probability, quality.clean_probability[~fitted], atol=0.1)
    np.testing.assert_allclose(judged.pred_probs, quality.pred_probs.dense()[~fitted], atol=0.01)


def test_whole_groups_are_chosen_those_of_verified_rows_first():
    groups, told = np.arange(600) // 3, np.full(600, -1)
    told[[0, 100, 599]] = 1
    some = chosen(groups, told, 60)
    assert len(some) == 60
    assert np.isin([0, 1, 2, 99, 100, 101, 597, 598, 599], some).all()
    assert (np.bincount(groups[some])[np.unique(groups[some])] == 3).all()
    np.testing.assert_array_equal(chosen(groups, told, 600), np.arange(600))


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("prior", [False, True])
def test_views_and_prior_scores(views, prior):
    world = reasoned(400)
    told = answers(world, 60)
    features = (
        np.stack([world.features, 5 * world.features[:, ::-1] + 2], axis=1) if views else world.features
    )
    scores = world.scores if prior else None
    probe, quality = fit_probe(features, world.given, 4, prior_scores=scores, verified=told)
    assert precision(world, quality, told < 0) > 0.85
    found = probe.judge(features, world.given, scores)
    assert (found.pred_probs.argmax(axis=1) == world.true).mean() > 0.85


@pytest.mark.parametrize(
    "told",
    [
        np.zeros(120, int),  # one class alone
        np.r_[np.zeros(8, int), np.full(112, -1)],
        np.r_[np.full(115, -1), [0, 1, 2, 3, 4]],  # the last has no label
        np.arange(120) % 4,
    ],
)
@pytest.mark.parametrize("groups", [None, np.arange(120) // 60, np.arange(120) // 5])
def test_odd_answers_and_odd_groups(told, groups):
    world = blobs(120, symmetric(4, 0.2))
    _, quality = fit_probe(world.features, world.given, 5, groups=groups, verified=told)
    assert np.isfinite(quality.pred_probs.dense()).all()
    assert ((quality.clean_probability >= 0) & (quality.clean_probability <= 1)).all()


def test_rows_that_are_all_alike():
    told = np.r_[np.arange(20) % 2, np.full(80, -1)]
    _, quality = fit_probe(np.ones((100, 3)), np.arange(100) % 2, 2, verified=told)
    assert np.isfinite(quality.clean_probability).all()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (np.zeros(3, int), r"shape \(3,\).*each of the 4 rows"),
        (np.zeros((4, 1), int), "shape"),
        (np.array([0, 1, 2, -1]), r"from -1 to 1.*true class"),
        (np.array([0, 1, -2, -1]), "from -1 to 1"),
        (np.array([0.0, 1.0, -1.0, np.nan]), "from -1 to 1"),
        (np.array(["a", "b", "c", "d"]), "from -1 to 1"),
        (np.array([True, False, True, False]), "from -1 to 1"),
    ],
)
def test_what_is_no_answer_is_refused(told, message):
    with pytest.raises(InputError, match=message):
        fit_probe(np.eye(4), np.array([0, 1, 0, 1]), 2, verified=told)


def test_no_answers():
    assert check_verified(None, 3, 2) is None
    assert check_verified([-1, -1, -1], 3, 2) is None


@cache
def answered():
    world = reasoned(200)
    return fit_probe(world.features, world.given, 4, verified=answers(world, 20))[1]


def test_a_file_says_which_rows_are_verified(tmp_path):
    quality, names = answered(), ["a", "b", "c", "d"]
    save_label_quality(tmp_path / "quality", quality, names, noise_found=True)
    back, _ = load_label_quality(tmp_path / "quality", names)
    assert same(quality, back)
    parts = [
        LabelQuality(
            quality.given[some],
            quality.pred_probs[some],
            quality.self_confidence[some],
            quality.clean_probability[some],
            quality.noise,
            quality.noise_rate_interval,
            quality.groups[some],
            row=some,
            verified=quality.verified[some],
            blind_probability=quality.blind_probability[some],
        )
        for some in (np.arange(1, 200, 2), np.arange(0, 200, 2))
    ]
    assert same(LabelQuality.concatenate(parts), back)


@pytest.mark.parametrize(
    "change",
    [
        {"verified": np.zeros(3, np.int64)},
        {"verified": np.zeros(200)},
        {"verified": np.full(200, 4)},
        {"verified": np.full(200, -2)},
        {"blind_probability": np.full(200, 2, np.float32)},
        {"blind_probability": np.zeros(200)},
        {"blind_probability": None},
        {"verified": None},
    ],
    ids=lambda change: str(change)[:50],
)
def test_a_damaged_file_is_refused(change):
    arrays, rest = answered().arrays()
    damaged = {name: array for name, array in (arrays | change).items() if array is not None}
    with pytest.raises(ValueError, match=r"\w"):
        LabelQuality.from_arrays(damaged, json.loads(json.dumps(rest)))


def sampled(k, quality, seed=0, size=2000, rate=0.3):
    """A table with p of some quality, and a random sample of it."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(size) < rate
    p = 1 / (1 + np.exp(rng.normal(size=size) + np.where(wrong, quality, -quality)))
    told, chance = np.full(size, -1), np.zeros(size, bool)
    chance[rng.choice(size, k, replace=False)] = True
    told[chance] = wrong[chance]
    return wrong, (p, told, np.zeros(size, int), chance)


@pytest.mark.parametrize(
    ("wrong", "k", "low", "high"), [(0, 10, 0, 0.308), (3, 12, 0.055, 0.572), (9, 9, 0.664, 1)]
)
def test_a_few_sampled_rows_give_the_interval_of_clopper_and_pearson(wrong, k, low, high):
    told = np.full(50, -1)
    told[:k] = np.arange(k) < wrong
    rate, interval = noise_rate_from_sample(np.full(50, 0.7), told, np.zeros(50, int), told >= 0)
    assert rate == pytest.approx(wrong / k)
    assert interval == pytest.approx((low, high), abs=1e-3)


def test_a_good_p_makes_the_interval_narrow():
    _, useless = sampled(200, 0.0)
    _, good = sampled(200, 3.0)
    widths = [np.diff(noise_rate_from_sample(*table)[1])[0] for table in (useless, good)]
    assert widths[1] < 0.6 * widths[0]


@pytest.mark.parametrize("quality", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("k", [12, 60])
def test_the_interval_of_a_sample_covers(k, quality):
    covered = 0
    for seed in range(100):
        wrong, table = sampled(k, quality, seed)
        rate, (low, high) = noise_rate_from_sample(*table)
        assert low <= rate <= high
        covered += low <= wrong.mean() <= high
    assert covered >= 90


def test_rows_drawn_with_unequal_chances_count_unequally():
    wrong, (p, _, given, _) = sampled(1, 0.0, rate=0.3)
    rng = np.random.default_rng(1)
    chances = np.where(wrong, 0.4, 0.1)  # wrong rows are seen more often than they occur
    drawn = rng.random(len(p)) < chances
    told = np.where(drawn, wrong, -1)
    rate, (low, high) = noise_rate_from_sample(p, told, given, np.where(drawn, 1 / chances, 0.0))
    assert rate == pytest.approx(wrong.mean(), abs=0.05)
    assert low <= wrong.mean() <= high
    assert noise_rate_from_sample(p, told, given, drawn)[0] > 0.5


def test_what_is_no_sample_is_refused():
    with pytest.raises(InputError, match="not of one shape"):
        noise_rate_from_sample([0.5], [1, 1], [1, 1], [True, True])
    with pytest.raises(InputError, match="verify some random rows"):
        noise_rate_from_sample([0.5, 0.5], [1, -1], [1, 1], [False, True])
