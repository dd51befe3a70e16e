"""Co-teaching (Han et al. 2018, arXiv 1804.06872)."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="co_teaching",
    summary="co-teaching",
    trainer="CoTeachingTrainer",
    needs="a second network, the noise rate",
    needs_noise_rate=True,
)
