"""With the real cleanlab: our scores in its Datalab, its probabilities as our prior."""

import numpy as np
import pytest
from cleanlab import Datalab
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from scipy.stats import spearmanr
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict

from audit.written_run import NAMES, issues_of, judged, quality_of
from clear_peft.audit import add_to_datalab, audit, from_pred_probs
from clear_peft.errors import InputError

# of datasets, which Datalab keeps its table in
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cross_validated():
    """Given and true labels, and out-of-sample probabilities as cleanlab's documentation makes them."""
    features, true = make_classification(
        900, n_features=12, n_informative=8, n_classes=3, class_sep=2.0, random_state=0
    )
    rng = np.random.default_rng(0)
    wrong = rng.random(900) < 0.25
    label = np.where(wrong, (true + rng.integers(1, 3, 900)) % 3, true)
    model = LogisticRegression()
    return label, wrong, cross_val_predict(model, features, label, cv=5, method="predict_proba")


def test_cleanlab_s_probabilities_give_our_list(cross_validated):
    label, wrong, pred_probs = cross_validated
    issues = from_pred_probs(label, pred_probs, names=NAMES)
    quality = issues.set_index("row").sort_index()["label_quality"]
    assert spearmanr(quality, get_label_quality_scores(label, pred_probs)).statistic > 0.9
    assert issues["given_label"].tolist() == [NAMES[i] for i in label[issues["row"]]]
    suspicion = -np.argsort(issues["row"])
    theirs = find_label_issues(label, pred_probs, n_jobs=1)
    ours = issues.set_index("row").sort_index()["is_label_issue"].to_numpy()
    assert average_precision_score(wrong, suspicion) > 0.8
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.7
    assert (1 - issues["clean_probability"]).mean() == pytest.approx(wrong.mean(), abs=0.05)


def test_our_probabilities_in_datalab():
    label, _, probabilities, losses = judged(rows=300, sharpness=5)
    lab = Datalab({"label": [NAMES[i] for i in label]}, label_name="label", verbosity=0)
    lab.find_issues(pred_probs=probabilities, issue_types={"label": {}})
    theirs = lab.get_issues("label")
    quality = quality_of(label, probabilities, losses)
    issues = audit(issues_of(label, probabilities, losses), quality, NAMES, noise_found=True).issues
    by_row = issues.set_index("row").sort_index()
    np.testing.assert_allclose(theirs["label_score"], by_row["label_quality"], rtol=1e-6)  # ours are float32
    assert theirs["predicted_label"].tolist() == by_row["predicted_label"].tolist()
    assert theirs["given_label"].tolist() == by_row["given_label"].tolist()


def test_our_verdict_in_datalab(capsys):
    label, _, probabilities, losses = judged(rows=300, sharpness=5)
    issues = issues_of(label, probabilities, losses)
    by_row = issues.set_index("row").sort_index()
    for _ in range(2):  # the second replaces the first's list, without a word
        lab = Datalab({"label": [NAMES[i] for i in label]}, label_name="label", verbosity=0)
        add_to_datalab(lab, issues)
    assert capsys.readouterr().out == ""
    found = lab.get_issues("clear_label")
    np.testing.assert_allclose(found["clear_label_score"], by_row["clean_probability"])
    assert found["is_clear_label_issue"].tolist() == by_row["is_label_issue"].tolist()
    summary = lab.get_issue_summary("clear_label").iloc[0]
    assert summary["num_issues"] == issues["is_label_issue"].sum()
    lab.find_issues(pred_probs=probabilities, issue_types={"label": {}})
    assert set(lab.get_issue_summary()["issue_type"]) == {"label", "clear_label"}
    lab.report()
    assert "more likely wrong than right" in capsys.readouterr().out


def test_a_datalab_of_another_table():
    label, _, probabilities, losses = judged(rows=30)
    lab = Datalab({"label": ["a", "b"] * 5}, label_name="label", verbosity=0)
    with pytest.raises(InputError, match="30 rows and the Datalab 10"):
        add_to_datalab(lab, issues_of(label, probabilities, losses))


@pytest.mark.parametrize(
    ("labels", "pred_probs", "names", "sentence"),
    [
        ([0, 1], [[0.5, 0.5]], None, "shape"),
        ([], np.zeros((0, 2)), None, "shape"),
        ([0, 2], [[0.5, 0.5]] * 2, None, "from 0 to 1: give class ids"),
        ([0, -1], [[0.5, 0.5]] * 2, None, "class ids"),
        ([0.5, 1], [[0.5, 0.5]] * 2, None, "class ids"),
        ([0, 1], [[0.5, 0.9]] * 2, None, "sum to 1"),
        ([0, 1], [[1.5, -0.5]] * 2, None, "sum to 1"),
        ([0, 1], [[0.5, 0.5]] * 2, ["a"], "1 different names and 2 classes: give each"),
        ([0, 1], [[0.5, 0.5]] * 2, ["a", "a"], "1 different names and 2 classes: give each"),
    ],
)
def test_wrong_input(labels, pred_probs, names, sentence):
    with pytest.raises(InputError, match=sentence):
        from_pred_probs(labels, pred_probs, names=names)


def test_labels_that_are_all_right_are_believed_by_who_had_to_learn_them():
    features, true = make_classification(
        900, n_features=12, n_informative=8, n_classes=3, class_sep=2.0, random_state=0
    )
    pred_probs = cross_val_predict(LogisticRegression(), features, true, cv=5, method="predict_proba")
    issues = from_pred_probs(true, pred_probs)
    assert issues["is_label_issue"].mean() < 0.01
    assert (1 - issues["clean_probability"]).mean() < 0.02


def test_right_labels_are_not_listed():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 200)
    sure = rng.uniform(0.667, 1, 200)
    pred_probs = np.tile(((1 - sure) / 3)[:, None], (1, 4))
    pred_probs[np.arange(200), label] = sure
    assert not from_pred_probs(label, pred_probs)["is_label_issue"].any()


def test_labels_may_be_true_or_false():
    sure, unsure = [[0.1, 0.9], [0.9, 0.1]] * 20, [[0.8, 0.2]]
    issues = from_pred_probs([True, False] * 20 + [True], sure + unsure)
    assert issues["row"].tolist()[0] == 40


def test_impossible_and_certain_labels():
    issues = from_pred_probs([0, 1] * 10 + [1], [[1.0, 0.0], [0.0, 1.0]] * 10 + [[1.0, 0.0]])
    assert issues["row"].tolist()[0] == 20
    assert issues["given_label"].tolist()[0] == "1"


def test_copies_count_together(cross_validated):
    label, wrong, pred_probs = cross_validated
    rows = np.concatenate([np.arange(900), np.repeat(np.flatnonzero(wrong)[:20], 50)])
    alone = from_pred_probs(label[rows], pred_probs[rows])
    together = from_pred_probs(label[rows], pred_probs[rows], groups=rows)
    of_others = [issues.set_index("row").loc[:899, "clean_probability"] for issues in (alone, together)]
    plain = from_pred_probs(label, pred_probs).set_index("row").sort_index()["clean_probability"]
    off = [float((p.sort_index() - plain).abs().mean()) for p in of_others]
    assert off[1] < 0.01 < off[0]
