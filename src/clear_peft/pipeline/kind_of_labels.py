"""Whether a run is told what its table can be trained by: one label a row, or several."""

from clear_peft.baselines import METHODS, get_method
from clear_peft.data import LabelNames
from clear_peft.data.label_sets import refuse_for_one_label
from clear_peft.errors import InputError
from clear_peft.run_folder.config import FIGURES_OF_ONE_LABEL, FIGURES_OF_SEVERAL_LABELS, RunConfig


def check_fits(config: RunConfig, names: LabelNames) -> None:
    """Refuse options that are for the other kind of table.

    Args:
        config: The run.
        names: Labels of its table.

    Raises:
        InputError: With the first such option, and what to give.
    """
    if not names.several:
        if config.select_by in FIGURES_OF_SEVERAL_LABELS:
            raise _refusal("select_by", config.select_by, "several labels", "choose accuracy or macro_f1")
        return
    refuse_for_one_label(config)
    known = ", ".join(name for name, method in METHODS.items() if method.several_labels)
    for name, unfit, mend in (
        ("method", not get_method(config.method).several_labels, f"choose from {known}"),
        ("preset", config.preset == "paper", "choose recommended"),
        ("class_weights", config.class_weights != "none", "leave it out"),
        ("select_by", config.select_by in FIGURES_OF_ONE_LABEL, "choose micro_f1 or macro_f1"),
    ):
        if unfit:
            raise _refusal(name, getattr(config, name), "one label", mend)


def _refusal(name: str, value: str | None, kind: str, mend: str) -> InputError:
    return InputError(f"{name} is {value!r}, which is for tables with {kind} a row: {mend}.")
