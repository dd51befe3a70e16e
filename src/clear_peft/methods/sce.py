"""Symmetric cross entropy, α·CE + β·RCE (Wang et al. 2019, arXiv 1908.06112)."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="sce",
    summary="symmetric cross entropy",
    settings={"clean_routing": False, "objective": "sce"},
)
