"""A specification is the noise model that it names, or no specification at all."""

import numpy as np
import pytest

from clear_peft.errors import InputError
from clear_peft.noise import (
    KINDS,
    NoiseSpec,
    class_map,
    corrupt,
    instance_dependent,
    pair_flip,
    symmetric,
    transition,
)

LABELS = np.random.default_rng(0).integers(0, 3, 300)
FEATURES = np.random.default_rng(1).normal(size=(300, 8))
MATRIX = np.array([[0.6, 0.3, 0.1], [0.0, 1.0, 0.0], [0.2, 0.0, 0.8]])
CASES = {
    "symmetric": (NoiseSpec("symmetric", 0.4), lambda: symmetric(LABELS, 3, 0.4, 5)),
    "symmetric-inclusive": (
        NoiseSpec("symmetric-inclusive", 0.4),
        lambda: symmetric(LABELS, 3, 0.4, 5, inclusive=True),
    ),
    "pair": (NoiseSpec("pair", 0.4), lambda: pair_flip(LABELS, 3, 0.4, 5)),
    "map": (NoiseSpec("map", 0.4, mapping={0: 1}), lambda: class_map(LABELS, 3, {0: 1}, 0.4, 5)),
    "matrix": (NoiseSpec("matrix", matrix=MATRIX), lambda: transition(LABELS, MATRIX, 5)),
    "instance": (NoiseSpec("instance", 0.4), lambda: instance_dependent(LABELS, FEATURES, 3, 0.4, 5)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_specification_is_the_noise_that_it_names(kind):
    spec, expected = CASES[kind]
    noisy = corrupt(LABELS, 3, spec, 5, features=FEATURES)
    np.testing.assert_array_equal(noisy.labels, expected().labels)
    assert noisy.changed.any()


@pytest.mark.parametrize("kind", KINDS)
def test_instance_dependent_noise_alone_needs_features(kind):
    spec, _ = CASES[kind]
    assert spec.needs_features == (kind == "instance")
    if spec.needs_features:
        with pytest.raises(InputError, match="give their features"):
            corrupt(LABELS, 3, spec, 5)
    else:
        corrupt(LABELS, 3, spec, 5)


def test_a_matrix_of_another_size_is_refused():
    with pytest.raises(InputError, match="3 rows, but there are 4 classes"):
        corrupt(LABELS, 4, NoiseSpec("matrix", matrix=MATRIX), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "uniform"}, "no noise 'uniform': choose from symmetric"),
        ({"kind": "pair", "rate": 1.5}, "noise rate is 1.5"),
        ({"kind": "pair", "rate": "0.4"}, "noise rate is '0.4'"),
        ({"kind": "map", "rate": 0.4, "mapping": [[0, 1]]}, "give pairs"),
        ({"kind": "map", "rate": 0.4}, "'map' needs a class map"),
        ({"kind": "map", "rate": 0.4, "mapping": {}}, "'map' needs a class map"),
        ({"kind": "pair", "mapping": {0: 1}}, "'pair' takes no class map"),
        ({"kind": "matrix"}, "'matrix' needs a transition matrix"),
        ({"kind": "symmetric", "matrix": MATRIX}, "'symmetric' takes no transition matrix"),
        ({"kind": "matrix", "rate": 0.4, "matrix": MATRIX}, "has its own rates"),
        ({"kind": "matrix", "matrix": MATRIX[:2]}, "square"),
        ({"kind": "matrix", "matrix": [[1, 0], [1]]}, "rows of equal length"),
        ({"kind": "matrix", "matrix": [["a", "b"]]}, "no table of numbers"),
        ({"kind": "matrix", "matrix": MATRIX / 2}, "no distribution"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        NoiseSpec(**settings)
