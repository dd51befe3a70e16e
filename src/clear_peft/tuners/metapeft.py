"""MetaPEFT (Tian et al. 2025, arXiv 2603.01759): a learnt scale γ ≥ 0 for each adapted module.

y = f(x) + γ·Δ(x), where Δ is what LoRA or a bottleneck adapter adds. γ is learnt in training
(`clear_peft.trainer.tuning.metapeft`). Saved, it is part of an ordinary adapter: LoRA's `alpha_pattern`, and
at the end of the training the up-projection of a bottleneck adapter.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from clear_peft.errors import InputError
from clear_peft.tuners.bottleneck import BOTTLENECK_FORMAT, BottleneckModel
from clear_peft.tuners.internals import BaseTunerLayer

_NAME = "default"
_PEFT_CONFIG_NAME = "adapter_config.json"


class Scales:
    """The scales γ of a model's adapted modules, 1 at the start.

    Args:
        model: What `build` made, LoRA or a bottleneck adapter.

    Attributes:
        names: Full names of the adapted modules in the base model.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._own = model, isinstance(model, BottleneckModel)
        found = {
            name: module
            for name, module in model.get_base_model().named_modules()
            if isinstance(module, BaseTunerLayer) and hasattr(module, "scaling")
        }
        self.names, self._layers = list(found), list(found.values())
        # a LoRA layer multiplies by alpha/r, a bottleneck by γ itself
        self._alphas = [1.0 if self._own else layer.lora_alpha[_NAME] for layer in self._layers]
        self._ranks = [1 if self._own else layer.r[_NAME] for layer in self._layers]

    def set(self, scales: list[float]) -> None:
        """Set every scale, in the layers and in the configuration that is saved."""
        self._set([scale * alpha for scale, alpha in zip(scales, self._alphas, strict=True)])

    def _set(self, alphas: list[float]) -> None:
        if self._own:
            self._model.set_scaling(alphas)
            return
        for layer, alpha, rank in zip(self._layers, alphas, self._ranks, strict=True):
            layer.scaling[_NAME] = alpha / rank  # as peft reckons it, to the last bit
        self._model.peft_config[_NAME].alpha_pattern = dict(zip(self.names, alphas, strict=True))

    def hold(self, scales: Tensor) -> None:
        """Let scales that require a gradient, (n,), take part in the next forward; `set` ends it."""
        for layer, scale, alpha, rank in zip(
            self._layers, scales.float(), self._alphas, self._ranks, strict=True
        ):
            layer.scaling[_NAME] = scale * (alpha / rank)

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Set the scales that a saved adapter has.

        Raises:
            InputError: If it has none, or none that fit.
        """
        path = Path(folder) / (BOTTLENECK_FORMAT.config_name if self._own else _PEFT_CONFIG_NAME)
        try:
            settings = json.loads(path.read_text("utf-8"))
            if self._own:
                alphas = [float(scale) for scale in settings["scaling"]]
            else:
                alphas = [float(settings["alpha_pattern"][name]) for name in self.names]
            if len(alphas) != len(self.names) or not all(0 <= alpha < math.inf for alpha in alphas):
                raise ValueError("a scale is no number of at least 0")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path} does not hold MetaPEFT's scales ({error}): choose another one."
            ) from error
        self._set(alphas)

    def fold(self) -> None:
        """Make the scales part of the weights where there is no field for them in peft: of bottlenecks."""
        if self._own:
            self._model.fold_scaling()
