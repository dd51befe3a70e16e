"""SelfMix (Qiao et al. 2022, COLING, arXiv 2210.04525)."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="selfmix",
    summary="SelfMix",
    settings={
        "clean_routing": False,
        "estimator": "paper",
        "loss_smoothing": 0.0,
        "warm_up_epochs": 2,
        "reestimate": True,
        "soft_labels": False,
        "doubt_above": 0.0,
    },
    trainer="SelfMixTrainer",
    needs="two forward passes a step",
)
