"""Results in, plots out: accuracy and memorised share by epoch, accuracy by noise rate, losses, cost."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clear_peft.bench.grid import GIVEN_LABELS, TRUE_LABELS
from clear_peft.bench.measures import CELL, PLAIN, curves, each_once, figures, mean_and_margin
from clear_peft.bench.tables import summarise
from clear_peft.cleanliness.mixture import BetaMixture, GaussianMixture
from clear_peft.errors import InputError
from clear_peft.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")
# Okabe and Ito's colours, which the colour-blind tell apart; plain PEFT is black
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")
_COLUMNS = 3
# whose losses are shown: the first of them that is there
_SCORED = ("recommended", "paper")
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "clear-peft",  # the same results give the same file
}


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
    try:
        import matplotlib
    except ImportError:
        raise InputError("Plots need matplotlib: pip install 'clear-peft[bench]'.") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the folder {folder}: {error.strerror}; give another --output."
        ) from error
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
    written = []
    with matplotlib.rc_context(_STYLE):
        for name, draw in drawn.items():
            figure = draw()
            if figure is not None:
                path = folder / f"{name}.{file_format}"
                atomic_write(path, _rendered(figure, file_format))
                written.append(path)
    return written


def _rendered(figure: "Figure", file_format: str) -> bytes:
    stream = BytesIO()
    metadata = {"Date": None} if file_format == "svg" else {}
    figure.savefig(stream, format=file_format, dpi=150, metadata=metadata)
    return stream.getvalue()


def _styles(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of every method, the same in all plots."""
    others = [method for method in dict.fromkeys(methods) if method != PLAIN]
    styles: dict[str, dict[str, Any]] = {PLAIN: {"color": "black", "linestyle": "-", "marker": "o"}}
    for i, method in enumerate(others):
        turn = i // len(_COLOURS) % len(_LINES)
        styles[method] = {
            "color": _COLOURS[i % len(_COLOURS)],
            "linestyle": _LINES[turn],
            "marker": _MARKERS[turn],
        }
    return styles


def _panels(titles: Sequence[str], columns: int = _COLUMNS) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(max(3.2 * columns, 5.6), 2.6 * rows + 1), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[len(titles) :]:
        unused.remove()
    for panel, title in zip(axes, titles, strict=False):
        panel.set_title(title, loc="left", fontsize=9)
    return figure, axes[: len(titles)]


def _legend(figure: "Figure", axes: Sequence["Axes"]) -> None:
    """One legend for all panels, below them."""
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = int(figure.get_figwidth() / 1.6)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


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
            panel.fill_between(
                places, mean - margin, mean + margin, color=look["color"], alpha=0.15, linewidth=0
            )


def _titles(frame: pd.DataFrame, by: list[str]) -> Callable[[Any], str]:
    """How a panel is called: PEFT is named where there are several."""
    several = frame["peft"].nunique() > 1
    shown = [i for i, column in enumerate(by) if column != "peft" or several]
    return lambda names: ", ".join(names[i] for i in shown)


def _by_epoch(
    frame: pd.DataFrame, quantity: str, heading: str, style: Mapping[str, Mapping[str, Any]]
) -> "Figure | None":
    frame = frame.dropna(subset=[quantity])
    if frame.empty:
        return None
    from matplotlib.ticker import MaxNLocator

    groups = list(frame.groupby(CELL, sort=False))
    title = _titles(frame, CELL)
    figure, axes = _panels([title(names) for names, _ in groups])
    for panel, (_, group) in zip(axes, groups, strict=True):
        _lines(panel, group, "epoch", quantity, style, marked=group["epoch"].nunique() == 1)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel("epoch")
    figure.supylabel(heading, fontsize=9)
    _legend(figure, axes)
    return figure


def _by_noise(runs: pd.DataFrame, style: Mapping[str, Mapping[str, Any]]) -> "Figure | None":
    """Panels of the kinds of noise of which there are two rates, no noise being one."""
    clean = runs[runs["noise"] == TRUE_LABELS]
    noisy = runs[~runs["noise"].isin([TRUE_LABELS, GIVEN_LABELS])]
    panels = {}
    by = ["data", "kind", "peft"]
    for names, group in noisy.groupby(by, sort=False):
        data, _, peft = names
        limit = clean[(clean["data"] == data) & (clean["peft"] == peft)]
        together = pd.concat([limit, group])
        # seeds differ a little in the rate that they realise
        rates = 100 * together.groupby("noise")["noise_rate"].transform("mean")
        if rates.nunique() > 1:
            panels[names] = together.assign(rate=rates)
    if not panels:
        return None
    title = _titles(noisy, by)
    figure, axes = _panels([title(names) for names in panels])
    for panel, group in zip(axes, panels.values(), strict=True):
        _lines(panel, group, "rate", "selected", style, marked=True)
        panel.set_xlabel("wrong labels in training, %")
    figure.supylabel("accuracy on true test labels, %", fontsize=9)
    _legend(figure, axes)
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
    figure, axes = _panels(
        [f"{title(names)}, epoch {epoch['epoch']}" for names, pair in shown.items() for epoch in pair],
        columns=2,
    )
    for panel, epoch in zip(axes, [epoch for pair in shown.values() for epoch in pair], strict=True):
        _histogram(panel, epoch["losses"])
    figure.suptitle(f"{method}: losses under the given labels", fontsize=9)
    figure.supylabel("training rows", fontsize=9)
    _legend(figure, axes)
    return figure


def _histogram(panel: "Axes", losses: Mapping[str, Any]) -> None:
    edges = np.array(losses["edges"])
    base = np.zeros(len(edges) - 1)
    for part, label, colour in (
        ("all", "all labels", "#999999"),
        ("right", "right labels", _COLOURS[0]),
        ("wrong", "wrong labels", _COLOURS[1]),
    ):
        if part in losses:
            counts = np.array(losses[part])
            panel.stairs(
                base + counts, edges, baseline=base, fill=True, alpha=0.55, color=colour, label=label
            )
            base += counts
    parameters = losses.get("parameters") or {}
    if "family" in parameters:
        places = np.linspace(edges[0], edges[-1], 400)
        density = _density(parameters, places) * base.sum() * (edges[1] - edges[0])
        panel.plot(places, density, color="black", linewidth=1.2, label="fitted mixture")
        # a component that has collapsed to a spike would hide the rest
        panel.set_ylim(0, 1.3 * base.max())
    on_log_odds = parameters.get("scale") == "log_odds"
    panel.set_xlabel("log-odds against the given label" if on_log_odds else "cross entropy, nats", fontsize=8)


def _density(parameters: Mapping[str, Any], places: np.ndarray) -> np.ndarray:
    moments = [np.array(parameters[name]) for name in ("weights", "means", "variances")]
    if parameters["family"] == "gaussian":
        return np.exp(GaussianMixture(*moments).log_density(places)).sum(axis=0)
    low, high = parameters["low"], parameters["high"]
    inside = np.clip((places - low) / (high - low), 1e-3, 1 - 1e-3)
    return np.exp(BetaMixture(*moments).log_density(inside)).sum(axis=0) / (high - low)


def _cost(runs: pd.DataFrame, style: Mapping[str, Mapping[str, Any]]) -> "Figure | None":
    methods = summarise(runs).methods.dropna(subset=["gap_recovered", "relative_seconds"])
    if methods.empty:
        return None
    figure, (panel,) = _panels([""])
    figure.set_size_inches(6, 4)
    panel.axhline(0, color="#999999", linewidth=0.8)
    for _, row in methods.iterrows():
        look = style[row["method"]]
        place = row["relative_seconds"], row["gap_recovered"]
        panel.plot(*place, color=look["color"], marker=look["marker"], linestyle="")
        panel.annotate(row["method"], place, xytext=(5, 4), textcoords="offset points", fontsize=8)
    panel.set_xlabel("training time, times that of plain PEFT")
    panel.set_ylabel("gap recovered")
    panel.margins(x=0.15, y=0.1)
    return figure
