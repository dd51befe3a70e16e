"""Stochastic tailor-made gradient noise (Wu et al. 2022, EMNLP)."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="stgn",
    summary="stochastic tailor-made gradient noise",
    settings={"clean_routing": False, "objective": "stgn"},
    needs="the noise rate",
    needs_noise_rate=True,
)
