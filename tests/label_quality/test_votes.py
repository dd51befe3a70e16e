"""Several sources of labels: how often each errs, and errors that the text explains."""

import numpy as np
import pytest
from cleanlab.multiannotator import get_majority_vote_label
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import blobs, drawn, symmetric

from clear_peft.errors import InputError
from clear_peft.label_quality import (
    TopProbs,
    consensus,
    evidence,
    fit_probe,
    reliability,
    with_verified,
    with_votes,
)
from clear_peft.label_quality.verified import chosen
from clear_peft.label_quality.votes import check_votes, fit_votes, share_of_votes

CLASSES = 4


def annotators(rates, cover=1.0, size=600, seed=0, distance=5.0):
    """A world, and what annotators say of it who err at a rate each, any class for any."""
    world = blobs(size, np.eye(CLASSES), distance=distance, seed=seed)
    rng = np.random.default_rng(seed + 1)
    votes = np.stack([drawn(symmetric(CLASSES, rate)[world.true], rng) for rate in rates], axis=1)
    votes[rng.random(votes.shape) >= cover] = -1
    return world, votes


def reasoned(size=1000, seed=0):
    """Labels that are wrong for a reason: of half of all kinds of rows, 70 %. An opinion errs by chance."""
    kinds, rng = blobs(size, np.eye(8), distance=5.0, seed=seed), np.random.default_rng(seed + 1)
    true, of_other_kind = kinds.true % 4, kinds.true >= 4
    labels = np.where(of_other_kind & (rng.random(size) < 0.7), (true + 1) % 4, true)
    return kinds.features, true, labels, drawn(symmetric(CLASSES, 0.3)[true], rng)


def judged(features, labels, votes, **more):
    return fit_probe(features, labels, CLASSES, votes=votes, **more)


def dawid_skene(votes, classes, steps):
    """By the paper, row by row."""
    size, sources = votes.shape
    beliefs = np.full((size, classes), 0.3)
    for row in range(size):
        for source in range(sources):
            if votes[row, source] >= 0:
                beliefs[row, votes[row, source]] += 1
    beliefs /= beliefs.sum(axis=1, keepdims=True)
    for _ in range(steps):
        tables = np.full((sources, classes, classes), 0.3 / classes) + 0.7 * np.eye(classes)
        for row in range(size):
            for source in range(sources):
                if votes[row, source] >= 0:
                    tables[source, :, votes[row, source]] += beliefs[row]
        tables /= tables.sum(axis=2, keepdims=True)
        shares = beliefs.mean(axis=0)
        for row in range(size):
            likely = shares.copy()
            for source in range(sources):
                if votes[row, source] >= 0:
                    likely = likely * tables[source, :, votes[row, source]]
            beliefs[row] = likely / likely.sum()
    return beliefs


def test_the_consensus_is_that_of_dawid_and_skene():
    _, votes = annotators((0.1, 0.6, 0.4), cover=0.7, size=120)
    beliefs = dawid_skene(votes, CLASSES, 30)
    silent = (votes < 0).all(axis=1)
    assert silent.any()
    found = consensus(votes, CLASSES)
    assert (found[silent] == -1).all()
    np.testing.assert_array_equal(found[~silent], beliefs.argmax(axis=1)[~silent])


def test_the_consensus_is_better_than_the_majority_where_some_err_often():
    world, votes = annotators((0.05, 0.7, 0.7, 0.7), size=1000)
    majority = get_majority_vote_label(votes)
    assert (consensus(votes, CLASSES) == world.true).mean() > (majority == world.true).mean() + 0.1


def test_what_each_source_is_worth_is_found():
    rates = np.array([0.1, 0.3, 0.5])
    world, votes = annotators(rates, cover=0.8)
    _, quality = judged(world.features, consensus(votes, CLASSES).clip(0), votes)
    np.testing.assert_allclose(reliability(votes, quality.pred_probs), 1 - rates, atol=0.05)
    assert (quality.predicted == world.true).mean() > 0.97


def test_errors_that_follow_from_the_text_are_seen_beside_another_source():
    features, true, labels, opinion = reasoned()
    wrong = labels != true
    _, alone = fit_probe(features, labels, CLASSES)
    _, both = judged(features, labels, np.stack([labels, opinion], axis=1))
    assert alone.noise_rate < wrong.mean() / 2
    assert both.noise_rate == pytest.approx(wrong.mean(), abs=0.05)
    assert (alone.predicted == true).mean() < 0.6
    assert (both.predicted == true).mean() > 0.85


def test_the_source_whose_errors_follow_from_the_text_is_told_from_the_other():
    features, _, labels, opinion = reasoned()
    votes = np.stack([labels, opinion], axis=1)
    voted, _, _ = fit_votes(features, None, np.ones(len(features)), votes, CLASSES, None)
    by_text, by_chance = (source.share for source in voted.sources)
    assert by_text > by_chance + 0.2


def test_one_row_of_votes_more_counts_for_what_it_says():
    world, votes = annotators((0.3, 0.3))
    votes[0] = world.true[0]
    _, right = judged(world.features, world.true, votes)
    votes[0] = (world.true[0] + 1) % CLASSES
    _, wrong = judged(world.features, world.true, votes)
    assert right.clean_probability[0] > wrong.clean_probability[0]


def test_probabilities_are_of_all_votes_and_the_label_says_nothing_more():
    world, votes = annotators((0.2, 0.4), cover=0.6)
    _, quality = judged(world.features, world.true, votes)
    beliefs = quality.pred_probs.dense()
    np.testing.assert_allclose(quality.noise.posterior(beliefs, quality.given), beliefs, atol=1e-6)
    assert quality.source == "votes"
    assert quality.noise_rate_interval is None
    place = np.arange(len(beliefs))
    # but for classes with few rows
    np.testing.assert_allclose(quality.clean_probability, beliefs[place, quality.given], atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(3)), st.permutations(range(CLASSES)))
def test_neither_the_order_of_sources_nor_of_classes_matters(seed, sources, classes):
    world, votes = annotators((0.1, 0.3, 0.5), cover=0.7, size=160, seed=seed)
    classes, counted = np.array(classes), np.ones(160)

    def beliefs(votes):
        return fit_votes(world.features, None, counted, votes, CLASSES, None)[2]

    before = beliefs(votes)
    np.testing.assert_allclose(beliefs(votes[:, sources]), before, atol=1e-6)
    renamed = np.where(votes >= 0, classes[votes], -1)
    # L-BFGS-B stops a little elsewhere
    np.testing.assert_allclose(beliefs(renamed)[:, classes], before, atol=2e-2)


def test_rows_beyond_those_that_are_fitted_to_are_judged_alike(monkeypatch):
    world, votes = annotators((0.2, 0.4), size=1200)
    _, whole = judged(world.features, world.true, votes)
    monkeypatch.setattr(evidence, "rows_to_learn", lambda classes: 800)
    _, parts = judged(world.features, world.true, votes)
    assert np.abs(whole.clean_probability - parts.clean_probability).mean() < 0.02


def test_what_is_said_only_of_rows_that_are_not_fitted_to_counts_there(monkeypatch):
    world, votes = annotators((0.2, 0.4), size=200)
    monkeypatch.setattr(evidence, "rows_to_learn", lambda classes: 150)
    unfitted = np.setdiff1d(np.arange(200), chosen(None, np.full(200, -1), 150))
    some = unfitted[:3]
    rare = np.full(200, -1)
    rare[some] = world.true[some]
    _, before = judged(world.features, world.true, votes)
    _, after = judged(world.features, world.true, np.column_stack([votes, rare]))
    others = np.setdiff1d(np.arange(200), some)
    np.testing.assert_array_equal(after.pred_probs.dense()[others], before.pred_probs.dense()[others])
    right = world.true[some]
    assert (after.pred_probs.dense()[some, right] > before.pred_probs.dense()[some, right]).all()


def test_other_rows_are_judged_without_votes():
    world, votes = annotators((0.2, 0.4))
    probe, _ = judged(world.features[:400], world.true[:400], votes[:400])
    found = probe.judge(world.features[400:], world.true[400:])
    assert (found.pred_probs.argmax(axis=1) == world.true[400:]).mean() > 0.95
    assert found.clean_probability.mean() > 0.9


def test_copies_do_not_vote_more_than_once():
    world, votes = annotators((0.2, 0.3), size=200)
    groups = np.arange(200)
    _, once = judged(world.features, world.true, votes)
    many = np.r_[np.arange(200), np.zeros(100, int)]
    _, copied = judged(world.features[many], world.true[many], votes[many], groups=groups[many])
    np.testing.assert_allclose(copied.clean_probability[1:200], once.clean_probability[1:], atol=0.05)


def test_verified_rows_are_believed_whatever_the_votes_say():
    features, true, labels, opinion = reasoned(400)
    verified = np.where(np.arange(400) < 40, true, -1)
    votes = np.stack([labels, opinion], axis=1)
    probe, quality = fit_probe(features, labels, CLASSES)
    probe, quality = with_votes(probe, quality, features, votes)
    _, believed = with_verified(probe, quality, features, verified)
    assert (believed.clean_probability[:40] == (true == labels)[:40]).all()
    np.testing.assert_array_equal(believed.predicted[:40], true[:40])
    _, at_once = judged(features, labels, votes, verified=verified)
    np.testing.assert_array_equal(at_once.clean_probability, believed.clean_probability)


@pytest.mark.parametrize("few", [1, 5, 12])
def test_a_source_may_say_very_little(few):
    world, votes = annotators((0.2, 0.4), size=200)
    votes[few:, 1] = -1
    _, quality = judged(world.features, world.true, votes)
    assert np.isfinite(quality.clean_probability).all()
    assert (quality.predicted == world.true).mean() > 0.9


def test_a_source_that_says_nothing_changes_nothing():
    world, votes = annotators((0.2, 0.4), size=200)
    silent = np.full((200, 1), -1)
    _, before = judged(world.features, world.true, votes)
    _, after = judged(world.features, world.true, np.hstack([votes, silent]))
    np.testing.assert_array_equal(before.clean_probability, after.clean_probability)
    _, alone = fit_probe(world.features, world.true, CLASSES)
    _, nobody = judged(world.features, world.true, silent)
    np.testing.assert_array_equal(alone.clean_probability, nobody.clean_probability)


def test_the_share_of_votes_is_even_where_there_are_none():
    shares = share_of_votes(np.array([[-1, -1], [2, -1], [2, 0]]), 3)
    np.testing.assert_allclose(shares[0], 1 / 3)
    np.testing.assert_allclose(shares[1], np.array([0.3, 0.3, 1.3]) / 1.9)
    np.testing.assert_allclose(shares[2], np.array([1.3, 0.3, 1.3]) / 2.9)


def test_classes_together_begin_with_two_votes_at_most():
    shares = share_of_votes(np.array([[0, 0]]), 50)
    np.testing.assert_allclose(shares[0], [2.04 / 4, *[0.04 / 4] * 49])


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        (np.zeros(5, int), "a column for each source"),
        (np.zeros((4, 2), int), "a column for each source"),
        (np.zeros((5, 0), int), "a column for each source"),
        (np.zeros((5, 2)), "whole numbers from -1 to 2"),
        (np.full((5, 1), 3), "whole numbers from -1 to 2"),
        (np.full((5, 1), -2), "whole numbers from -1 to 2"),
    ],
)
def test_what_is_no_table_of_votes_is_refused(votes, said):
    with pytest.raises(InputError, match=said):
        check_votes(votes, 5, 3)


def test_nobody_is_sure_beyond_what_numbers_can_hold():
    """Sources that always agree leave nothing for a class that one of them named once."""
    votes = np.repeat(np.arange(300)[:, None] % 2, 12, axis=1)
    votes[0, 0] = 5
    found = consensus(votes, 6)
    assert found.tolist() == (np.arange(300) % 2).tolist()


def test_of_a_source_that_says_nothing_no_share_is_right():
    beliefs = TopProbs.of(np.full((4, 2), 0.5))
    votes = np.array([[0, -1], [1, -1], [0, -1], [1, -1]])
    assert np.array_equal(reliability(votes, beliefs), [0.5, np.nan], equal_nan=True)


@pytest.mark.parametrize("classes", [30, 77])
def test_a_second_opinion_does_no_harm_with_many_classes(classes):
    rng, true = np.random.default_rng(0), np.arange(12 * classes) % classes
    features = 1.5 * rng.normal(size=(classes, 24))[true] + rng.normal(size=(len(true), 24))

    def source(rate):
        return np.where(rng.random(len(true)) < rate, rng.integers(0, classes, len(true)), true)

    given, opinion = source(0.3), np.where(rng.random(len(true)) < 0.6, source(0.2), -1)
    _, quality = fit_probe(features, given, classes, votes=np.stack([given, opinion], axis=1))
    assert quality.noise_rate == pytest.approx((given != true).mean(), abs=0.02)
    assert ((quality.clean_probability < 0.5) == (given != true)).mean() > 0.98


@pytest.mark.parametrize("rows", [None, 100])
def test_the_probability_of_the_given_label_is_that_of_the_predictions(monkeypatch, rows):
    if rows is not None:  # the others are judged by a probe that has not seen them
        monkeypatch.setattr(evidence, "rows_to_learn", lambda _: rows)
    world, votes = annotators((0.3, 0.1), cover=0.7)
    _, quality = fit_probe(world.features, world.given, CLASSES, votes=votes)
    own = quality.pred_probs.dense()[np.arange(len(quality)), quality.given]
    assert np.array_equal(quality.self_confidence, own)
