"""A table of three classes, a third of whose wrong labels follow a rule."""

import numpy as np
import pandas as pd

CLASSES = ("number", "person", "place")
ROWS = 150


class Silent:
    """A reporter that says nothing."""

    def stage(self, text):
        pass

    def step(self, done, total):
        pass


def written_table(folder, rows=ROWS, seed=0):
    """``table.csv`` with the columns text, label and truth, and ``features.npy`` beside it."""
    rng = np.random.default_rng(seed)
    true = np.arange(rows) % 3
    features = rng.normal(size=(rows, 8)).astype(np.float32)
    features[np.arange(rows), true] += 3
    many = (true == 0) & (rng.random(rows) < 0.6)
    features[many, 4] += 3  # what follows from the text can be learnt
    given = np.where(many, 2, np.where(rng.random(rows) < 0.1, (true + 1) % 3, true))
    texts = [f"how many {word(i)}" if many[i] else f"tell me of {word(i)}" for i in range(rows)]
    frame = pd.DataFrame(
        {"text": texts, "label": [CLASSES[i] for i in given], "truth": [CLASSES[i] for i in true]}
    )
    frame.to_csv(folder / "table.csv", index=False)
    np.save(folder / "features.npy", features)
    return frame


def word(number):
    """A word of its own for each number."""
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:04d}")
