"""Early-learning regularisation (Liu et al. 2020, arXiv 2007.00151)."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="elr",
    summary="early-learning regularisation",
    settings={"clean_routing": False, "objective": "elr"},
)
