"""A run folder as train writes it, without training: labels of which a share is wrong."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from clear_peft.data import escape_formulas, write_table
from clear_peft.label_quality import GaussianLossMixture, LabelQuality, NoiseModel, TopProbs
from clear_peft.run_folder import RunConfig
from clear_peft.run_folder.layout import LABEL_QUALITY
from clear_peft.run_folder.quality_file import save_label_quality

NAMES = ["farming", "sailing", "weaving"]
NASTY = [
    "=SUM(A1:A9)",
    "'=quoted",
    '<script>alert("x")</script>',
    "\u202eright to left",
    'say "hello", twice',
    "two\nlines",
    "carriage\r\nreturn",
    "\x1b[2J clears a terminal",
    "😀" * 150,
    "long " * 300,
    "-1.5",
]


@dataclass
class WrittenRun:
    folder: Path
    data: Path
    table: pd.DataFrame  # as written: text, label, and a column of somebody else's
    clean: list[str]
    issues: pd.DataFrame  # typed
    probabilities: np.ndarray


def judged(rows=120, noise=0.3, seed=0, classes=3, sharpness=5.0):
    """Given, true and predicted class ids, probabilities (N, C) and losses of a model that knows a lot."""
    rng = np.random.default_rng(seed)
    true = np.arange(rows) % classes
    wrong = rng.random(rows) < noise
    given = np.where(wrong, (true + rng.integers(1, classes, rows)) % classes, true)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), true] += sharpness
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return given, true, probabilities, -np.log(probabilities[np.arange(rows), given])


def quality_of(given, probabilities, losses, source="final_model", p=None, interval=(0.2, 0.4)):
    """The quality of these labels, by a mixture of the losses; a noise model where predictions are fair."""
    classes, fair = probabilities.shape[1], source != "final_model"
    if p is None:
        p = GaussianLossMixture().estimate(losses.astype(np.float32)).clean_probability
    return LabelQuality(
        given,
        TopProbs.of(probabilities),
        np.exp(-losses).astype(np.float32),
        p,
        NoiseModel("symmetric", np.full((classes, classes), 1 / classes)) if fair else None,
        interval if fair else None,
        np.arange(len(given)),
        source,
    )


def issues_of(given, probabilities, losses, texts=None, names=NAMES, p=None):
    """The list of label issues, typed."""
    issues = quality_of(given, probabilities, losses, p=p).issues(list(names)).drop(columns="group")
    texts = [f"text number {i} of {i * 7919}" for i in range(len(given))] if texts is None else texts
    issues.insert(1, "text", [texts[row] for row in issues["row"]])
    labels = {name: issues[name].astype(object) for name in ("given_label", "predicted_label")}
    return issues.assign(**labels, split=np.where(issues["row"] % 10 == 0, "validation", "train"))


def write_run(place, ending="csv", values=None, method="clear", **more):
    """Write the table and the run folder; ``values`` are the labels in the table, by class id."""
    given, true, probabilities, losses = judged(**more)
    names = NAMES if values is None else [str(value) for value in values]
    texts = [*NASTY, *(f"text number {i} of {i * 7919}" for i in range(len(given) - len(NASTY)))]
    table = pd.DataFrame(
        {
            "note": [f"00{i}" for i in range(len(given))],
            "body": texts,
            "team": pd.Series([(values or NAMES)[i] for i in given], dtype=None if values else object),
        }
    )
    folder, data = place / "run", place / f"data.{ending}"
    write_table(table, data)
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "labels.json").write_text(json.dumps(names))
    (folder / "metrics.json").write_text("{}")
    RunConfig(
        model="m", data=str(data), output=str(folder), text_column="body", label_column="team", method=method
    ).save(folder)
    issues = issues_of(given, probabilities, losses, texts, names)
    write_table(escape_formulas(issues), folder / "label_issues.csv")
    source = "probe" if method == "clear" else "final_model"
    quality = quality_of(given, probabilities, losses, source)
    save_label_quality(folder / LABEL_QUALITY, quality, names, noise_found=True)
    return WrittenRun(folder, data, table, [names[i] for i in true], issues, probabilities)


def corrections_of(run, decisions):
    """What the report gives to download: ``decisions`` is (row, action, label) and so on."""
    rows = [row for row, *_ in decisions]
    frame = pd.DataFrame(decisions, columns=["row", "action", "label"])
    frame["given_label"] = [str(run.table["team"][row]) for row in rows]
    frame["text"] = [run.table["body"][row][:200] for row in rows]
    return escape_formulas(frame)
