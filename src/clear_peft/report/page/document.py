"""The page put together: template, style, script and data in one file."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clear_peft.files import plain_json
from clear_peft.report.page.charts import confusion, epoch_charts
from clear_peft.report.page.embedding import embedded_json, showable
from clear_peft.report.page.rows import TEXT_CHARACTERS, row_columns
from clear_peft.report.page.summary import facts, headline, whole_configuration
from clear_peft.report.record import RunRecord

# the page stays below 30 MB
_BUDGET = 29_000_000
_STYLES = ("base.css", "charts.css", "review.css")
_SCRIPTS = (
    "core.js",
    "lines.js",
    "epochs.js",
    "confusion.js",
    "rows.js",
    "decisions.js",
    "corrections.js",
    "inspector.js",
    "controls.js",
    "review.js",
    "main.js",
)


def render(record: RunRecord) -> str:
    """Make the report of a run.

    The page holds everything it needs and asks for nothing: no network, no server. Texts are cut at 2,000
    characters, and of a table that would make it larger than 30 MB the least suspicious rows are left out;
    the page says so.

    Args:
        record: The run, finished or not.

    Returns:
        The whole page; it has a UTF-8 form whatever the record's texts hold.
    """
    style = "\n".join(map(_asset, _STYLES))
    script = "\n".join(['"use strict";', "(() => {", *map(_asset, _SCRIPTS), "})();"])
    environment = Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    charts = {
        "key": _storage_key(record),
        "epochs": epoch_charts(_tested(record)),
        "warm_up": record.warm_up,
        "selected": (record.metrics or {}).get("selected_epoch"),
        "confusion": None if record.audit is None else confusion(record.audit),
    }
    values: dict[str, Any] = {
        "name": showable(record.name),
        "finished": record.metrics is not None,
        "trained": record.trained,
        "missing": [showable(sentence) for sentence in record.missing],
        "epochs": len(record.epochs),
        "warm_up": record.warm_up,
        "routed": any(epoch.get("gate_rates") for epoch in record.epochs),
        "headline": headline(record),
        "facts": facts(record),
        "configuration": whole_configuration(record.config),
        "predictions": "" if record.audit is None else showable(record.audit.predictions),
        "style": Markup(style),  # noqa: S704  (ours)
        "script": Markup(script),  # noqa: S704
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "text_characters": TEXT_CHARACTERS,
        "charts": Markup(embedded_json(plain_json(charts))),  # noqa: S704  (escaped for a script element)
    }
    template = environment.get_template("page.html")
    page: str = template.render(values, rows=None)
    if record.audit is not None:
        left = _BUDGET - len(page.encode())
        rows = row_columns(record.audit.issues, record.audit.labels, left, record.proposed)
        page = template.render(values, rows=rows, row_data=Markup(embedded_json(rows)))  # noqa: S704
    return page


def _tested(record: RunRecord) -> Sequence[Mapping[str, Any]]:
    """The epochs; the selected one has the test figures that were measured once, if they were."""
    metrics = record.metrics or {}
    test = metrics.get("test")
    if not test or any(epoch.get("test_accuracy") is not None for epoch in record.epochs):
        return record.epochs
    figures = {f"test_{name}": value for name, value in test.items()}
    selected = metrics.get("selected_epoch")
    return [{**epoch, **figures} if epoch["epoch"] == selected else epoch for epoch in record.epochs]


def _asset(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _storage_key(record: RunRecord) -> str:
    """Under which the browser keeps decisions: another run, or other rows, must not find them."""
    digest = hashlib.sha256(json.dumps([record.name, plain_json(record.config)], default=str).encode())
    if record.audit is not None:
        issues = record.audit.issues.sort_values("row")
        for column in ("row", "given_label", "text"):
            for value in issues[column]:
                digest.update(f"{value}\0".encode("utf-8", "surrogatepass"))
    return f"clear-peft:{digest.hexdigest()[:24]}"
