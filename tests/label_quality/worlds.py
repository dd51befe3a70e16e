"""Worlds whose truth is known: labels by softmax of a linear map, or of blobs, and a transition matrix."""

from typing import NamedTuple

import numpy as np
from scipy.special import softmax


class World(NamedTuple):
    """Features (N, D) float32, the scores (N, C) that made the true labels, true and given labels (N,)."""

    features: np.ndarray
    scores: np.ndarray
    true: np.ndarray
    given: np.ndarray

    @property
    def wrong(self):
        return self.given != self.true


def symmetric(classes, rate):
    return (1 - rate) * np.eye(classes) + rate / (classes - 1) * (1 - np.eye(classes))


def pair(classes, rate):
    return (1 - rate) * np.eye(classes) + rate * np.roll(np.eye(classes), 1, axis=1)


def class_conditional(classes, rate, seed=1):
    """Each class flips to the others in shares, and at a rate, of its own."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(classes, 0.4), classes) * (1 - np.eye(classes))
    rates = rate * np.linspace(0.4, 1.6, classes)
    return np.diag(1 - rates) + rates[:, None] * shares / shares.sum(axis=1, keepdims=True)


def drawn(rows, rng):
    """One class by each distribution, (N, C) → (N,)."""
    return (rows.cumsum(axis=1) > rng.random(len(rows))[:, None]).argmax(axis=1)


def linear(size, transition, *, sharpness=4.0, seed=0, dimensions=8):
    """Classes that overlap: the lower the sharpness, the more."""
    rng = np.random.default_rng(seed)
    classes = len(transition)
    features = rng.normal(size=(size, dimensions))
    scores = features @ rng.normal(size=(dimensions, classes)) * sharpness / np.sqrt(dimensions)
    true = drawn(softmax(scores, axis=1), rng)
    return World(features.astype(np.float32), scores, true, drawn(transition[true], rng))


def blobs(size, transition, *, spread=1.0, distance=8.0, seed=0, dimensions=16):
    """Classes that lie apart, all as large."""
    rng = np.random.default_rng(seed)
    classes = len(transition)
    centres = rng.normal(size=(classes, dimensions))
    centres *= distance / np.linalg.norm(centres, axis=1, keepdims=True)
    true = rng.permutation(np.arange(size) % classes)
    features = (centres[true] + spread * rng.normal(size=(size, dimensions))).astype(np.float32)
    return World(features, features @ centres.T, true, drawn(transition[true], rng))


def calibration_error(p, right, bins=10):
    """Expected calibration error of p."""
    place = np.minimum((p * bins).astype(int), bins - 1)
    off = np.bincount(place, right - p, minlength=bins)
    return float(np.abs(off).sum() / len(p))
