"""Ids in a batch, and rows that are held out."""

import numpy as np
import pytest
import torch
from datasets import Dataset, List, Value
from toy import rows, trained, trainer

from clear_peft.trainer.columns import ID_COLUMN, IdCollator, token_counts
from clear_peft.trainer.store import Rows, hold_out_rows


def test_collator_carries_ids_past_a_collator_that_drops_what_it_does_not_know():
    def narrow(features):
        assert all(set(f) == {"input_ids"} for f in features)
        return {"input_ids": torch.tensor([f["input_ids"] for f in features])}

    features = [
        {"input_ids": [1, 2], ID_COLUMN: 7, "clean_label": 0, "group": 1, "row": 3},
        {"input_ids": [3, 4], ID_COLUMN: 5, "clean_label": 1, "group": 1, "row": 9},
    ]
    batch = IdCollator(narrow)(features)
    assert batch[ID_COLUMN].tolist() == [7, 5]
    assert batch["input_ids"].shape == (2, 2)
    assert features[0][ID_COLUMN] == 7, "the dataset's own items are left alone"


def grouped(size=120):
    """Copies in pairs of rows, groups of six, one rare class."""
    table = rows(size)
    ids, labels = np.array(table["input_ids"]), np.array(table["labels"])
    ids[1::2] = ids[::2]
    labels[1::2] = labels[::2]
    labels[labels == 2] = np.where(np.arange((labels == 2).sum()) < 12, 2, 0)
    columns = {"input_ids": ids.tolist(), "attention_mask": table["attention_mask"], "labels": labels}
    return Dataset.from_dict({**columns, "group": np.arange(size) // 6})


@pytest.mark.parametrize("named", [False, True])
def test_held_out_rows_keep_classes_groups_and_their_places(named):
    table = grouped()
    if named:  # rows of a larger table
        table = table.add_column("row", 3 * np.arange(120) + 1)
    known = Rows(table, 3, "length", "training")
    kept, held = hold_out_rows(table, known, 0.2, seed=0)
    places = [np.array(part["row"]) for part in (kept, held)]
    step, first = (3, 1) if named else (1, 0)
    assert sorted(np.concatenate(places).tolist()) == [first + step * i for i in range(120)]
    for part, place in zip((kept, held), places, strict=True):
        own = table.select((place - first) // step)
        assert np.array_equal(part["labels"], own["labels"])
        assert np.array_equal(part["input_ids"], own["input_ids"])
        assert set(part["labels"]) == {0, 1, 2}, "every class is in both parts"
    groups = [set(part["group"]) for part in (kept, held)]
    assert groups[0].isdisjoint(groups[1])
    assert 0.1 < len(held) / 120 < 0.3
    again = hold_out_rows(table, known, 0.2, seed=0)[1]
    assert again["row"][:] == held["row"][:]
    assert hold_out_rows(table, known, 0.2, seed=1)[1]["row"][:] != held["row"][:]


@pytest.mark.parametrize("estimator", ["probe", "losses"])
@pytest.mark.parametrize(
    ("routing", "metric"),
    [(True, "weighted_accuracy"), (True, None), (True, "loss"), (False, "accuracy"), (False, None)],
)
def test_the_list_has_every_row_of_the_table_once_where_some_are_held_out(
    tmp_path, estimator, routing, metric
):
    table = grouped()
    made = trained(
        tmp_path,
        train_dataset=table,
        eval_strategy="epoch",
        metric_for_best_model=metric,
        label_estimator=estimator,
        clean_routing=routing,
        validation_fraction=0.2,
        num_train_epochs=2,
        noise_threshold=0.0,
    )
    assert len(made.train_dataset) + len(made.eval_dataset) == 120
    assert len(made.eval_dataset) > 10
    issues, quality = made.label_issues(), made.label_quality
    assert sorted(issues["row"]) == list(range(120))
    assert np.array_equal(quality.rows, np.arange(120))
    assert np.array_equal(quality.given, table["labels"])
    listed = issues.sort_values("row")
    # groups of the table, and no others, whatever their numbers
    assert len(set(zip(listed["group"], table["group"], strict=True))) == 20 == listed["group"].nunique()
    names = made.model.config.id2label
    assert listed["given_label"].tolist() == [names[y] for y in table["labels"]]
    np.testing.assert_array_equal(listed["clean_probability"], quality.clean_probability)
    held = np.array(made.eval_dataset["row"])
    np.testing.assert_array_equal(quality.clean_probability[held], made.estimate.validation.clean_probability)


def test_what_is_not_asked_to_be_held_out_is_not(tmp_path):
    made = trainer(tmp_path)  # eval_strategy is "no"
    assert (len(made.train_dataset), made.eval_dataset) == (22, None)
    own = trainer(tmp_path, eval_dataset=rows(9, seed=1), eval_strategy="epoch")
    assert (len(own.train_dataset), len(own.eval_dataset)) == (22, 9)


def test_an_evaluation_set_of_ones_own_is_no_part_of_the_table(tmp_path):
    """Its rows would be listed under the numbers of training rows."""
    own = trained(
        tmp_path,
        eval_dataset=rows(9, seed=1),
        eval_strategy="epoch",
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        num_train_epochs=1,
    )
    assert own.estimate.validation is not None
    assert sorted(own.label_issues()["row"]) == list(range(22))


def test_rows_of_another_table_by_the_same_numbers_are_not_listed(tmp_path):
    other = rows(9, seed=1).add_column("row", np.arange(9))
    made = trained(
        tmp_path,
        eval_dataset=other,
        eval_strategy="epoch",
        metric_for_best_model="accuracy",
        num_train_epochs=1,
    )
    assert sorted(made.label_issues()["row"]) == list(range(22))
    assert sorted(made.label_issues()["given_label"]) == sorted(f"LABEL_{y}" for y in rows()["labels"])


def test_what_rows_say_of_themselves():
    table = grouped(12).add_column("clean_label", [0] * 12)
    known = Rows(table, 3, "length", "training")
    assert len(known) == 12
    assert known.lengths.tolist() == [6] * 12
    assert known.row.tolist() == list(range(12))
    assert (known.copies[::2] == known.copies[1::2]).all()
    assert len(set(known.copies)) == 6
    assert len(set(known.groups)) == 2
    assert known.clean_labels.tolist() == [0] * 12
    bare = Rows(table.remove_columns(["clean_label", "group"]), 3, "length", "training")
    assert bare.clean_labels is None
    assert np.array_equal(bare.groups, bare.copies)


def test_tokens_are_counted_in_any_format():
    data = Dataset.from_dict({"input_ids": [[1], [], [1, 2, 3]], "labels": [0, 1, 0]})
    for dataset in (data, data.with_format("torch"), data.select([2, 0, 0, 1])):
        expected = [len(ids) for ids in dataset.with_format(None)["input_ids"]]
        assert token_counts(dataset).tolist() == expected
    assert token_counts(data.select([])).tolist() == []
    same = data.select([0, 0]).cast_column("input_ids", List(Value("int32"), length=1))
    assert token_counts(same).tolist() == [1, 1]
    assert token_counts(data.remove_columns("input_ids")) is None
    assert token_counts([{"input_ids": [1]}]) is None
