"""How figures look and how they are written; matplotlib is an extra, imported when a figure is drawn."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clear_peft.errors import InputError
from clear_peft.files import atomic_write
from clear_peft.report.mixtures import densities
from clear_peft.surroundings import pip_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_COLUMNS = 3
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a label may hold dollar signs
    "svg.hashsalt": "clear-peft",  # the same results give the same file
}


def write_drawn(
    drawn: Mapping[str, Callable[[], "Figure | None"]], folder: Path, file_format: str
) -> list[Path]:
    """Draw figures and write them.

    Args:
        drawn: What draws each figure, by file name without ending; None where there is nothing to draw.
        folder: Folder for the files; made where it is missing.
        file_format: ``svg`` or ``png``.

    Returns:
        The files written.

    Raises:
        InputError: If matplotlib is not installed, or the folder cannot be written to.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError(f"Plots need matplotlib: {pip_install('bench')}.") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {folder}: {error.strerror}; give another one.") from error
    written = []
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # a label in a script that matplotlib's font lacks is drawn as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
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


def panels(titles: Sequence[str], columns: int = _COLUMNS) -> tuple["Figure", list["Axes"]]:
    """A figure with a panel for each title, in rows of at most so many columns."""
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


def legend(figure: "Figure", axes: Sequence["Axes"]) -> None:
    """One legend for all panels, below them."""
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = int(figure.get_figwidth() / 1.6)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def epochs_below(panel: "Axes") -> None:
    """Make the horizontal axis one of epochs."""
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("epoch")


def loss_histogram(panel: "Axes", losses: Mapping[str, Any]) -> None:
    """Counts of an epoch's losses, with the fitted mixture, or with how many are wrong by estimate.

    Args:
        panel: Where to draw.
        losses: What an epoch's record holds as ``losses`` (``clear_peft.trainer.stats.estimate_histogram``).
    """
    edges = np.array(losses["edges"])
    base = np.zeros(len(edges) - 1)
    for part, label, colour in (
        ("all", "all labels", "#999999"),
        ("right", "right labels", COLOURS[0]),
        ("wrong", "wrong labels", COLOURS[1]),
    ):
        if part in losses:
            counts = np.array(losses[part])
            panel.stairs(
                base + counts, edges, baseline=base, fill=True, alpha=0.55, color=colour, label=label
            )
            base += counts
    parameters = losses.get("parameters") or {}
    doubted = losses.get("doubted")
    if doubted is not None:
        panel.stairs(doubted, edges, color="black", linewidth=1.2, label="wrong by estimate")
    elif "family" in parameters:
        places = np.linspace(edges[0], edges[-1], 400)
        density = densities(parameters, places).sum(axis=0) * base.sum() * (edges[1] - edges[0])
        panel.plot(places, density, color="black", linewidth=1.2, label="fitted mixture")
        # a component that has collapsed to a spike would hide the rest
        panel.set_ylim(0, 1.3 * base.max())
    on_log_odds = parameters.get("scale") == "log_odds"
    panel.set_xlabel("log-odds against the given label" if on_log_odds else "cross entropy, nats", fontsize=8)
