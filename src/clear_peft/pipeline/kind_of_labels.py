"""Whether a run is told what its table can be trained by: one label a row, several, or labels of words."""

from clear_peft.baselines import METHODS, get_method
from clear_peft.data import LabelNames
from clear_peft.data.label_sets import refuse_for_one_label
from clear_peft.errors import InputError
from clear_peft.run_folder.config import (
    FIGURE_OF_SPANS,
    FIGURES_OF_ONE_LABEL,
    FIGURES_OF_SEVERAL_LABELS,
    RunConfig,
)


def check_fits(config: RunConfig, names: LabelNames) -> None:
    """Refuse options that are for the other kind of table.

    Args:
        config: The run.
        names: Labels of its table.

    Raises:
        InputError: With the first such option, and what to give.
    """
    if names.one_a_row:
        if config.select_by in FIGURES_OF_SEVERAL_LABELS:
            raise _refusal("select_by", config.select_by, "several labels", "choose accuracy or macro_f1")
        if config.select_by == FIGURE_OF_SPANS:
            raise InputError(
                f"select_by is {FIGURE_OF_SPANS!r}, which is for labels of words: choose accuracy."
            )
        return
    if names.words:
        _check_words(config)
        return
    refuse_for_one_label(config)
    known = ", ".join(name for name, method in METHODS.items() if method.several_labels)
    for name, unfit, mend in (
        ("method", not get_method(config.method).several_labels, f"choose from {known}"),
        ("preset", config.preset == "paper", "choose recommended"),
        ("class_weights", config.class_weights != "none", "leave it out"),
        (
            "select_by",
            config.select_by in (*FIGURES_OF_ONE_LABEL, FIGURE_OF_SPANS),
            "choose micro_f1 or macro_f1",
        ),
    ):
        if unfit:
            raise _refusal(name, getattr(config, name), "one label", mend)


def _check_words(config: RunConfig) -> None:
    refuse_for_one_label(config)
    known = ", ".join(name for name, method in METHODS.items() if method.labels_of_words)
    figures = (None, *FIGURES_OF_ONE_LABEL, FIGURE_OF_SPANS, "loss")
    for name, unfit, mend in (
        ("method", not get_method(config.method).labels_of_words, f"choose from {known}"),
        ("label_separator", config.label_separator is not None, "leave it out"),
        ("label_columns", bool(config.label_columns), "leave it out"),
        ("normalize_labels", config.normalize_labels, "leave it out"),
        ("long_texts", config.long_texts == "tail", "leave it out: long sentences are read in windows"),
        ("select_by", config.select_by not in figures, f"choose {', '.join(map(str, figures[1:]))}"),
    ):
        if unfit:
            raise InputError(
                f"{name} is {getattr(config, name)!r}, which is for labels of whole texts, and "
                f"{config.data!r} has labels of words: {mend}."
            )


def _refusal(name: str, value: str | None, kind: str, mend: str) -> InputError:
    return InputError(f"{name} is {value!r}, which is for tables with {kind} a row: {mend}.")
