"""Full fine-tuning that stops when the doubtful validation labels are predicted no better for two epochs."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="full_early_stopping",
    summary="full fine-tuning with early stopping",
    adapter=False,
    settings={"clean_routing": False, "patience": 2},
)
