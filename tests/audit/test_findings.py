"""The audit as a whole."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from audit.written_run import NAMES, issues_of, judged, quality_of
from clear_peft.audit import audit
from clear_peft.errors import InputError


def _audit(given, probabilities, losses, texts=None, *, noise_found=True, threshold=0.5, **more):
    issues = issues_of(given, probabilities, losses, texts)
    quality = quality_of(given, probabilities, losses, **more)
    return audit(issues, quality, NAMES, noise_found=noise_found, threshold=threshold)


@pytest.fixture(scope="module")
def model():
    return judged(rows=600, noise=0.3, seed=0, sharpness=5)


def test_what_it_says_is_near_the_truth(model):
    label, true, probabilities, losses = model
    found = _audit(label, probabilities, losses)
    wrong = label != true
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.05)
    listed = found.issues.loc[found.issues["is_label_issue"], "row"]
    assert found.expected_precision == pytest.approx(wrong[listed].mean(), abs=0.05)
    truth = np.zeros((3, 3))
    np.add.at(truth, (true, label), 1 / len(true))
    assert np.abs(found.joint - truth).max() < 0.03
    np.testing.assert_allclose(found.transition.sum(axis=1), 1)
    assert found.joint.sum() == pytest.approx(1)


def test_every_row_is_there_most_suspicious_first(model):
    label, _, probabilities, losses = model
    found = _audit(label, probabilities, losses)
    issues = found.issues
    assert sorted(issues["row"]) == list(range(600))
    assert issues["clean_probability"].is_monotonic_increasing
    assert issues["given_label"].tolist() == [NAMES[i] for i in label[issues["row"]]]
    kinds = {"row": "i", "duplicate_group": "i", "duplicate_conflict": "b", "is_label_issue": "b"}
    assert {name: issues[name].dtype.kind for name in kinds} == kinds
    before = issues_of(label, probabilities, losses)
    shared = [column for column in before.columns if column != "clean_probability"]
    pd.testing.assert_frame_equal(issues[shared], before[shared])


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.9, 1.0])
def test_the_cut(model, threshold):
    label, _, probabilities, losses = model
    found = _audit(label, probabilities, losses, threshold=threshold)
    p = found.issues["clean_probability"]
    assert (found.issues["is_label_issue"] == (p < threshold)).all()
    assert found.expected_precision == pytest.approx((1 - p[p < threshold]).mean())
    assert found.threshold == threshold


def test_rows_that_somebody_has_looked_at_are_not_counted_among_those_to_check(model):
    label, true, probabilities, losses = model
    issues, quality = issues_of(label, probabilities, losses), quality_of(label, probabilities, losses)
    looked = np.argsort(quality.clean_probability)[:60]
    verified, p = np.full(len(label), -1), quality.clean_probability.copy()
    verified[looked], p[looked] = true[looked], true[looked] == label[looked]
    quality = replace(quality, verified=verified, clean_probability=p)
    found = audit(issues, quality, NAMES, noise_found=True)
    left = (p < 0.5) & (verified < 0)
    assert found.expected_precision == pytest.approx((1 - p[left]).mean())


def test_nothing_listed_has_no_precision():
    label, _, probabilities, losses = judged(rows=50, noise=0)
    found = _audit(label, probabilities, losses, p=np.ones(50, np.float32), noise_found=False)
    assert not found.issues["is_label_issue"].any()
    assert found.expected_precision is None
    assert found.noise_rate == 0
    np.testing.assert_array_equal(found.transition, np.eye(3))


def test_texts_that_are_alike_and_labelled_differently(model):
    label, _, probabilities, losses = (part[:6] for part in model)
    label = np.array([0, 0, 1, 2, 1, 2])
    texts = ["Wheat!", "wheat", "rudder", "Rudder.", "anchor", "loom"]
    issues = _audit(label, probabilities, losses, texts).issues.set_index("row").sort_index()
    assert issues["duplicate_group"].tolist() == [0, 0, 1, 1, -1, -1]
    assert issues["duplicate_conflict"].tolist() == [False, False, True, True, False, False]


def test_nothing_is_estimated_anew(model):
    label, _, probabilities, losses = model
    issues = issues_of(label, probabilities, losses)
    for source in ("final_model", "probe", "out_of_sample"):
        found, quality = (f(label, probabilities, losses, source=source) for f in (_audit, quality_of))
        np.testing.assert_array_equal(found.issues["clean_probability"], issues["clean_probability"])
        np.testing.assert_array_equal(found.issues["row"], issues["row"])
        np.testing.assert_array_equal(
            found.issues.sort_values("row")["clean_probability"], quality.clean_probability
        )
        assert found.noise_rate == quality.noise_rate
        assert found.noise_rate == pytest.approx(1 - issues["clean_probability"].mean())


def test_the_interval_says_what_it_assumes(model):
    label, _, probabilities, losses = model
    known = _audit(label, probabilities, losses, source="probe", interval=(0.25, 0.4))
    assert known.said_interval("{:.0%}".format).startswith("95 % interval 25% to 40%; assumes")
    unknown = _audit(label, probabilities, losses)
    assert unknown.said_interval(str) == "no interval: the model was trained on these labels"


def test_whose_predictions(model):
    label, _, probabilities, losses = model
    said = {
        (source, used): _audit(label, probabilities, losses, source=source, noise_found=used).predictions
        for source in ("final_model", "out_of_sample", "probe")
        for used in (True, False)
    }
    assert "not trained to repeat" in said["final_model", True]
    assert "as a ranking" in said["final_model", False]
    assert "has not seen it" in said["out_of_sample", True] == said["out_of_sample", False]
    assert "linear probes" in said["probe", True] == said["probe", False]


@pytest.mark.parametrize(
    ("threshold", "said"), [(0.0, "threshold is 0.0"), (1.5, "is 1.5"), (float("nan"), "is nan")]
)
def test_a_threshold_that_is_none(model, threshold, said):
    label, _, probabilities, losses = model
    with pytest.raises(InputError, match=said):
        _audit(label, probabilities, losses, threshold=threshold)


def test_a_list_of_other_rows(model):
    label, _, probabilities, losses = model
    quality = quality_of(*(part[:599] for part in (label, probabilities, losses)))
    with pytest.raises(InputError, match="not about the 599 rows of the label quality"):
        audit(issues_of(label, probabilities, losses), quality, NAMES, noise_found=True)
