"""Self-ensemble label correction (Lu & He 2022, arXiv 2205.01156)."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="selc",
    summary="self-ensemble label correction",
    settings={"clean_routing": False, "objective": "selc"},
)
