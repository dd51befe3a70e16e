"""Training on rows that are in memory, in a program that goes on afterwards."""

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import set_seed
from transformers.utils import logging

from clear_peft.errors import InputError
from clear_peft.pipeline.models import check_length, load_classifier, load_tokenizer
from clear_peft.pipeline.progress import Silent
from clear_peft.pipeline.splits import Tables
from clear_peft.pipeline.training import arguments_of, check_precision, tokens_of, trainer_of, tuned
from clear_peft.run_folder.config import RunConfig
from clear_peft.trainer import CleaRTrainer
from clear_peft.trainer.sampler import WeightedLengthSampler


def trained(
    config: RunConfig,
    tables: Tables,
    row_weights: npt.NDArray[np.float64] | None = None,
    *,
    verbose: bool = False,
) -> tuple[CleaRTrainer, Any]:
    """Train, and write nothing but the checkpoints of the trainer.

    Args:
        config: The run; ``data`` does not count.
        tables: Its rows.
        row_weights: How often each of the N training rows is sampled, in proportion, (N,) above 0.
            Default: all alike.
        verbose: Whether progress is written to standard error. Default False.

    Returns:
        The trainer after training, and its tokenizer.

    Raises:
        InputError: If what is given does not fit.
    """
    arguments, reporter = arguments_of(config), Lines() if verbose else Silent()
    reporter.stage(f"Loading {config.model}")
    set_seed(config.seed)
    tokenizer = load_tokenizer(
        config.model, trust_remote_code=config.trust_remote_code, long_texts=config.long_texts
    )
    base = load_classifier(config.model, tables.names, tokenizer, **config.loading, device=arguments.device)
    check_precision(base.dtype, arguments)
    model = tuned(config, base, len(tables.train))
    check_length(model, config.max_length)
    kind = None if row_weights is None else partial(SampledByWeight, row_weights)
    tokens = tokens_of(config, tables, tokenizer)
    trainer = trainer_of(config, arguments, tokens, model, tokenizer, reporter, kind)
    reporter.stage(f"Training on {len(tables.train)} rows")
    trainer.train()
    return trainer, tokenizer


class SampledByWeight(CleaRTrainer):
    """Samples rows in proportion to weights, (N,), over what the trainer itself makes of them."""

    def __init__(self, row_weights: npt.NDArray[np.float64], **kwargs: Any) -> None:
        self.row_weights = row_weights
        super().__init__(**kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, WeightedLengthSampler):
            raise InputError(
                "sample_weight is how often rows are sampled, which train_sampling_strategy "
                f"{self.args.train_sampling_strategy!r} leaves to transformers: leave one of them out."
            )
        own = sampler.weights

        def weights() -> npt.NDArray[np.floating]:
            confidence = own()
            return self.row_weights if confidence is None else self.row_weights * confidence

        sampler.weights = weights
        return sampler


class Lines(Silent):
    """Writes what a run is doing to standard error."""

    def stage(self, text: str) -> None:
        """A new stage has begun."""
        sys.stderr.write(f"{text}\n")

    def epoch(self, figures: dict[str, Any]) -> None:
        """An epoch is over, and these are its figures."""
        shown = [f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float)]
        sys.stderr.write(f"{', '.join(shown)}\n")


@contextmanager
def program_left_alone(*, quiet: bool) -> Iterator[None]:
    """Afterwards, the global generators of random numbers are as they were.

    Args:
        quiet: Whether transformers shows no bars inside, and logs errors alone: a search over parameters
            loads a model many times.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    level, bars = logging.get_verbosity(), quiet and logging.is_progress_bar_enabled()
    if quiet:
        logging.set_verbosity_error()
    if bars:
        _switch(logging.disable_progress_bar)
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        logging.set_verbosity(level)
        if bars:
            _switch(logging.enable_progress_bar)


def _switch(bars: Callable[[], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the environment may say how it is with those of the hub
        bars()
