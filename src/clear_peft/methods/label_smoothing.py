"""Label smoothing: targets of 1 − ε on the given label and ε over all classes (Szegedy et al. 2016)."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="label_smoothing",
    summary="label smoothing",
    settings={"clean_routing": False, "objective": "label_smoothing"},
)
