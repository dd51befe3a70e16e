"""Batches, answers and what follows from them."""

import numpy as np
import pandas as pd
import pytest
from tables import CLASSES, ROWS, Silent, written_table

from clear_peft.errors import InputError
from clear_peft.label_quality import noise_rate_from_sample
from clear_peft.pipeline.scan import ScanOptions, scan
from clear_peft.review import Review


def _options(folder, **more):
    return ScanOptions(
        data=str(folder / "table.csv"),
        embeddings=str(folder / "features.npy"),
        output=str(folder / "scan"),
        **more,
    )


def _review(folder, **more):
    return Review(_options(folder), Silent(), **more)


def _answer_batch(review, frame):
    for one in review.state()["batch"]:
        true, given = frame["truth"][one["row"]], frame["label"][one["row"]]
        review.answer(one["row"], "keep" if true == given else "relabel", None if true == given else true)


@pytest.fixture
def frame(tmp_path):
    return written_table(tmp_path)


def test_a_review_asks_writes_answers_down_and_judges_anew(tmp_path, frame):
    review = _review(tmp_path, batch_size=10)
    before = pd.read_csv(tmp_path / "scan" / "label_issues.csv")
    rows = [one["row"] for one in review.state()["batch"]]
    assert len(set(rows)) == 10
    _answer_batch(review, frame)
    written = pd.read_csv(review.path, keep_default_na=False)
    assert sorted(written["row"]) == sorted(rows)
    for row, action, label in zip(written["row"], written["action"], written["label"], strict=True):
        wrong = frame["label"][row] != frame["truth"][row]
        assert (action, label) == (("relabel", frame["truth"][row]) if wrong else ("keep", ""))
    review.judge()
    after = pd.read_csv(tmp_path / "scan" / "label_issues.csv")
    assert "verified" not in before
    assert after["verified"].notna().sum() == 10
    assert not set(rows) & {one["row"] for one in review.state()["batch"]}
    assert not set(rows) & {one["row"] for one in review.state()["suspicious"]}


def test_a_review_says_what_a_scan_with_its_corrections_says(tmp_path, frame):
    review = _review(tmp_path)
    _answer_batch(review, frame)
    review.judge()
    scanned = scan(
        ScanOptions(
            data=str(tmp_path / "table.csv"),
            embeddings=str(tmp_path / "features.npy"),
            verified=str(review.path),
            output=str(tmp_path / "other"),
        ),
        Silent(),
    )
    np.testing.assert_array_equal(scanned.quality.clean_probability, review.quality.clean_probability)
    assert (tmp_path / "scan" / "label_issues.csv").read_bytes() == (
        tmp_path / "other" / "label_issues.csv"
    ).read_bytes()


def test_a_later_review_goes_on_from_the_answers(tmp_path, frame):
    review = _review(tmp_path, batch_size=8)
    _answer_batch(review, frame)
    review.judge()
    again = _review(tmp_path, batch_size=8)
    np.testing.assert_array_equal(again.verified, review.verified)
    assert [one["row"] for one in again.state()["batch"]] == [one["row"] for one in review.state()["batch"]]


def test_the_noise_rate_follows_from_the_random_rows_alone(tmp_path, frame):
    review = _review(tmp_path)
    for _ in range(3):
        _answer_batch(review, frame)
        review.judge()
    summary = review.summary
    assert summary["random_rows"] >= 10
    low, high = summary["noise_rate_interval"]
    wrong = (frame["label"] != frame["truth"]).mean()
    assert low <= wrong <= high
    verified = review.verified
    drawn = np.zeros(ROWS)
    # 0 is the seed of the order in which rows are drawn
    order = np.random.default_rng(0).permutation(ROWS)
    drawn[order[: np.argmax(verified[order] < 0)]] = 1
    if drawn.sum() == summary["random_rows"]:
        by_hand = noise_rate_from_sample(review.quality.blind_probability, verified, review.given, drawn)
        assert summary["noise_rate"] == pytest.approx(by_hand[0])


def test_an_answer_counts_for_all_rows_with_the_text(tmp_path, frame):
    frame.loc[[3, 6], "text"] = frame["text"][0]
    frame.loc[[0, 3, 6], "label"] = ["number", "place", "number"]
    frame.to_csv(tmp_path / "table.csv", index=False)
    review = _review(tmp_path)
    review.answer(3, "relabel", "number")
    assert review.verified[[0, 3, 6]].tolist() == [0, 0, 0]
    actions = pd.read_csv(review.path, keep_default_na=False).set_index("row")["action"]
    assert actions.to_dict() == {0: "keep", 3: "relabel", 6: "keep"}
    assert review.undo() == 0
    assert (review.verified < 0).all()
    assert not review.path.exists()


def test_rows_of_no_use_and_skipped_rows_are_not_asked_again_and_say_nothing(tmp_path, frame):
    review = _review(tmp_path, batch_size=4)
    rows = [one["row"] for one in review.state()["batch"]]
    review.answer(rows[0], "drop")
    for row in rows[1:]:
        review.answer(row, "skip")
    review.judge()
    assert not set(rows) & {one["row"] for one in review.state()["batch"]}
    assert (review.verified < 0).all()
    assert review.quality.verified is None
    written = pd.read_csv(review.path)
    assert written[["row", "action"]].to_numpy().tolist() == [[rows[0], "drop"]]


def test_a_pattern_is_proposed_and_changes_its_rows_at_once(tmp_path, frame):
    review = _review(tmp_path)
    rule = frame.index[frame["text"].str.startswith("how many")].tolist()
    for row in rule[:4]:
        review.answer(row, "relabel", "number")
    review.judge()
    (one,) = [one for one in review.state()["patterns"] if one["words"] == "how many"]
    assert (one["given"], one["true"], one["rows"], one["seen"]) == ("place", "number", len(rule) - 4, 4)
    assert all(text.startswith("how many") for text in one["examples"])
    assert review.apply(review.state()["patterns"].index(one)) == len(rule) - 4
    assert (review.verified[rule] == 0).all()
    review.undo()
    assert (review.verified[rule] == 0).sum() == 4
    with pytest.raises(InputError, match="no such pattern"):
        review.apply(99)


def test_it_is_enough_when_two_batches_change_nothing(tmp_path, frame):
    review = _review(tmp_path, batch_size=5)
    assert not review.summary["enough"]
    for _ in range(2):  # nothing is answered, so nothing changes
        review.judge()
    assert review.summary["changed"] == 0
    assert review.summary["enough"]


def test_all_rows_looked_at(tmp_path, frame):
    review = _review(tmp_path, batch_size=100)
    for row in range(ROWS):
        true, given = frame["truth"][row], frame["label"][row]
        review.answer(row, "keep" if true == given else "relabel", true)
    review.judge()
    state = review.state()
    assert state["batch"] == []
    assert state["suspicious"] == []
    assert state["summary"]["noise_rate"] == pytest.approx(
        (frame["label"] != frame["truth"]).mean(), abs=0.01
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((ROWS, "keep"), "There is no row 150"),
        ((-1, "keep"), "There is no row -1"),
        ((0, "maybe"), "There is no action 'maybe'"),
        ((0, "relabel", "animal"), "There is no label 'animal'"),
        ((0, "relabel"), "There is no label None"),
    ],
)
def test_wrong_answers_are_refused_and_change_nothing(tmp_path, frame, answer, said):
    review = _review(tmp_path)
    with pytest.raises(InputError, match=said):
        review.answer(*answer)
    assert (review.verified < 0).all()
    assert not review.path.exists()


def test_a_table_without_texts_is_refused(tmp_path, frame):
    frame.drop(columns="text").to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(InputError, match="no texts to look at"):
        _review(tmp_path)


def test_corrections_of_another_table_are_refused(tmp_path, frame):
    review = _review(tmp_path)
    review.answer(0, "keep")
    frame["text"] = frame["text"] + " indeed"
    frame.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(InputError, match="the text begins with"):
        _review(tmp_path)


def test_class_names_and_texts_that_a_spreadsheet_would_run_come_back(tmp_path, frame):
    frame["label"] = frame["label"].replace("person", "=1+1")
    frame["truth"] = frame["truth"].replace("person", "=1+1")
    frame["text"] = "=2+2 " + frame["text"]
    frame.to_csv(tmp_path / "table.csv", index=False)
    review = _review(tmp_path)
    _answer_batch(review, frame)
    np.testing.assert_array_equal(_review(tmp_path).verified, review.verified)
    assert CLASSES[1] not in review.state()["labels"]
