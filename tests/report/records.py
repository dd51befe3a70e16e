"""Runs that were never run, for the report: sizes, truth and texts to order."""

from dataclasses import replace

import numpy as np
import pandas as pd

from clear_peft.audit import Audit
from clear_peft.label_quality import GaussianLossMixture, log_odds
from clear_peft.report import RunRecord

NEWS = ("business", "entertainment", "politics", "sport", "technology")
_TOPICS = {
    "business": "shares profit bank quarter market oil dollar growth jobs merger deal sales rates",
    "entertainment": "film album actor festival band award premiere singer drama comedy stage",
    "politics": "minister vote party election parliament budget labour leader campaign bill",
    "sport": "match goal coach season final injury striker league champion race team",
    "technology": "software phone games users network chip online broadband security search",
}
_WORDS = {topic: words.split() for topic, words in _TOPICS.items()}
_FILLER = "the a of in said on after with for that year will has new over would last first two"
_FILLING = _FILLER.split()
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "\"double\" 'single' `back` &lt; &amp;",
    "\u202eright to left\u2069",
    "NUL \0 and escape \x1b",
    "half \ud800 a pair",
    "two\u2028lines\u2029",
    "=HYPERLINK(1)",
    "+1+2",
    "-1+2",
    "@SUM(A1)",
    "\tTab, and a comma",
    "'=quoted",
    "\r\nline ends\rof all\nkinds",
    "＝full width",
    "👍🏽 emoji " * 60,
    "x" * 1_000_000,
]


def issues_of(
    texts, given, predicted, clean, *, labels, threshold=0.5, split=None, group=None, conflict=None
):
    """A ranked table as ``Audit.issues`` is, from columns in the order of the input."""
    clean = np.asarray(clean, dtype=float)
    frame = pd.DataFrame(
        {
            "row": np.arange(len(texts)),
            "text": pd.Series(texts, dtype=object),  # pandas' own text cannot hold half a surrogate pair
            "given_label": _names(labels, given),
            "predicted_label": _names(labels, predicted),
            "clean_probability": clean,
            "label_quality": clean**2,
            "is_label_issue": clean < threshold,
            "split": "train" if split is None else split,
            "duplicate_group": -1 if group is None else group,
            "duplicate_conflict": False if conflict is None else conflict,
        }
    )
    return frame.sort_values("clean_probability", kind="stable").reset_index(drop=True)


def _names(labels, positions):
    return pd.Series([labels[position] for position in positions], dtype=object)


def audit_of(issues, labels, *, joint=None, threshold=0.5):
    """An audit of such a table; confusion as counted between given and predicted labels."""
    if joint is None:
        position = {name: i for i, name in enumerate(labels)}
        joint = np.full((len(labels), len(labels)), 1e-9)
        columns = (issues["predicted_label"], issues["given_label"])
        np.add.at(joint, tuple([position[name] for name in column] for column in columns), 1.0)
        joint /= joint.sum()
    rate = float(1 - np.trace(joint))
    listed = issues[issues["is_label_issue"]]
    return Audit(
        issues=issues,
        labels=list(labels),
        noise_rate=rate,
        noise_rate_interval=(max(0.0, rate - 0.02), min(1.0, rate + 0.02)),
        joint=joint,
        threshold=threshold,
        expected_precision=None if listed.empty else float(1 - listed["clean_probability"].mean()),
        predictions="The predictions are made-up ones. They are fair in so far as nobody trained on them.",
    )


def small_record(*, texts=None, labels=NEWS, name="small", rows=40, **changes):
    """A finished run of a few rows; ``changes`` replace fields of the record."""
    generator = np.random.default_rng(0)
    texts = [f"text number {i}" for i in range(rows)] if texts is None else texts
    given = generator.integers(len(labels), size=len(texts))
    clean = generator.uniform(size=len(texts)).round(3)
    predicted = np.where(clean < 0.5, (given + 1) % len(labels), given)
    audit = audit_of(issues_of(texts, given, predicted, clean, labels=labels), labels)
    fields = {
        "name": name,
        "config": {"model": "tiny", "data": "rows.csv", "method": "clear", "peft": "lora", "epochs": 3},
        "epochs": epochs_of(3, classes=len(labels)),
        "metrics": metrics_of(3),
        "audit": audit,
    }
    return RunRecord(**(fields | changes))


def epochs_of(count, *, classes, blocks=6, rows=600, fitted=(2,), truth=True, seed=0):
    """Records of epochs: learning, then memorising a little; mixtures after the epochs in ``fitted``."""
    generator = np.random.default_rng(seed)
    wrong = generator.uniform(size=rows) < 0.4
    epochs = []
    for epoch in range(1, count + 1):
        learnt = 1 - np.exp(-epoch / 2.5)
        log_odd = generator.normal(np.where(wrong, 1.2 + 1.4 * learnt, -0.5 - 3.2 * learnt), 1.3)
        losses = np.logaddexp(0, log_odd)
        record = {
            "epoch": epoch,
            "train_loss": float(1.6 - 0.75 * learnt - 0.012 * epoch),
            "validation_loss": float(1.55 - 0.45 * learnt + 0.006 * epoch),
            "validation_accuracy": float(0.2 + 0.37 * learnt + generator.normal(0, 0.006)),
            "test_accuracy": float(0.22 + 0.72 * learnt - 0.002 * epoch + generator.normal(0, 0.005)),
            "noise_rate": float(0.4 + generator.normal(0, 0.01)),
            "step_losses": _histogram(losses, wrong if truth else None),
        }
        if truth:
            record["memorised"] = float(0.06 + 0.011 * epoch)
        if epoch in fitted:
            estimate = GaussianLossMixture().estimate(losses)
            parameters = estimate.parameters | {
                "contradicted": float((log_odd > 0).mean()),
                "agreement": 0.96,
            }
            record["losses"] = _histogram(losses, wrong if truth else None) | {"parameters": parameters}
            if epoch == min(fitted):
                record["restarts"] = True
        if epoch > min(fitted, default=count):
            record["gate_rate"] = 0.58
            record["gate_rates"] = {
                "blocks": generator.uniform(0.54, 0.62, blocks).tolist(),
                "classes": generator.uniform(0.42, 0.74, classes).tolist(),
            }
        epochs.append(record)
    return epochs


def metrics_of(epochs):
    """What ``metrics.json`` of a finished run holds."""
    return {
        "test": {"accuracy": 0.912, "macro_f1": 0.908},
        "validation": {"accuracy": 0.571, "macro_f1": 0.566},
        "selected_epoch": epochs,
        "noise_rate_estimate": 0.398,
        "detection": {"average_precision": 0.951, "precision": 0.92, "wrong": 712, "found": 641},
        "memorised": 0.081,
        "rows": {"train": 1602, "validation": 178, "test": 445},
        "train_seconds": 253.2,
        "peak_memory_bytes": 1_563_402_240,
        "method": "clear",
        "peft": "lora",
        "seed": 0,
        "versions": {"clear-peft": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"},
    }  # fmt: skip


def news_record(rows=1780, seed=0, *, words=(18, 60), name="example (made-up data)"):
    """A larger run on made-up news of which two in five labels are wrong."""
    generator = np.random.default_rng(seed)
    classes = len(NEWS)
    truth = generator.choice(classes, size=rows, p=(0.24, 0.17, 0.18, 0.23, 0.18))
    confusion = np.full((classes, classes), 0.055) + 0.13 * np.roll(np.eye(classes), 1, axis=1)
    np.fill_diagonal(confusion, 0)
    np.fill_diagonal(confusion, 1 - confusion.sum(axis=1))
    given = np.array([generator.choice(classes, p=confusion[label]) for label in truth])
    wrong = given != truth
    slips = generator.uniform(size=rows) < 0.04
    predicted = np.where(slips, generator.integers(classes, size=rows), truth)
    odds = generator.normal(np.where(predicted != given, 3.2, -3.4), 1.5)
    texts = [_sentence(generator, NEWS[label], words) for label in truth]
    group, conflict = np.full(rows, -1), np.zeros(rows, bool)
    for number, first in enumerate(generator.choice(rows - 1, size=min(12, rows // 4), replace=False)):
        texts[first + 1] = texts[first] + " Updated."
        truth[first + 1] = truth[first]
        group[first : first + 2] = number
        conflict[first : first + 2] = given[first] != given[first + 1]
    split = np.where(generator.uniform(size=rows) < 0.1, "validation", "train")
    clean = (1 / (1 + np.exp(odds))).round(4)
    twins = {"group": group, "conflict": conflict}
    issues = issues_of(texts, given, predicted, clean, labels=NEWS, split=split, **twins)
    config = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "data": "data/train.csv",
        "output": "runs/example",
        "text_column": "text",
        "label_column": "label",
        "clean_label_column": "clean_label",
        "test": "data/test.csv",
        "test_every_epoch": True,
        "peft": "lora",
        "peft_options": {"r": 8},
        "method": "clear",
        "preset": "recommended",
        "epochs": 8,
        "seed": 0,
    }
    joint = confusion * np.bincount(truth, minlength=classes)[:, None] / rows
    epochs = epochs_of(12, classes=classes, rows=1602, fitted=(4,), seed=seed)
    metrics = metrics_of(11)
    listed = issues["is_label_issue"].to_numpy()
    really = wrong[issues["row"]]
    metrics["detection"] |= {
        "wrong": int(wrong.sum()),
        "found": int((really & listed).sum()),
        "precision": float(really[listed].mean()),
    }
    metrics |= {"test": {"accuracy": epochs[10]["test_accuracy"]}, "memorised": epochs[10]["memorised"]}
    return RunRecord(name, config, epochs, metrics, audit_of(issues, NEWS, joint=joint))


def many_classes_record(classes=77, rows=3000, seed=0):
    """A run with many classes, of which some are confused with their neighbours."""
    generator = np.random.default_rng(seed)
    labels = [f"{verb}_{noun}" for noun in _FILLING[:11] + _WORDS["business"] for verb in _WORDS["sport"]][
        :classes
    ]
    labels += [f"class {i}" for i in range(len(labels), classes)]
    given = generator.integers(classes, size=rows)
    wrong = generator.uniform(size=rows) < 0.3
    near = (
        np.where(generator.uniform(size=rows) < 0.5, given + 1, generator.integers(classes, size=rows))
        % classes
    )
    predicted = np.where(wrong, near, given)
    clean = np.where(wrong, generator.beta(2, 6, rows), generator.beta(8, 1.5, rows)).round(4)
    issues = issues_of(
        [f"query {i} about {labels[g]}" for i, g in enumerate(given)], given, predicted, clean, labels=labels
    )
    config = {"model": "bert", "data": "banking.csv", "epochs": 5}
    epochs = epochs_of(5, classes=classes, blocks=12, truth=False)
    return RunRecord("many classes", config, epochs, metrics_of(5), audit_of(issues, labels))


def hostile_record():
    labels = ("<b>bold</b>", '=cmd|" /C calc"!A0')
    count = len(HOSTILE)
    issues = issues_of(HOSTILE, [0] * count, [1] * count, np.linspace(0, 0.4, count), labels=labels)
    config = {"model": "<img src=x onerror=alert(1)>", "data": "</script>", "training": {"<i>": "\0"}}
    return small_record(
        name="<svg onload=alert(1)>",
        config=config,
        audit=replace(audit_of(issues, labels), predictions="</p><script>alert(1)</script>"),
        missing=["<script>alert(1)</script> is missing"],
        epochs=epochs_of(3, classes=2),
    )


def _histogram(losses, wrong):
    values = log_odds(losses)
    edges = np.linspace(values.min(), values.max() + 1e-6, 41)
    parts = {"all": values} if wrong is None else {"right": values[~wrong], "wrong": values[wrong]}
    counts = {part: np.histogram(numbers, edges)[0].tolist() for part, numbers in parts.items()}
    return {"edges": edges.tolist(), **counts}


def _sentence(generator, topic, words):
    count = generator.integers(*words)
    chosen = np.where(
        generator.uniform(size=count) < 0.4,
        generator.choice(_WORDS[topic], count),
        generator.choice(_FILLING, count),
    )
    return " ".join(chosen).capitalize() + "."
