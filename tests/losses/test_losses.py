"""What holds for every loss, and the formulas of those that remember nothing."""

import numpy as np
import pytest
import torch
from batches import OPTIONS, draw, outcome, softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.errors import InputError
from clear_peft.losses import LOSSES, generalized_cross_entropy, make_loss

N, C = 20, 4
EVERY = pytest.mark.parametrize("name", LOSSES)
DTYPES = {torch.float32: 2e-5, torch.bfloat16: 2e-2}  # with the tolerance of the gradient


def make(name, classes=C, **options):
    return make_loss(name, N, classes, OPTIONS.get(name, {}) | options)


def residual(p, labels):
    return p - np.eye(p.shape[1])[labels]


def given_labels(p, labels):
    return p[np.arange(len(p)), labels]


# (p, labels) → losses, gradients: the derivatives by hand, in float64
def cross_entropy(p, labels):
    return -np.log(given_labels(p, labels)), residual(p, labels)


def label_smoothing(p, labels, epsilon=0.1):
    target = (1 - epsilon) * np.eye(p.shape[1])[labels] + epsilon / p.shape[1]
    return -(target * np.log(p)).sum(1), p - target


def gce(p, labels, q=0.7):
    power = given_labels(p, labels) ** q
    return (1 - power) / q, power[:, None] * residual(p, labels)


def sce(p, labels, alpha=0.1, beta=1.0, log_zero=-4.0):
    one_hot = np.eye(p.shape[1])[labels]
    log_target = np.where(one_hot == 1, 0, log_zero)
    losses = -alpha * np.log(given_labels(p, labels)) - beta * (p * log_target).sum(1)
    by_p = -beta * log_target  # dRCE/dp, through the softmax's Jacobian
    through = p * (by_p - (p * by_p).sum(1, keepdims=True))
    return losses, alpha * (p - one_hot) + through


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "classes"), [(1, 2), (7, 4), (13, 77)])
@pytest.mark.parametrize(
    ("reference", "options"),
    [
        (cross_entropy, {}),
        (label_smoothing, {}),
        (label_smoothing, {"epsilon": 0.5}),
        (gce, {}),
        (gce, {"q": 0.2}),
        (sce, {}),
        (sce, {"alpha": 6.0, "beta": 0.1, "log_zero": -6.0}),
    ],
)
def test_values_and_gradients_by_hand(reference, options, batch, classes, dtype):
    logits, labels, ids = draw(batch, classes, 1, dtype)
    loss = make_loss(reference.__name__, N, classes, options)
    losses, gradients = outcome(loss, (logits, labels, ids))
    expected_losses, expected_gradients = reference(softmax(logits), labels.numpy(), **options)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients.float(), expected_gradients, rtol=DTYPES[dtype], atol=2e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("label_smoothing", {"epsilon": 0}),
        ("sce", {"alpha": 1, "beta": 0}),
        ("elr", {"strength": 0}),
        ("selc", {"switch_epoch": 3}),
        ("selc", {"momentum": 1}),
        ("stgn", {"sigma": 0}),
    ],
)
def test_limits_that_are_cross_entropy(name, options):
    batch = draw(9, C, 2)
    loss = make(name, **options)
    outcome(loss, draw(9, C, 3), epoch=2.0)
    expected = outcome(make("cross_entropy"), batch)
    torch.testing.assert_close(outcome(loss, batch, epoch=2.5), expected)


def test_gce_goes_from_cross_entropy_to_the_absolute_error():
    batch = draw(9, C, 2)
    torch.testing.assert_close(
        outcome(make("gce", q=1e-7), batch), outcome(make("cross_entropy"), batch), rtol=1e-5, atol=1e-5
    )
    absolute = 1 - given_labels(softmax(batch[0]), batch[1].numpy())
    np.testing.assert_allclose(outcome(make("gce", q=1), batch)[0], absolute, rtol=1e-5)


def test_gce_stays_finite_where_the_label_has_no_probability():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = generalized_cross_entropy(logits, torch.tensor([1]), 0.3)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1 / 0.3)
    assert logits.grad.tolist() == [[0, 0]]


@EVERY
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [0, 1, 9])
def test_losses_are_float32_and_gradients_of_the_logits_dtype(name, batch, dtype):
    losses, gradients = outcome(make(name), draw(batch, C, 4, dtype))
    assert losses.shape == (batch,)
    assert losses.dtype == torch.float32
    assert gradients.dtype == dtype
    assert gradients.isfinite().all()


@EVERY
def test_extreme_logits_stay_finite(name):
    logits = torch.tensor([[1e4, -1e4, 0.0, 0.0], [-1e4, 1e4, 0.0, 0.0]], requires_grad=True)
    loss = make(name)
    for _ in range(3):
        losses, gradients = outcome(loss, (logits, torch.tensor([0, 0]), torch.tensor([5, 6])))
        assert losses.isfinite().all()
        assert gradients.isfinite().all()


@EVERY
@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(9)), seed=st.integers(0, 99))
def test_permuted_rows_have_permuted_losses(name, order, seed):
    straight, permuted = make(name), make(name)
    for step in range(2):  # the second with a memory
        logits, labels, ids = draw(9, C, seed + step)
        losses = straight(logits, labels, ids, epoch=0.0)
        torch.testing.assert_close(
            permuted(logits[order], labels[order], ids[order], epoch=0.0), losses[order]
        )
    memory = {k: v for k, v in straight.state_dict().items() if k != "generator"}
    torch.testing.assert_close({k: v for k, v in permuted.state_dict().items() if k in memory}, memory)


@EVERY
def test_restored_losses_go_on_alike(name):
    first, second = make(name), make_loss(name, N, C, OPTIONS.get(name))
    for seed in range(3):
        outcome(first, draw(9, C, seed))
    state = first.state_dict()
    kept = {key: tensor.clone() for key, tensor in state.items()}
    second.load_state_dict(state)
    for seed in range(3, 6):
        one, other = outcome(first, draw(9, C, seed)), outcome(second, draw(9, C, seed))
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    # neither shares memory with what it gave or took
    torch.testing.assert_close(state, kept, rtol=0, atol=0)


@EVERY
def test_evaluation_leaves_the_memory_as_it_is(name):
    loss = make(name)
    outcome(loss, draw(9, C, 0))
    before = loss.state_dict()
    logits, labels, ids = draw(9, C, 1)
    loss(logits.detach(), labels, ids, epoch=5.0)
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)


@EVERY
def test_the_state_of_another_loss_or_training_set_is_refused(name):
    state = make("stgn").state_dict()
    if name == "stgn":
        del state["generator"]
    with pytest.raises(InputError, match=f"does not fit loss '{name}' for 20 examples and 4 classes"):
        make(name).load_state_dict(state)
    longer = make_loss(name, N + 1, C + 1, OPTIONS.get(name))
    state = make(name).state_dict()
    if state:
        with pytest.raises(InputError, match=r"does not fit|have shape"):
            longer.load_state_dict(state)


@EVERY
@pytest.mark.parametrize("shapes", [((2, 5), 2, 2), ((2, 4), 3, 2), ((2, 4), 2, 3), ((4,), 4, 4)])
def test_shapes_that_do_not_fit_are_refused(name, shapes):
    logits, labels, ids = shapes
    with pytest.raises(InputError, match=r"give \(B, 4\), \(B,\) and \(B,\)"):
        make(name)(torch.zeros(logits), *(torch.zeros(n, dtype=torch.long) for n in (labels, ids)), epoch=0.0)


@EVERY
def test_merged_memory_is_that_of_one_who_has_seen_all(name):
    """Two processes see every second row each; STGN compares the rows of a batch, and so makes another."""
    whole, first, second = make(name), make(name), make(name)
    for epoch in range(3):
        for seed in range(2):
            logits, labels, ids = draw(8, C, 10 * epoch + seed)
            whole(logits, labels, ids, epoch=float(epoch))
            for half, loss in ((slice(0, None, 2), first), (slice(1, None, 2), second)):
                loss(logits[half], labels[half], ids[half], epoch=float(epoch))
            seen = torch.zeros(N, dtype=torch.bool).index_fill_(0, ids[::2], True)
            others = torch.zeros(N, dtype=torch.bool).index_fill_(0, ids[1::2], True)
            merge([first, second], [seen, others])
    states = [loss.state_dict() for loss in (first, second, whole)]
    for state in states:
        state.pop("generator", None)
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    if name != "stgn":
        torch.testing.assert_close(states[0], states[2], rtol=1e-6, atol=1e-7)


def merge(losses, seen):
    """Each row as the process has it that has seen it: a row of neither stays as it was."""
    held = [loss.state_dict() for loss in losses]
    for loss in losses:
        names = iter([name for name in held[0] if name != "generator"])

        def together(rows, names=names):
            name = next(names)
            merged = held[0][name].clone()
            merged[seen[1]] = held[1][name][seen[1]]
            assert merged.shape == rows.shape
            return merged

        loss.merge(together)
