"""Every way to train on labels that may be wrong, in one table; it imports light, for the command line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clear_peft.errors import InputError


def _clear_trainer() -> type:
    from clear_peft.trainer import CleaRTrainer

    return CleaRTrainer


def _co_teaching_trainer() -> type:
    from clear_peft.baselines.co_teaching import CoTeachingTrainer

    return CoTeachingTrainer


def _selfmix_trainer() -> type:
    from clear_peft.baselines.selfmix import SelfMixTrainer

    return SelfMixTrainer


# labels are given as they are: so they count, and so they compare epochs
_PLAIN = {"clean_routing": False, "metric_for_best_model": "accuracy"}


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train on labels that may be wrong, on the loop that all methods share.

    Attributes:
        summary: What it does, in a few words.
        source: The paper.
        adapter: Whether it trains a PEFT adapter; otherwise the whole model.
        settings: What it sets in ``CleaRConfig``, over the preset.
        trainer: Gives the class that runs it: imported when it is needed, since torch takes seconds.
        folds: Parts of the training rows that are predicted by models that have not seen them, before the
            final training on the rows whose labels those models do not contradict; 0: none.
        needs: What it takes besides the data and one training run, for the tables that compare methods.
        needs_noise_rate: Whether it has to be told the noise rate, as ``loss_options: {noise_rate: …}``.
    """

    summary: str
    source: str = ""
    adapter: bool = True
    settings: Mapping[str, Any] = field(default_factory=lambda: _PLAIN)
    trainer: Callable[[], type] = _clear_trainer
    folds: int = 0
    needs: str = ""
    needs_noise_rate: bool = False

    @property
    def several_labels(self) -> bool:
        """Whether it trains with several labels a row, too: no loss, trainer or folds of its own."""
        return self.labels_of_words and "loss" not in self.settings

    @property
    def labels_of_words(self) -> bool:
        """Whether it trains with labels of words, too: no trainer or folds of its own."""
        return self.trainer is _clear_trainer and not self.folds


def _loss(name: str, summary: str, source: str, **more: Any) -> Method:
    """A method that is a loss on the given labels."""
    settings = {**_PLAIN, "loss": name}
    return Method(summary=summary, source=source, settings=settings, **more)


_EARLY_STOPPING = {**_PLAIN, "patience": 2}

METHODS: dict[str, Method] = {
    "clear": Method(
        summary="clean routing",
        source="Kim, Kim & Lee, ACL 2024, arXiv 2411.00873",
        settings={"clean_routing": True},
    ),
    "plain": Method(summary="plain PEFT"),
    # hard to beat on BERT
    "early_stopping": Method(
        summary="plain PEFT with early stopping",
        source="Zhu et al. 2022, arXiv 2204.09371",
        settings=_EARLY_STOPPING,
    ),
    "full": Method(summary="full fine-tuning", adapter=False),
    "full_early_stopping": Method(
        summary="full fine-tuning with early stopping", adapter=False, settings=_EARLY_STOPPING
    ),
    "label_smoothing": _loss("label_smoothing", "label smoothing", "Szegedy et al. 2016, arXiv 1512.00567"),
    "gce": _loss("gce", "generalised cross entropy", "Zhang & Sabuncu 2018, arXiv 1805.07836"),
    "sce": _loss("sce", "symmetric cross entropy", "Wang et al. 2019, arXiv 1908.06112"),
    "elr": _loss("elr", "early-learning regularisation", "Liu et al. 2020, arXiv 2007.00151"),
    "selc": _loss("selc", "self-ensemble label correction", "Lu & He 2022, arXiv 2205.01156"),
    "stgn": _loss(
        "stgn",
        "stochastic tailor-made gradient noise",
        "Wu et al. 2022, EMNLP",
        needs="the noise rate",
        needs_noise_rate=True,
    ),
    "co_teaching": Method(
        summary="co-teaching",
        source="Han et al. 2018, arXiv 1804.06872",
        trainer=_co_teaching_trainer,
        needs="a second network, the noise rate",
        needs_noise_rate=True,
    ),
    "selfmix": Method(
        summary="SelfMix",
        source="Qiao et al. 2022, COLING, arXiv 2210.04525",
        settings={
            **_PLAIN,
            "loss_mixture": "paper",
            "loss_ema": 0.0,
            "warm_up_epochs": 2,
            "reestimate_every_epoch": True,
            "soft_labels": False,
            "noise_threshold": 0.0,
        },
        trainer=_selfmix_trainer,
        needs="two forward passes a step",
    ),
    "cleanlab": Method(
        summary="confident learning",
        source="Northcutt et al. 2021, arXiv 1911.00068",
        folds=5,
        needs="5 folds and a retraining",
    ),
}


def get_method(name: str) -> Method:
    """Look a method up.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in METHODS:
        hint = "; recommended is clear" if name == "recommended" else ""
        raise InputError(f"There is no method {name!r}: choose from {', '.join(METHODS)}{hint}.")
    return METHODS[name]
