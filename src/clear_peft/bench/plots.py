"""Results in, plots out: accuracy and memorised share by epoch, accuracy by noise rate, losses, cost."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clear_peft.bench.grid import GIVEN_LABELS, TRUE_LABELS
from clear_peft.bench.measures import CELL, PLAIN, curves, each_once, figures, mean_and_margin
from clear_peft.bench.tables import summarise
from clear_peft.report.drawing import COLOURS, epochs_below, legend, loss_histogram, panels, write_drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")
# whose losses are shown: the first of them that is there
_SCORED = ("recommended", "paper")


def write_plots(records: Iterable[Mapping[str, Any]], folder: Path, file_format: str = "svg") -> list[Path]:
    """Draw every plot for which there are results.

    Args:
        records: Of one or more stores.
        folder: Folder for the files; made where it is missing.
        file_format: ``svg`` or ``png``. Default ``svg``.

    Returns:
        The files written.

    Raises:
        InputError: If matplotlib is not installed, or the folder cannot be written to.
    """
    records = each_once(records)
    runs, by_epoch = figures(records), curves(records)
    style = _styles(runs["method"])
    drawn = {
        "accuracy_by_epoch": lambda: _by_epoch(
            by_epoch, "test_accuracy", "accuracy on true test labels, %", style
        ),
        "accuracy_by_noise": lambda: _by_noise(runs, style),
        "memorised_by_epoch": lambda: _by_epoch(by_epoch, "memorised", "wrong labels memorised, %", style),
        "losses": lambda: _losses(records, runs),
        "cost": lambda: _cost(runs, style),
    }
    return write_drawn(drawn, folder, file_format)


def _styles(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of every method, the same in all plots; plain PEFT is black."""
    others = [method for method in dict.fromkeys(methods) if method != PLAIN]
    styles: dict[str, dict[str, Any]] = {PLAIN: {"color": "black", "linestyle": "-", "marker": "o"}}
    for i, method in enumerate(others):
        turn = i // len(COLOURS) % len(_LINES)
        styles[method] = {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": _LINES[turn],
            "marker": _MARKERS[turn],
        }
    return styles


def _lines(
    panel: "Axes",
    frame: pd.DataFrame,
    x: str,
    y: str,
    style: Mapping[str, Mapping[str, Any]],
    *,
    marked: bool,
) -> None:
    """A line for each method, the mean over its seeds, with its interval as a band."""
    for method, of_method in frame.groupby("method", sort=False):
        grouped = of_method.groupby(x)
        points = np.array([mean_and_margin(group[y]) for _, group in grouped]) * 100
        places = np.array([place for place, _ in grouped], dtype=float)
        mean, margin = points[:, 0], np.nan_to_num(points[:, 1])
        look = dict(style[str(method)])
        if not marked:
            look.pop("marker")
        panel.plot(places, mean, label=str(method), linewidth=1.4, markersize=4, **look)
        if margin.any():
            # an interval of few seeds goes beyond the ends of the scale, and would set that of the panel
            band = np.clip([mean - margin, mean + margin], 0, 100)
            panel.fill_between(places, *band, color=look["color"], alpha=0.15, linewidth=0)


def _titles(frame: pd.DataFrame, by: list[str]) -> Callable[[Any], str]:
    """How a panel is called: PEFT is named where there are several."""
    several = frame["peft"].nunique() > 1
    shown = [i for i, column in enumerate(by) if column != "peft" or several]
    return lambda names: ", ".join(names[i] for i in shown)


def _by_epoch(
    frame: pd.DataFrame, quantity: str, heading: str, style: Mapping[str, Mapping[str, Any]]
) -> "Figure | None":
    frame = _carried_on(frame.dropna(subset=[quantity]))
    if frame.empty:
        return None
    groups = list(frame.groupby(CELL, sort=False))
    title = _titles(frame, CELL)
    figure, axes = panels([title(names) for names, _ in groups])
    for panel, (_, group) in zip(axes, groups, strict=True):
        _lines(panel, group, "epoch", quantity, style, marked=group["epoch"].nunique() == 1)
        epochs_below(panel)
    figure.supylabel(heading, fontsize=9)
    legend(figure, axes)
    return figure


def _carried_on(frame: pd.DataFrame) -> pd.DataFrame:
    """A run that has stopped stays where it was as long as another seed goes on: means are of all seeds."""
    parts = [frame]
    for _, runs in frame.groupby([*CELL, "method"], sort=False):
        for _, run in runs.groupby("seed"):
            last = run.loc[[run["epoch"].idxmax()]]
            later = range(run["epoch"].max() + 1, runs["epoch"].max() + 1)
            parts += [last.assign(epoch=epoch) for epoch in later]
    return pd.concat(parts, ignore_index=True)


def _by_noise(runs: pd.DataFrame, style: Mapping[str, Mapping[str, Any]]) -> "Figure | None":
    """Panels of the kinds of noise of which there are two rates, no noise being one."""
    clean = runs[runs["noise"] == TRUE_LABELS]
    noisy = runs[~runs["noise"].isin([TRUE_LABELS, GIVEN_LABELS])]
    shown = {}
    by = ["data", "kind", "peft"]
    for names, group in noisy.groupby(by, sort=False):
        data, _, peft = names
        limit = clean[(clean["data"] == data) & (clean["peft"] == peft)]
        together = pd.concat([limit, group])
        # seeds differ a little in the rate that they realise
        rates = 100 * together.groupby("noise")["noise_rate"].transform("mean")
        if rates.nunique() > 1:
            shown[names] = together.assign(rate=rates)
    if not shown:
        return None
    title = _titles(noisy, by)
    figure, axes = panels([title(names) for names in shown])
    for panel, group in zip(axes, shown.values(), strict=True):
        _lines(panel, group, "rate", "selected", style, marked=True)
        panel.set_xlabel("wrong labels in training, %")
    figure.supylabel("accuracy on true test labels, %", fontsize=9)
    legend(figure, axes)
    return figure


def _losses(records: Sequence[Mapping[str, Any]], runs: pd.DataFrame) -> "Figure | None":
    """Losses at the first and, if there are more, the last estimate of one seed of each cell."""
    method = next((m for m in _SCORED if (runs["method"] == m).any()), None)
    shown: dict[Any, list[Mapping[str, Any]]] = {}
    for names, group in runs[runs["method"] == method].groupby(CELL, sort=False):
        first: Any = group["seed"].idxmin()
        epochs = records[first]["metrics"]["epochs"]
        scored = [epoch for epoch in epochs if epoch.get("losses")]
        if scored:
            shown[names] = [scored[0], *scored[1:][-1:]]
    if not shown:
        return None
    title = _titles(runs, CELL)
    figure, axes = panels(
        [f"{title(names)}, epoch {epoch['epoch']}" for names, pair in shown.items() for epoch in pair],
        columns=2,
    )
    for panel, epoch in zip(axes, [epoch for pair in shown.values() for epoch in pair], strict=True):
        loss_histogram(panel, epoch["losses"])
    figure.suptitle(f"{method}: losses under the given labels", fontsize=9)
    figure.supylabel("training rows", fontsize=9)
    legend(figure, axes)
    return figure


def _cost(runs: pd.DataFrame, style: Mapping[str, Mapping[str, Any]]) -> "Figure | None":
    methods = summarise(runs).methods.dropna(subset=["gap_recovered", "relative_seconds"])
    if methods.empty:
        return None
    figure, (panel,) = panels([""])
    figure.set_size_inches(6, 4)
    panel.axhline(0, color="#999999", linewidth=0.8)
    for _, row in methods.iterrows():
        look = style[row["method"]]
        place = row["relative_seconds"], row["gap_recovered"]
        panel.plot(*place, label=row["method"], color=look["color"], marker=look["marker"], linestyle="")
    panel.set_xlabel("training time, times that of plain PEFT")
    panel.set_ylabel("gap recovered")
    panel.margins(x=0.15, y=0.1)
    legend(figure, [panel])
    return figure
