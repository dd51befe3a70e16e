"""GLoRA: a supernet is trained, and at the end a configuration of each layer is searched in it."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clear_peft.files import write_json
from clear_peft.losses import cross_entropy
from clear_peft.trainer.ranks import of_main_process
from clear_peft.trainer.tuning.base import TunerTraining
from clear_peft.tuners import glora
from clear_peft.tuners.evolution import Configuration, Fitness, random_configuration, search
from clear_peft.tuners.plans import GloraPlan, plan_of

SEARCH_NAME = "glora_search.json"
# tells its draws from others with the same seed
_DRAW = 3


class GloraTraining(TunerTraining):
    """Draws a configuration for every optimizer step, and searches one at the end.

    The draw is a pure function of seed, step and layer. What is evaluated in training is the whole supernet.
    The search begins with the whole supernet, too. It evaluates configurations on held-out rows, or training
    rows where none are held out: accuracy under the given labels, each weighted by its clean probability, and
    of equals the weighted cross entropy. Then the winner is folded into an ordinary GLoRA adapter. What has
    been evaluated is kept in ``glora_search.json`` in the output folder, from which a search that was stopped
    goes on.

    Args:
        trainer: A ``CleaRTrainer``.
    """

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        plan = plan_of(trainer.model)
        assert isinstance(plan, GloraPlan)
        self._plan = plan

    def begin_step(self) -> None:
        """Draw the configuration of the step."""
        if glora.is_supernet(self.trainer.model):
            model, seed = self.trainer.model, self.trainer.args.seed
            space, step = glora.search_space(model), self.trainer.state.global_step
            glora.set_configuration(model, random_configuration(space, seed, _DRAW, step))

    def end_step(self) -> None:
        """Between steps the supernet is whole."""
        if glora.is_supernet(self.trainer.model):
            glora.whole(self.trainer.model)

    def end_training(self) -> None:
        """Search, and keep what is best."""
        if glora.is_supernet(self.trainer.model):
            glora.fold(self.trainer.model, self._search())

    def _search(self) -> Configuration:
        trainer, plan = self.trainer, self._plan
        model, seed = trainer.model, trainer.args.seed
        whole, fitness = glora.whole(model), Measure(trainer, plan.search_rows)
        path = Path(trainer.args.output_dir) / SEARCH_NAME
        digest = of_main_process(self._digest(fitness.rows))
        known = of_main_process(_read(path, digest, len(whole)))

        def evaluated(configuration: Configuration, found: Fitness) -> None:
            known[configuration] = found
            if trainer.args.should_save:
                _write(path, digest, known)

        result = search(
            glora.search_space(model),
            fitness,
            cost=lambda configuration: glora.parameter_count(model, configuration),
            max_cost=plan.max_parameters,
            population=plan.population,
            parents=plan.parents,
            generations=plan.generations,
            mutation=plan.mutation,
            seed=seed,
            known=dict(known),
            first=[whole],
            on_evaluated=evaluated,
        )
        if trainer.args.should_save:
            parameters = glora.parameter_count(model, result.best)
            _write(path, digest, known, best=_kinds(model, result.best), parameters=parameters)
        return result.best

    def _digest(self, rows: np.ndarray) -> str:
        """Tells this search from one in other weights or on other rows."""
        digest = hashlib.sha256(repr((self._plan, self.trainer.args.seed, rows.tolist())).encode())
        for name, parameter in self.trainer.model.named_parameters():
            if parameter.requires_grad:
                digest.update(name.encode())
                digest.update(parameter.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()


class Measure:
    """How well a supernet's configuration does on rows that are held out.

    Args:
        trainer: A ``CleaRTrainer``.
        most: Number of rows at most.

    Attributes:
        rows: Positions of the rows.
    """

    def __init__(self, trainer: Any, most: int) -> None:
        self._trainer, self._held_out = trainer, trainer.passes.validation is not None
        known = trainer.passes.validation if self._held_out else trainer.store.rows
        estimate, size = trainer.store.estimate, len(known)
        weights = np.ones(size)
        if estimate is not None:
            weights = estimate.validation_weights if self._held_out else estimate.train.clean_probability
        drawn = np.random.default_rng([trainer.args.seed, _DRAW]).permutation(size)[:most]
        self.rows = np.sort(drawn)
        self._labels = known.labels[self.rows]
        chosen = weights[self.rows].astype(np.float64)
        self._weights = chosen if chosen.any() else np.ones(len(self.rows))

    def __call__(self, configuration: Configuration) -> tuple[float, float]:
        """Weighted accuracy, and minus the weighted cross entropy."""
        glora.set_configuration(self._trainer.model, configuration)
        logits = self._trainer.passes.logits(self.rows, validation=self._held_out)
        hits = logits.argmax(dim=1).numpy() == self._labels
        losses = cross_entropy(logits, torch.from_numpy(self._labels)).numpy()
        return (
            float(np.average(hits, weights=self._weights)),
            -float(np.average(losses.astype(np.float64), weights=self._weights)),
        )


def _read(path: Path, digest: str, genes: int) -> dict[Configuration, Fitness]:
    """What a search that was stopped has evaluated; nothing where the file is damaged or of another one."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        search = json.loads(path.read_text(encoding="utf-8"))
        if search["digest"] == digest:
            pairs = ((tuple(map(int, genes)), (float(a), float(b))) for genes, (a, b) in search["evaluated"])
            found: dict[Configuration, Fitness] = dict(pairs)
            if all(len(configuration) == genes for configuration in found):
                return found
    return {}


def _write(path: Path, digest: str, known: dict[Configuration, Fitness], **outcome: Any) -> None:
    evaluated = [["".join(map(str, configuration)), found] for configuration, found in known.items()]
    write_json(path, {**outcome, "digest": digest, "evaluated": evaluated})


def _kinds(model: Any, configuration: Configuration) -> dict[str, dict[str, str]]:
    """What kind each of the five tensors of each layer is."""
    genes = iter(configuration)
    return {
        name: {
            tensor: kinds[next(genes)]
            for tensor, kinds in zip(glora.TENSORS, glora.choices(layer), strict=True)
        }
        for name, layer in glora.supernet_layers(model).items()
    }
