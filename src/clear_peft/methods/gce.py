"""Generalised cross entropy, (1 − p_y^q)/q (Zhang & Sabuncu 2018, arXiv 1805.07836)."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="gce",
    summary="generalised cross entropy",
    settings={"clean_routing": False, "objective": "gce"},
)
