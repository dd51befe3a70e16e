"""What stands at the top of the page: the run in a few figures and facts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clear_peft.audit import Audit, said_issues, to_check
from clear_peft.files import plain_json
from clear_peft.report.page.embedding import showable
from clear_peft.report.record import RunRecord

_PATHS = ("model", "data", "validation", "test", "output", "pred_probs", "embeddings")
_SOURCES = (("validation", "validation table"), ("test", "test table"))


def headline(record: RunRecord) -> list[dict[str, str]]:
    """The figures that people look for first: ``name``, ``value``, ``detail`` each."""
    metrics = record.metrics or {}
    rows = metrics.get("rows") or {}
    last = record.epochs[-1] if record.epochs else {}
    cards = []
    test = metrics.get("test") or _so_far(last, "test")
    if test:
        cards.append(_accuracy("Test accuracy", test, rows.get("test"), "labels of the test table"))
    validation = metrics.get("validation") or _so_far(last, "validation")
    if validation:
        cards.append(
            _accuracy("Validation accuracy", validation, rows.get("validation"), "doubtful labels, as given")
        )
    if record.audit is not None:
        cards += _audited(record.audit)
    elif last.get("noise_rate") is not None:
        cards.append(
            {
                "name": "Estimated wrong labels",
                "value": percent(last["noise_rate"]),
                "detail": f"as of epoch {last['epoch']}",
            }
        )
    return cards


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """What was trained on, or found in, what, as (name, value); what is not known is left out."""
    config, metrics = record.config, record.metrics or {}
    peft = metrics["peft"] if "peft" in metrics else config.get("peft")
    method = metrics.get("method") or config.get("method")
    found: list[tuple[str, Any]] = [
        ("Model", _brief_path(config.get("model"))),
        ("Predictions", _brief_path(config.get("pred_probs"))),
        ("Embeddings", _brief_path(config.get("embeddings"))),
        ("Training table" if record.trained else "Table", _brief_path(config.get("data"))),
        *((name.capitalize(), _brief_path(config.get(key))) for key, name in _SOURCES),
        ("Columns", _columns(config)),
        ("PEFT method", peft or ("none: all weights are trained" if method else None)),
        ("Training method", _with_preset(method, config.get("preset"))),
        ("Rows", _row_counts(metrics.get("rows") or {})),
        ("Other issues of the table", said_issues(metrics.get("table_issues") or {})),
        ("Copies of training rows", _row_counts(metrics.get("leaks") or {})),
        ("Texts cut at the most tokens", _row_counts(metrics.get("cut_texts") or {})),
        ("Epochs", _epoch_counts(record)),
        ("Seed", metrics.get("seed", config.get("seed"))),
        ("Training time", _duration(metrics.get("train_seconds"))),
        ("Time", _duration(metrics.get("seconds"))),
        ("Peak memory", _size(metrics.get("peak_memory_bytes"))),
        (
            "Versions",
            ", ".join(f"{name} {version}" for name, version in (metrics.get("versions") or {}).items()),
        ),
    ]
    found += _where_truth_is_known(metrics)
    return [(name, showable(str(value))) for name, value in found if value not in (None, "")]


def whole_configuration(config: Mapping[str, Any]) -> str:
    """The configuration as indented JSON, paths as brief as in ``facts``."""
    paths = {name: _brief_path(config[name]) for name in _PATHS if config.get(name)}
    return showable(json.dumps(plain_json({**config, **paths}), indent=2, ensure_ascii=False, default=str))


def percent(share: float) -> str:
    """A share in percent, with a decimal only where it says something."""
    value = 100 * share
    digits = 0 if round(value, 1) in (0, 100) else 1
    return f"{value:.{digits}f}\N{NO-BREAK SPACE}%"


def _so_far(epoch: Mapping[str, Any], part: str) -> dict[str, float] | None:
    if epoch.get(f"{part}_accuracy") is None:
        return None
    found = {"accuracy": epoch[f"{part}_accuracy"], "macro_f1": epoch.get(f"{part}_macro_f1")}
    return {**found, "epoch": epoch["epoch"]}


def _accuracy(name: str, measured: Mapping[str, Any], rows: int | None, labels: str) -> dict[str, str]:
    details = [labels if rows is None else f"{rows:,} rows, {labels}"]
    if measured.get("macro_f1") is not None:
        details.append(f"macro-F1 {percent(measured['macro_f1'])}")
    if "epoch" in measured:
        details.append(f"as of epoch {measured['epoch']}")
    return {"name": name, "value": percent(measured["accuracy"]), "detail": "; ".join(details)}


def _audited(audit: Audit) -> Sequence[dict[str, str]]:
    listed = int(to_check(audit.issues)["is_label_issue"].sum())
    rule = f"clean probability below {audit.threshold:g}"
    expected = audit.expected_precision
    precise = "" if expected is None else f"; by estimate {percent(expected)} of their labels are wrong"
    return (
        {
            "name": "Estimated wrong labels",
            "value": percent(audit.noise_rate),
            "detail": audit.said_interval(percent),
        },
        {
            "name": "Rows to check",
            "value": f"{listed:,}",
            "detail": f"of {len(audit.issues):,}, {rule}{precise}",
        },
    )


def _brief_path(source: str | None) -> str | None:
    """Of an absolute path the end: where else somebody keeps files is not for the eyes of all readers."""
    parts = Path(source or "").parts
    return f"…/{'/'.join(parts[-2:])}" if len(parts) > 3 and Path(parts[0]).is_absolute() else source


def _columns(config: Mapping[str, Any]) -> str:
    texts = config.get("text_column")
    texts = texts if isinstance(texts, str | None) else " and ".join(map(str, texts))
    names = [("texts", texts), ("labels", config.get("label_column"))]
    names += [("true labels", config.get("clean_label_column")), ("ids", config.get("id_column"))]
    names += [("groups", config.get("group_column")), ("verified", config.get("verified_column"))]
    return ", ".join(f"{name} in {column}" for name, column in names if column)


def _with_preset(method: str | None, preset: str | None) -> str | None:
    return f"{method} (preset {preset})" if method and preset else method


def _row_counts(rows: Mapping[str, Any]) -> str:
    return ", ".join(f"{count:,} {part}" for part, count in rows.items() if count is not None)


def _epoch_counts(record: RunRecord) -> str | None:
    metrics = record.metrics or {}
    if not record.epochs:
        return None
    done = record.epochs[-1]["epoch"]
    counts = f"{done} done"
    asked, selected = record.config.get("epochs"), metrics.get("selected_epoch")
    before = record.warm_up
    if before is not None:
        counts += f": {before} to find wrong labels, {done - before}"
        counts += " after the restart" if asked is None else f" of {asked - before} after the restart"
    elif asked is not None:
        counts += f", {asked} asked for"
    return counts if selected is None else f"{counts}, epoch {selected} selected"


def _where_truth_is_known(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    detection = metrics.get("detection")
    if detection:
        text = f"{detection['found']:,} of {detection['wrong']:,}"
        if detection.get("precision") is not None:
            text += f"; {percent(detection['precision'])} of the list are wrong"
        text += f"; average precision {detection['average_precision']:.3f}"
        found.append(("Wrong labels on the list (label_issues.csv)", text))
    if metrics.get("memorised") is not None:
        found.append(("Wrong labels that the model repeats", percent(metrics["memorised"])))
    return found


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "less than a second"


def _size(size: float | None) -> str | None:
    return None if size is None else f"{size / 2**30:.2f} GiB"
