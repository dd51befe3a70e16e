"""Results in, tables out: one for each cell, and a summary over the cells with noise."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clear_peft.bench.grid import TRUE_LABELS
from clear_peft.bench.measures import (
    CELL,
    PLAIN,
    SMALLEST_GAP,
    against_plain,
    figures,
    machine_of,
    mean_and_margin,
)
from clear_peft.errors import InputError
from clear_peft.files import atomic_write

_NOTHING = "–"
# column → heading
_ACCURACIES = {
    "selected": "accuracy at best noisy-validation epoch",
    "difference": "over plain",
    "macro_f1": "macro-F1 there",
    "last": "last epoch",
    "last_5": "mean of last 5",
    "peak": "peak (oracle)",
}
_SHARES = {
    "memorised": "wrong labels memorised",
    "roc_auc": "detection ROC AUC",
    "average_precision": "detection AP",
    "precision": "precision",
    "recall": "recall",
    "estimated": "labels wrong by estimate",
}
# of methods that judge the labels more than once
_VERDICTS = {
    "first_estimated": "by the first estimate",
    "last_estimated": "by the last",
    "first_roc_auc": "detection ROC AUC, first",
    "last_roc_auc": "last",
}
_COSTS = {"seconds": "training s", "megabytes": "peak memory MB"}
_WITH_MARGIN = ("selected", "difference", "macro_f1", "average_precision")
# column → title of its table over all cells
_OVERVIEWS = {
    "selected": "Accuracy at the best noisy-validation epoch",
    "macro_f1": "Macro-F1 at the best noisy-validation epoch",
    "gap_recovered": "Gap recovered",
    "average_precision": "Average precision of the list of wrong labels",
}


@dataclass(frozen=True)
class Summary:
    """Methods beside plain PEFT, on the noisy cells and seeds that all of them have.

    Attributes:
        methods: One row each, the best first: ``method``, ``gap_recovered``, ``selected``, ``macro_f1``,
            ``relative_seconds``, ``worst_difference``, ``worst_cell``, ``needs``.
        runs: Number of cells × seeds that all methods have.
        gaps: Those of them that have a gap to recover.
        left_out: The cells without one.
        not_run: The methods that each cell lacks.
    """

    methods: pd.DataFrame
    runs: int
    gaps: int
    left_out: list[str]
    not_run: dict[str, list[str]]


def cell_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Figures of every cell and method over its seeds.

    Args:
        runs: What :func:`~clear_peft.bench.measures.figures` gives.

    Returns:
        One row for each data, noise, PEFT and training method, in the order of the runs:
        ``seeds`` (their number), the mean of every figure, ``difference`` (the paired difference to plain
        PEFT), ``gap_recovered`` (of ``gaps`` seeds), and ``…_margin`` (half a 95 % interval) of ``selected``,
        ``difference``, ``macro_f1`` and ``average_precision``.
    """
    base = runs.loc[runs["method"] == PLAIN, [*CELL, "seed", "selected"]]
    paired = runs.merge(base, on=[*CELL, "seed"], how="left", suffixes=("", "_plain"))
    paired["difference"] = paired["selected"] - paired["selected_plain"]
    gaps = against_plain(runs)[[*CELL, "method", "seed", "gap_recovered"]]
    paired = paired.merge(gaps, on=[*CELL, "method", "seed"], how="left")
    columns = ["noise_rate", *_ACCURACIES, "gap_recovered", *_SHARES, *_COSTS, *_VERDICTS]
    rows = []
    for names, group in paired.groupby([*CELL, "method"], sort=False):
        row = dict(zip([*CELL, "method"], names, strict=True)) | {"seeds": len(group)}
        for column in columns:
            row[column], margin = mean_and_margin(group[column])
            if column in _WITH_MARGIN:
                row[f"{column}_margin"] = margin
        row["gaps"] = group["gap_recovered"].count()
        rows.append(row)
    table = pd.DataFrame(rows)
    plain = table["method"] == PLAIN
    table.loc[plain, ["difference", "difference_margin"]] = math.nan
    return table


def summarise(runs: pd.DataFrame) -> Summary:
    """Compare the methods with plain PEFT over the cells with noise.

    Args:
        runs: What :func:`~clear_peft.bench.measures.figures` gives.
    """
    compared = against_plain(runs)
    methods = list(dict.fromkeys(compared["method"]))
    had = compared.groupby([*CELL, "seed"])["method"].transform("nunique")
    common = compared[had == len(methods)]
    by_cell = common.groupby(["method", *CELL], sort=False)["difference"].mean().reset_index()
    rows = []
    for method in methods:
        own = common[common["method"] == method]
        cells = by_cell[by_cell["method"] == method].sort_values("difference")
        rows.append(
            {
                "method": method,
                "gap_recovered": own["gap_recovered"].mean(),
                "selected": own["selected"].mean(),
                "macro_f1": own["macro_f1"].mean(),
                "relative_seconds": own["relative_seconds"].mean(),
                "worst_difference": cells["difference"].min(),
                "worst_cell": " ".join(cells[CELL].iloc[0]) if len(cells) and method != PLAIN else "",
                "needs": compared.loc[compared["method"] == method, "needs"].iloc[0],
            }
        )
    columns = ["method", "gap_recovered", "selected", "macro_f1"]
    columns += ["relative_seconds", "worst_difference", "worst_cell", "needs"]
    plain = common[common["method"] == PLAIN]
    small = plain[plain["gap_recovered"].isna()]
    return Summary(
        methods=pd.DataFrame(rows, columns=columns).sort_values(
            ["gap_recovered", "selected"], ascending=False, ignore_index=True
        ),
        runs=len(plain),
        gaps=len(plain) - len(small),
        left_out=[
            f"{' '.join(row[c] for c in CELL)} seed {row['seed']} "
            + (
                "(no plain PEFT on true labels)"
                if math.isnan(row["gap"])
                else f"(gap {100 * row['gap']:.1f})"
            )
            for _, row in small.iterrows()
        ],
        not_run=_not_run(runs),
    )


def _not_run(runs: pd.DataFrame) -> dict[str, list[str]]:
    methods = list(dict.fromkeys(runs["method"]))
    lacking = {
        " ".join(map(str, names)): [method for method in methods if method not in set(group["method"])]
        for names, group in runs.groupby(CELL, sort=False)
    }
    return {cell: missing for cell, missing in lacking.items() if missing}


def as_values(table: pd.DataFrame, summary: Summary) -> dict[str, Any]:
    """Both as what JSON can hold."""
    return {
        "cells": table.to_dict("records"),
        "summary": summary.methods.to_dict("records"),
        "common_runs": summary.runs,
        "common_runs_with_a_gap": summary.gaps,
        "left_out": summary.left_out,
        "not_run": summary.not_run,
    }


def as_markdown(table: pd.DataFrame, summary: Summary, hardware: Iterable[str]) -> str:
    """Both as Markdown, with what the figures mean and where they were made."""
    parts = [_summary_markdown(summary)] if len(summary.methods) else []  # nothing without plain PEFT
    parts += [
        f"### {title}\n\n{_overview_markdown(table, column)}"
        for column, title in _OVERVIEWS.items()
        if table[column].notna().any()
    ]
    if table["first_estimated"].notna().any():
        parts.append(_verdicts_markdown(table[table["first_estimated"].notna()]))
    for _, group in table.groupby(CELL, sort=False):
        parts.append(f"### {_cell_name(group)}\n\n{_cell_markdown(group)}")
    parts.append(
        "Accuracies, macro-F1 and shares in %, on true test labels; mean over seeds ± half a 95 % interval "
        "(Student's t), none for a single seed. Over all cells, the number of seeds stands behind a figure, "
        "and nothing where a method was not run. The peak is chosen on test labels: nobody can have it.\n\n"
        f"Made on {'; '.join(hardware)}."
    )
    return "\n\n".join(parts) + "\n"


def write(path: Path, table: pd.DataFrame, text: str) -> None:
    """Write the Markdown to a file ending in .md, or the cell table to one ending in .csv.

    Raises:
        InputError: If the ending is another, or the file cannot be written.
    """
    if path.suffix not in (".md", ".csv"):
        raise InputError(f"Cannot write {path}: give a file that ends in .md or .csv.")
    atomic_write(path, text if path.suffix == ".md" else table.to_csv(index=False, float_format="%.6g"))


def hardware_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The machines on which results were made, each once."""
    return list(dict.fromkeys(map(machine_of, records)))


def tables_of(records: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, Summary]:
    """Cell table and summary of records."""
    runs = figures(records)
    return cell_table(runs), summarise(runs)


def _cell_name(group: pd.DataFrame) -> str:
    data, noise, peft = group[CELL].iloc[0]
    rate = group["noise_rate"].mean()
    realised = "" if math.isnan(rate) or noise == TRUE_LABELS else f" ({_percent(rate)} % of labels wrong)"
    return f"{data}, {noise}{realised}, {peft}"


def _overview_markdown(table: pd.DataFrame, column: str) -> str:
    """One figure of all cells and methods, with the number of seeds behind it."""
    shown = table[table[column].notna()]
    methods = shown["method"].value_counts(sort=True).index
    rows = []
    for _, group in shown.groupby(CELL, sort=False):
        seeds = "gaps" if column == "gap_recovered" else "seeds"
        own = {row["method"]: f"{_figure(row, column)} ({row[seeds]})" for _, row in group.iterrows()}
        rows.append([_cell_name(group), *(own.get(method, "") for method in methods)])
    return _markdown(["", *methods], rows)


def _verdicts_markdown(judged: pd.DataFrame) -> str:
    columns = ["noise_rate", *_VERDICTS]
    rows = [
        [" ".join(row[[*CELL, "method"]]), str(row["seeds"]), *(_percent(row[column]) for column in columns)]
        for _, row in judged.iterrows()
    ]
    title = "### Judged epoch after epoch: the first and the last verdict"
    return f"{title}\n\n{_markdown(['', 'seeds', 'labels wrong', *_VERDICTS.values()], rows)}"


def _figure(row: pd.Series, column: str) -> str:
    if column == "gap_recovered":
        return _number(row[column], digits=2)
    margin = row[f"{column}_margin"] if column in _WITH_MARGIN else math.nan
    return _percent(row[column], margin, signed=column == "difference")


def _cell_markdown(group: pd.DataFrame) -> str:
    rows = []
    for _, row in group.iterrows():
        cells = [str(row["method"]), str(row["seeds"])]
        cells += [_figure(row, column) for column in (*_ACCURACIES, *_SHARES)]
        rows.append([*cells, *(_number(row[column]) for column in _COSTS)])
    return _markdown(["method", "seeds", *(_ACCURACIES | _SHARES | _COSTS).values()], rows)


def _summary_markdown(summary: Summary) -> str:
    rows = [
        [
            row["method"],
            _number(row["gap_recovered"], digits=2),
            _percent(row["selected"]),
            _percent(row["macro_f1"]),
            _number(row["relative_seconds"], digits=2),
            f"{_percent(row['worst_difference'], signed=True)} {row['worst_cell']}"
            if row["worst_cell"]
            else _NOTHING,
            row["needs"] or _NOTHING,
        ]
        for _, row in summary.methods.iterrows()
    ]
    headings = [
        "method",
        "gap recovered",
        "mean accuracy",
        "mean macro-F1",
        "time relative to plain",
        "worst cell over plain",
        "needs",
    ]
    lines = [
        "### Over the cells with noise",
        _markdown(headings, rows),
        f"On the {summary.runs} runs (cells × seeds) with noise that all these methods have. Gap recovered: "
        "(method − plain) / (plain on the true labels − plain), at the best noisy-validation epoch, mean "
        f"over the {summary.gaps} runs where the gap is at least {100 * SMALLEST_GAP:.0f} point. Times count "
        "where plain PEFT ran on the same machine.",
    ]
    if summary.left_out:
        lines.append(f"Without a gap to recover: {'; '.join(summary.left_out)}.")
    return "\n\n".join(lines)


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _percent(value: float, margin: float = math.nan, *, signed: bool = False) -> str:
    if math.isnan(value):
        return _NOTHING
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return text if math.isnan(margin) else f"{text} ± {100 * margin:.1f}"


def _number(value: float, digits: int = 0) -> str:
    return _NOTHING if math.isnan(value) else f"{value:.{digits}f}"
