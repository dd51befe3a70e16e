"""Tailor-made gradient noise: the walk of its size, and what it does to the gradient."""

import pytest
import torch
from batches import draw, outcome

from clear_peft.losses import make_loss

IDS = torch.arange(4)
RIGHT, WRONG = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])  # for label 0


def make(num_examples=4, num_classes=2, **options):
    options = {"noise_rate": 0.5, "sigma": 0.5} | options
    return make_loss("stgn", num_examples, num_classes, options)


def step(loss, *rows):
    logits = torch.stack(rows).requires_grad_()
    return outcome(loss, (logits, torch.zeros(len(rows), dtype=torch.long), IDS[: len(rows)]))


def sizes(loss):
    return loss.state_dict()["sigma"].tolist()


def test_losses_keep_their_values():
    batch = draw(9, 4, 0)
    plain = outcome(make_loss("cross_entropy", 20, 4), batch)
    noisy = outcome(make(20, 4), batch)
    torch.testing.assert_close(noisy[0], plain[0], rtol=0, atol=0)
    assert not torch.isclose(noisy[1], plain[1]).any()


def test_noise_has_its_size_and_no_mean():
    logits = torch.zeros(20_000, 3, requires_grad=True)
    labels, ids = torch.zeros(20_000, dtype=torch.long), torch.arange(20_000)
    # all losses alike: σ stays where it starts
    _, gradients = outcome(make(20_000, 3), (logits, labels, ids))
    noise = gradients - (torch.tensor([1 / 3, 1 / 3, 1 / 3]) - torch.tensor([1.0, 0.0, 0.0]))
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max().item() < 0.03


def test_noise_scales_with_what_the_losses_are_multiplied_by():
    logits, labels, ids = draw(4, 2, 0, num_examples=4)
    summed = outcome(make(), (logits, labels, ids))[1]
    losses = make()(logits, labels, ids, epoch=0.0)
    (averaged,) = torch.autograd.grad(losses.mean(), logits)
    torch.testing.assert_close(averaged, summed / 4)


def test_high_losses_get_more_noise_and_low_ones_less_within_bounds():
    loss = make()
    step(loss, RIGHT, RIGHT, WRONG, WRONG)
    assert sizes(loss) == pytest.approx([0.45, 0.45, 0.55, 0.55])
    for _ in range(12):
        _, gradients = step(loss, RIGHT, RIGHT, WRONG, WRONG)
    assert sizes(loss) == pytest.approx([0, 0, 1, 1], abs=1e-6)
    p = torch.softmax(RIGHT, 0)
    torch.testing.assert_close(gradients[0], p - torch.tensor([1.0, 0.0]))  # learnt without noise


def test_the_noise_rate_places_the_threshold():
    rows = [torch.tensor([float(-z), 0.0]) for z in range(4)]  # losses rise with z
    low, high = make(noise_rate=0.25), make(noise_rate=0.75)
    step(low, *rows)
    step(high, *rows)
    assert sizes(low) == pytest.approx([0.45, 0.45, 0.45, 0.55])
    assert sizes(high) == pytest.approx([0.45, 0.55, 0.55, 0.55])


def test_without_noise_nothing_is_above_the_threshold():
    loss = make(noise_rate=0)
    step(loss, RIGHT, RIGHT, RIGHT, WRONG)
    assert sizes(loss) == pytest.approx([0.45, 0.45, 0.45, 0.5])


def test_forgetting_counts_from_right_to_wrong_alone():
    loss = make()
    for row in (WRONG, RIGHT, WRONG, WRONG, RIGHT, WRONG):
        step(loss, row, RIGHT, WRONG, WRONG)
    assert loss.state_dict()["forgotten"].tolist() == [2, 0, 0, 0]


def test_from_the_set_count_on_forgetting_votes_too():
    loss = make(forget_times=1)
    step(loss, RIGHT, RIGHT, WRONG, WRONG)
    before = sizes(loss)
    step(loss, WRONG, RIGHT, WRONG, RIGHT)  # 0 forgets; the losses of 0 and 2 are high
    moves = [after - start for after, start in zip(sizes(loss), before, strict=True)]
    # forgotten and high: up; low and not forgotten: down; where the two disagree: none
    assert moves == pytest.approx([0.05, -0.05, 0, -0.05], abs=1e-6)


def test_the_seed_names_the_noise_and_leaves_the_global_generator_alone():
    batch = draw(4, 2, 0, num_examples=4)
    before = torch.get_rng_state()
    one, same, other = (outcome(make(seed=seed), batch)[1] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
