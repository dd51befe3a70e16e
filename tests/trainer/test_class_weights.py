"""All classes count alike in the loss, where that is asked for."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from test_estimate import noisy
from toy import rows, trained, trainer

from clear_peft.errors import InputError
from clear_peft.trainer import Phase

BALANCED = {"class_weights": "balanced"}


def uneven(size=30):
    """Rows of three classes, of the third few."""
    table = rows(size)
    return table.select([i for i, label in enumerate(table["labels"]) if label < 2 or i < 6])


def losses(made, logits, labels):
    ids = torch.arange(len(labels))
    return made.per_example_loss(logits, labels, ids)


@pytest.mark.parametrize("routing", [True, False])
def test_a_row_counts_as_its_class_does_for_scikit_learn_and_torch(tmp_path, routing):
    table = uneven()
    made = trainer(tmp_path, train_dataset=table, clean_routing=routing, **BALANCED)
    labels = torch.tensor(table["labels"][:])
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    logits = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor(balanced, dtype=torch.float32)
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=weight, reduction="none")
    torch.testing.assert_close(losses(made, logits, labels), expected)
    assert balanced[labels].mean() == pytest.approx(1), "an epoch weighs what it has weighed"


def test_a_class_without_rows_changes_nothing(tmp_path):
    table = rows(30)
    table = table.select([i for i, label in enumerate(table["labels"]) if label != 1])
    made = trainer(tmp_path, train_dataset=table, **BALANCED)
    labels = np.asarray(table["labels"])
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=labels)
    np.testing.assert_allclose(made.class_weights[[0, 2]].numpy(), expected, rtol=1e-6)


def test_soft_labels_are_not_weighed(tmp_path):
    settings = {"num_train_epochs": 2, "warm_up_epochs": 1, "noise_threshold": 0.0}
    table = noisy(60, 0, 0.4)
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor(table["labels"][:])
    made = [
        trained(tmp_path / which, train_dataset=table, class_weights=which, **settings)
        for which in ("none", "balanced")
    ]
    assert [one.phase for one in made] == [Phase.ROBUST] * 2
    for one in made:
        targets = one.store.soft_labels(labels, torch.arange(60))
        expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        torch.testing.assert_close(losses(one, logits, labels), expected)


def test_there_are_two_ways_to_weigh(tmp_path):
    with pytest.raises(InputError, match="no class_weights 'even': choose from none, balanced"):
        trainer(tmp_path, class_weights="even")
