"""Batches, answers and what follows from them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tables import CLASSES, ROWS, Silent, written_table

from clear_peft.errors import InputError
from clear_peft.label_quality import noise_rate_from_sample
from clear_peft.pipeline.scan import scan
from clear_peft.pipeline.scan_options import ScanOptions
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


def test_a_review_says_what_a_scan_with_its_corrections_says(tmp_path, frame, monkeypatch):
    proposed = []
    monkeypatch.setattr(
        "clear_peft.pipeline.scan.write_scan_report", lambda found, rows: proposed.extend(rows)
    )
    review = _review(tmp_path)
    _answer_batch(review, frame)
    review.answer(review.state()["batch"][3]["row"], "drop")
    review.answer(review.state()["batch"][5]["row"], "skip")
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
    assert scanned.metrics["random_rows"] == review.summary["random_rows"] == 18
    assert scanned.metrics["noise_rate_estimate"] == review.summary["noise_rate"]
    assert proposed == [one["row"] for one in review.state()["batch"]]
    assert not (tmp_path / "scan" / "report.html").exists()
    review.finish()
    assert (tmp_path / "scan" / "report.html").exists()
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
    scanned = scan(replace(_options(tmp_path), verified=str(review.path), overwrite=True), Silent())
    assert scanned.metrics["noise_rate_estimate"] == summary["noise_rate"]
    assert scanned.metrics["random_rows"] == summary["random_rows"]
    assert f"by {summary['random_rows']} random rows" in scanned.audit.said_interval("{:.1%}".format)
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
    assert review.undo() == (3, 3)
    assert (review.verified < 0).all()
    assert not review.path.exists()
    assert review.undo() is None


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
    again = _review(tmp_path, batch_size=4)
    assert again.state()["batch"] == review.state()["batch"]
    assert again.summary["answered"] == {"keep": 0, "relabel": 0, "drop": 1, "skip": 3}


def test_a_pattern_is_proposed_and_changes_its_rows_at_once(tmp_path, frame):
    review = _review(tmp_path)
    rule = frame.index[frame["text"].str.startswith("how many")].tolist()
    for row in rule[:4]:
        review.answer(row, "relabel", "number")
    review.judge()
    (one,) = [one for one in review.state()["patterns"] if one["words"] == "how many"]
    assert (one["given"], one["true"], one["rows"], one["seen"]) == ("place", "number", len(rule) - 4, 4)
    assert all(text.startswith("how many") for text in one["examples"])
    assert review.apply(one["number"]) == len(rule) - 4
    assert (review.verified[rule] == 0).all()
    review.undo()
    assert (review.verified[rule] == 0).sum() == 4
    assert one in review.state()["patterns"]
    with pytest.raises(InputError, match="no such pattern"):
        review.apply(99)


def test_undo_brings_back_what_was_said_before_and_the_row(tmp_path, frame):
    review = _review(tmp_path, batch_size=3)
    row = review.state()["batch"][0]["row"]
    review.answer(row, "relabel", frame["label"].drop(row)[frame["label"] != frame["label"][row]].iloc[0])
    before = review.verified
    review.judge()
    review.answer(row, "keep")  # in another tab, say
    assert review.undo() == (row, 1)
    np.testing.assert_array_equal(review.verified, before)
    assert review.undo().row == row
    first = review.state()["batch"][0]
    assert (first["row"], first["answer"], first["why"]) == (row, None, "answered before")


def test_a_rule_that_was_believed_is_no_evidence_for_another(tmp_path, frame):
    many = frame["text"].str.startswith("how many")
    looked = frame.index[many][:4]
    here = frame.index[frame["label"] == "place"].difference(looked)
    frame.loc[here, "text"] += " here"
    frame.to_csv(tmp_path / "table.csv", index=False)
    review = _review(tmp_path)
    for row in looked:
        review.answer(row, "relabel", "number")
    review.judge()
    shown = {one["words"]: one for one in review.state()["patterns"]}
    review.apply(shown["how many"]["number"])
    review.judge()
    # all changed rows have "here", and so have right ones: nobody has looked at a row with it
    for one in (review, _review(tmp_path)):
        assert one.state()["patterns"] == []
    written = pd.read_csv(review.path, keep_default_na=False)
    assert (written["rule"] == "how many").sum() == many.sum() - 4


def test_rows_that_a_rule_has_changed_are_no_random_rows_that_were_looked_at(tmp_path, frame):
    review = _review(tmp_path)
    many = frame["text"].str.startswith("how many").to_numpy()
    _answer_batch(review, frame)
    review.judge()
    looked = int((review.verified >= 0).sum())
    (one,) = [one for one in review.state()["patterns"] if one["words"] == "how many"]
    assert review.apply(one["number"]) > 20
    review.judge()
    options = replace(_options(tmp_path), verified=str(review.path), overwrite=True)
    for rows in (review.summary["random_rows"], scan(options, Silent()).metrics["random_rows"]):
        assert rows == looked
    asked = [one for one in review.state()["batch"] if many[one["row"]]]
    assert asked, "their turn comes"
    assert [one["answer"] for one in asked] == [None] * len(asked)
    review.answer(asked[0]["row"], "keep")
    assert review.verified[asked[0]["row"]] == CLASSES.index(asked[0]["given"])


def test_a_pattern_leaves_rows_alone_that_have_an_answer(tmp_path, frame):
    review = _review(tmp_path)
    rule = frame.index[frame["text"].str.startswith("how many")].tolist()
    review.answer(rule[4], "skip")
    for row in rule[:4]:
        review.answer(row, "relabel", "number")
    review.judge()
    (one,) = [one for one in review.state()["patterns"] if one["words"] == "how many"]
    assert one["rows"] == len(rule) - 5
    review.answer(rule[5], "drop")
    assert review.state()["patterns"][0]["rows"] == len(rule) - 6
    review.answer(rule[6], "keep")
    assert review.state()["patterns"] == []
    with pytest.raises(InputError, match="no such pattern any more"):
        review.apply(one["number"])
    review.undo()
    review.judge()
    with pytest.raises(InputError, match="no such pattern any more"):  # of a tab that was not loaded since
        review.apply(one["number"])


def test_a_second_review_of_the_folder_overwrites_nothing(tmp_path, frame):
    review, second = _review(tmp_path), _review(tmp_path)
    review.answer(0, "keep")
    written = review.path.read_bytes()
    with pytest.raises(InputError, match="changed by something else"):
        second.answer(1, "keep")
    with pytest.raises(InputError, match="changed by something else"):
        _ = second.answer(2, "drop")
    assert (second.verified < 0).all()
    assert review.path.read_bytes() == written
    review.answer(1, "keep")


def test_what_cannot_be_written_is_not_believed(tmp_path, frame, monkeypatch):
    review = _review(tmp_path, batch_size=4)
    review.answer(0, "keep")
    batch, summary = review.state()["batch"], review.summary

    def full(*_, **__):
        raise InputError("Cannot write: no space left on device.")

    monkeypatch.setattr("clear_peft.review.answers.write_table", full)
    monkeypatch.setattr("clear_peft.review.session.write_scan", full)
    for act in (lambda: review.answer(1, "keep"), lambda: review.answer(0, "drop"), review.judge):
        with pytest.raises(InputError, match="no space left"):
            act()
    assert np.flatnonzero(review.verified >= 0).tolist() == [0]
    assert (review.state()["batch"], review.summary) == (batch, summary)


@pytest.mark.filterwarnings("ignore:The predictions agree with the labels no better than chance")
def test_one_row_at_least_is_kept(tmp_path):
    frame = written_table(tmp_path, rows=6)
    frame["label"] = ["number", "person"] * 3
    frame.to_csv(tmp_path / "table.csv", index=False)
    review = _review(tmp_path)
    for row in range(5):
        review.answer(row, "drop")
    with pytest.raises(InputError, match="keep at least one"):
        review.answer(5, "drop")
    review.judge()
    assert review.summary["listed"] <= 1
    assert _review(tmp_path).summary["answered"]["drop"] == 5  # or the file could not be read again


def test_all_rows_of_a_group_and_near_copies_are_asked_for(tmp_path):
    frame = written_table(tmp_path, rows=60)
    alike = [f"dear sir or madam, my order with the number {i} is late again" for i in range(20)]
    frame.loc[:19, "text"] = alike
    frame["customer"] = np.arange(60) % 6
    frame.to_csv(tmp_path / "table.csv", index=False)
    review = Review(_options(tmp_path, group_column="customer"), Silent(), batch_size=30)
    seen = []
    for _ in range(2):
        seen += [one["row"] for one in review.state()["batch"]]
        _answer_batch(review, frame)
        review.judge()
    assert sorted(seen) == list(range(60))
    assert review.summary["random_rows"] == 60
    wrong = (frame["label"] != frame["truth"]).mean()
    assert review.summary["noise_rate"] == pytest.approx(wrong, abs=0.02)


def test_it_is_enough_when_two_batches_of_answers_change_nothing(tmp_path, frame):
    frame.loc[:40, "text"] = "the same"  # 41 rows, one answer
    frame.to_csv(tmp_path / "table.csv", index=False)
    review = _review(tmp_path, batch_size=12)
    for _ in range(3):  # without an answer nothing can change
        review.judge()
    assert review.summary["changed"] is None
    assert not review.summary["enough"]
    review.answer(review.state()["batch"][0]["row"], "skip")
    review.judge()
    assert review.summary["changed"] is None
    review._judged = _Unmoved(review.quality)
    enough = []
    for count in (1, 1, 12, 12):
        review.answer(0, "keep")
        for one in review.state()["batch"][:count]:
            review.answer(one["row"], "keep")
        review.judge()
        enough.append(review.summary["enough"])
    assert enough == [False, False, False, True]  # two answers are none too many


class _Unmoved:
    """Judges whom no answer moves."""

    def __init__(self, quality):
        self.quality, self.features = quality, np.random.default_rng(0).normal(size=(len(quality), 2))

    def believing(self, verified):
        return self


def test_answers_count_before_they_are_judged(tmp_path, frame):
    review = _review(tmp_path)
    review.answer(0, "keep")
    assert review.summary["answered"] == {"keep": 1, "relabel": 0, "drop": 0, "skip": 0}


def test_a_table_that_would_be_overwritten_by_answers_is_refused(tmp_path, frame):
    _review(tmp_path)
    data = tmp_path / "scan" / "corrections.csv"
    frame.to_csv(data, index=False)
    with pytest.raises(InputError, match="where answers are kept"):
        Review(replace(_options(tmp_path), data=str(data)), Silent())


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
        ((ROWS, "keep"), "There is no row 150 with a label"),
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


@pytest.mark.filterwarnings("ignore:.*they have no label:clear_peft.errors.ClearWarning")
def test_rows_without_a_label_are_not_asked_but_listed_for_labelling(tmp_path, frame):
    frame.loc[[0, 5, 77], "label"] = ""
    frame.to_csv(tmp_path / "table.csv", index=False)
    review = _review(tmp_path, batch_size=30)
    rows = [one["row"] for one in review.state()["batch"]]
    assert not {0, 5, 77} & set(rows)
    for one in review.state()["batch"]:
        assert one["text"] == frame["text"][one["row"]]
        assert one["given"] == frame["label"][one["row"]]
    _answer_batch(review, frame)
    written = pd.read_csv(review.path, keep_default_na=False)
    assert sorted(written["row"]) == sorted(rows)
    assert written["text"].tolist() == frame["text"][written["row"]].tolist()
    review.judge()
    assert sorted(pd.read_csv(tmp_path / "scan" / "unlabelled.csv")["row"]) == [0, 5, 77]
    np.testing.assert_array_equal(_review(tmp_path).verified, review.verified)
    with pytest.raises(InputError, match="There is no row 5 with a label"):
        review.answer(5, "keep")
    assert review.undo().row == rows[-1]
