"""Batches, and what a loss makes of them."""

import numpy as np
import torch

OPTIONS = {  # of those losses that need some
    "selc": {"switch_epoch": 0},
    "stgn": {"noise_rate": 0.4},
}


def draw(batch, classes, seed, dtype=torch.float32, num_examples=20):
    """logits that require a gradient, labels, ids; an example has the same label in every batch."""
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(batch, classes, generator=generator)).to(dtype).requires_grad_()
    ids = torch.randperm(num_examples, generator=generator)[:batch]
    return logits, ids % classes, ids


def outcome(loss, batch, epoch=0.0):
    """Losses and their gradients at the logits."""
    logits, labels, ids = batch
    losses = loss(logits, labels, ids, epoch=epoch)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    return losses.detach(), gradient


def softmax(logits):
    """In float64, with NumPy: independent of what is tested."""
    exponentials = np.exp(logits.detach().double().numpy())
    return exponentials / exponentials.sum(axis=1, keepdims=True)
