"""Figures of a run as files, for papers and slides: accuracy, losses, routing, confusion."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clear_peft.audit import Audit
from clear_peft.report.drawing import COLOURS, epochs_below, legend, loss_histogram, panels, write_drawn
from clear_peft.report.record import RunRecord
from clear_peft.report.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_CURVES = (
    ("validation_accuracy", "validation, labels as given", COLOURS[0]),
    ("test_accuracy", "test", "black"),
)
_NAME_LENGTH = 24
# beyond so many classes shares in cells, and then names of classes, would be too small to read
_ANNOTATED, _NAMED = 15, 80
_EPOCHS_NAMED = 8


def write_figures(record: RunRecord, folder: Path, file_format: str = "svg") -> list[Path]:
    """Draw every figure for which the run has data.

    ``accuracy`` by epoch, the selected one marked; ``losses`` with the fitted mixture at the first and the
    last scored epoch; ``gate_rates``, the share of examples routed through, by block and by given class;
    ``confusion``, the estimated share of each true class that is given each label.

    Args:
        record: The run.
        folder: Folder for the files; made where it is missing.
        file_format: ``svg`` or ``png``. Default ``svg``.

    Returns:
        The files written.

    Raises:
        InputError: If matplotlib is not installed, or the folder cannot be written to.
    """
    drawn = {
        "accuracy": lambda: _accuracy(record),
        "losses": lambda: _losses(record.epochs),
        "gate_rates": lambda: _gate_rates(record),
        "confusion": lambda: None if record.audit is None else _confusion(record.audit),
    }
    return write_drawn(drawn, folder, file_format)


def _accuracy(record: RunRecord) -> "Figure | None":
    metrics = record.metrics or {}
    selected = metrics.get("selected_epoch")
    curves = {name: _curve(record.epochs, name) for name, *_ in _CURVES}
    if not any(curves.values()):
        return None
    figure, (panel,) = panels([""])
    for name, label, colour in _CURVES:
        if curves[name]:
            epochs, values = zip(*curves[name], strict=True)
            marker = "o" if len(epochs) == 1 else None
            panel.plot(epochs, values, label=label, color=colour, linewidth=1.4, marker=marker)
    test = metrics.get("test")
    if test and not curves["test_accuracy"] and selected is not None:
        panel.plot([selected], [100 * test["accuracy"]], "D", color="black", markersize=5, label="test")
    if record.warm_up is not None:
        panel.axvline(record.warm_up + 0.5, color="#999999", linestyle="--", linewidth=1.2, label="restarted")
    if selected is not None:
        panel.axvline(selected, color="#999999", linestyle=":", linewidth=1.2, label="selected epoch")
    epochs_below(panel)
    panel.set_ylabel("accuracy, %")
    legend(figure, [panel])
    return figure


def _curve(epochs: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(epoch, percent) where the figure is there."""
    return [(epoch["epoch"], 100 * epoch[name]) for epoch in epochs if epoch.get(name) is not None]


def _losses(epochs: Sequence[Mapping[str, Any]]) -> "Figure | None":
    scored = [epoch for epoch in epochs if epoch.get("losses")]
    shown = [*scored[:1], *scored[1:][-1:]]
    if not shown:
        return None
    figure, axes = panels([f"epoch {epoch['epoch']}" for epoch in shown])
    for panel, epoch in zip(axes, shown, strict=True):
        loss_histogram(panel, epoch["losses"])
    axes[0].set_ylabel("training rows")
    legend(figure, axes)
    return figure


def _gate_rates(record: RunRecord) -> "Figure | None":
    routed = [epoch for epoch in record.epochs if epoch.get("gate_rates")]
    if not routed:
        return None
    blocks, classes = (
        _table([epoch["gate_rates"][part] for epoch in routed]) for part in ("blocks", "classes")
    )
    labels = record.audit.labels if record.audit is not None else []
    names = labels if len(labels) == len(classes) else [str(i) for i in range(len(classes))]
    figure, axes = panels(["routed through, by block", "routed through, by given class"])
    figure.set_size_inches(7.5, 2 + 0.18 * min(max(len(blocks), len(classes)), _NAMED))
    epochs = [epoch["epoch"] for epoch in routed]
    for panel, table, rows in zip(axes, (blocks, classes), (range(1, len(blocks) + 1), names), strict=True):
        image = _heat_map(panel, 100 * table, "cividis")
        _name(panel, "y", [str(row) for row in rows])
        places = _spread(len(epochs), _EPOCHS_NAMED)
        panel.set_xticks(places, [str(epochs[place]) for place in places])
        panel.set_xlabel("epoch")
    figure.colorbar(image, ax=axes, label="share of examples, %")
    return figure


def _table(rates: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Shares, (rows, epochs) float64; NaN where there is none."""
    table = np.full((max(map(len, rates)), len(rates)), np.nan)
    for column, values in enumerate(rates):
        table[: len(values), column] = [np.nan if value is None else value for value in values]
    return table


def _confusion(audit: Audit) -> "Figure":
    shares = 100 * audit.transition
    count = len(audit.labels)
    figure, (panel,) = panels([""])
    side = 3 + 0.16 * min(count, _NAMED)
    figure.set_size_inches(side + 1.6, side + 0.6)
    image = _heat_map(panel, shares, "Blues")
    panel.set_aspect("equal")
    _name(panel, "y", audit.labels)
    _name(panel, "x", audit.labels)
    panel.set_xlabel("given label")
    panel.set_ylabel("true class, estimated")
    if count <= _ANNOTATED:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 60 else "black"
            panel.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(image, ax=panel, label="share of the true class, %", shrink=0.8)
    return figure


def _heat_map(panel: "Axes", percent: np.ndarray, colours: str) -> "AxesImage":
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    return panel.imshow(percent, cmap=colours, vmin=0, vmax=100, aspect="auto", interpolation="nearest")


def _name(panel: "Axes", axis: str, names: Sequence[str]) -> None:
    """Name the rows or columns of a heat map: all of them, or of very many some."""
    places = _spread(len(names), _NAMED)
    shown = [one_line(names[place], _NAME_LENGTH) for place in places]
    size = 8 if len(shown) <= 30 else 5
    if axis == "x":
        panel.set_xticks(places, shown, rotation=90, fontsize=size)
    else:
        panel.set_yticks(places, shown, fontsize=size)


def _spread(count: int, most: int) -> range:
    """At most so many places out of a count, at equal distances."""
    return range(0, count, -(-count // most))
