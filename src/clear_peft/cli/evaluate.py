"""``clear-peft evaluate``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clear_peft.cli.options import (
    DATA,
    DeviceOption,
    EncodingOption,
    FormatOption,
    RunOption,
    TextColumnOption,
    TrustOption,
)
from clear_peft.cli.output import Format, Output, counted, shown, table_of

if TYPE_CHECKING:
    from rich.table import Table

# classes: of a table of all, and of a matrix that a terminal has room for; pairs of classes
_CLASSES, _OF_MATRIX, _PAIRS = 20, 10, 10


def evaluate(
    context: typer.Context,
    run: RunOption,
    data: Annotated[
        str, typer.Option(help="Table with the run's text and label columns.", rich_help_panel=DATA)
    ],
    text_column: TextColumnOption = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column of the labels (default: as in the run's table).", rich_help_panel=DATA),
    ] = None,
    encoding: EncodingOption = None,
    device: DeviceOption = "auto",
    trust_remote_code: TrustOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Measure a finished run on a table with right labels."""
    from clear_peft import pipeline

    out: Output = context.obj
    out.stage(f"Evaluating on {data}")
    scores = pipeline.evaluate(
        run,
        data,
        text_column=text_column or None,
        label_column=label_column,
        encoding=encoding,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    if "exact_match" in scores:  # several labels a row
        _say_label_sets(out, scores)
        return
    if "span_f1" in scores:  # labels of words
        _say_words(out, scores)
        return
    line = (
        f"accuracy {scores['accuracy']:.4f}, macro-F1 {scores['macro_f1']:.4f} "
        f"on {counted(scores['examples'], 'row')}"
    )
    few = len(scores["classes"]) <= _OF_MATRIX
    tables = [_of_classes(scores["classes"]), _matrix(scores) if few else _confusions(scores)]
    out.tables(scores, tables, [line, *([] if few else [_what_is_left_out(scores)])])


def _say_label_sets(out: Output, scores: dict[str, Any]) -> None:
    """Figures where rows have several labels or none."""
    line = (
        f"micro-F1 {scores['micro_f1']:.4f}, macro-F1 {scores['macro_f1']:.4f}, mean average precision "
        f"{scores['mean_average_precision']:.4f}, all labels right {scores['exact_match']:.4f} "
        f"on {counted(scores['examples'], 'row')}"
    )
    many = len(scores["classes"]) > _CLASSES
    left_out = [f"Of {len(scores['classes'])} labels, those of lowest F1 are shown; --format json has all."]
    out.tables(scores, [_of_classes(scores["classes"])], [line, *(left_out if many else [])])


def _say_words(out: Output, scores: dict[str, Any]) -> None:
    """Figures where words have labels."""
    line = (
        f"accuracy {scores['accuracy']:.4f} on {counted(scores['words'], 'word')} of "
        f"{counted(scores['sentences'], 'sentence')}; spans: F1 {scores['span_f1']:.4f}, precision "
        f"{scores['span_precision']:.4f}, recall {scores['span_recall']:.4f}"
    )
    out.tables(scores, [_of_classes(scores["classes"], "spans")], [line])


def _of_classes(classes: list[dict[str, Any]], counted_as: str = "rows") -> "Table":
    """Figures of each class, or of the worst ones."""
    if (many := len(classes)) > _CLASSES:
        occur = [one for one in classes if one["support"]]
        classes = sorted(occur, key=lambda one: one["f1"])[:_CLASSES]
    rows = [
        (
            shown(one["label"]),
            *(f"{one[name]:.3f}" for name in ("precision", "recall", "f1")),
            str(one["support"]),
        )
        for one in classes
    ]
    title = "Classes" if many <= _CLASSES else f"The {len(rows)} classes of lowest F1"
    return table_of(title, ["class", *_right_aligned("precision", "recall", "F1", counted_as)], rows)


def _matrix(scores: dict[str, Any]) -> "Table":
    """Rows by right and predicted label."""
    names = [f"{i} {shown(one['label'])}" for i, one in enumerate(scores["classes"], 1)]
    rows = [(name, *map(str, row)) for name, row in zip(names, scores["confusion_matrix"], strict=True)]
    numbers = _right_aligned(*map(str, range(1, len(names) + 1)))
    return table_of("Confusion matrix", ["right label, by predicted", *numbers], rows)


def _confusions(scores: dict[str, Any]) -> "Table":
    """The pairs of classes that are most often confused."""
    names = [shown(one["label"]) for one in scores["classes"]]
    pairs = [
        (count, names[right], names[predicted])
        for right, row in enumerate(scores["confusion_matrix"])
        for predicted, count in enumerate(row)
        if count and right != predicted
    ]
    largest = sorted(pairs, key=lambda pair: -pair[0])[:_PAIRS]
    rows = [(right, predicted, str(count)) for count, right, predicted in largest]
    return table_of("Largest confusions", ["right label", "predicted", *_right_aligned("rows")], rows)


def _what_is_left_out(scores: dict[str, Any]) -> str:
    many = len(scores["classes"])
    worst = "" if many <= _CLASSES else "the classes of lowest F1 and "
    return f"Of {many} classes, {worst}the largest confusions are shown; --format json has everything."


def _right_aligned(*headings: str) -> list[Any]:
    from rich.table import Column

    return [Column(heading, justify="right") for heading in headings]
