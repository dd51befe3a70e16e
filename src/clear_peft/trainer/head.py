"""The head of a classifier, initialised as a linear probe of its inputs."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clear_peft.errors import ClearWarning, InputError
from clear_peft.label_quality import LinearHead, fit_linear_head
from clear_peft.trainer.estimators import finite
from clear_peft.trainer.passes import pass_over
from clear_peft.trainer.shards import accessible, fill, whole
from clear_peft.tuners.anatomy import head_names


def find_head(model: Any) -> nn.Linear | None:
    """The linear layer that is trained to give the logits, the last of the head; None where there is none.

    Args:
        model: A classifier of transformers, with or without an adapter.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    try:
        names = head_names(base)
    except InputError:
        return None
    layers = [
        module
        for name in names
        for module in base.get_submodule(name).modules()
        if isinstance(module, nn.Linear)
        and module.out_features == base.config.num_labels
        and module.weight.requires_grad
    ]
    return layers[-1] if layers else None


def head_inputs(
    head: nn.Linear,
    model: nn.Module,
    dataset: Any,
    collate: Callable,
    *,
    sizes: np.ndarray | None = None,
    **options: Any,
) -> Tensor | None:
    """What the head of a model is given of each example.

    Args:
        head: What ``find_head`` has found. Where it is asked of every token, the one counts whose output
            the logits are.
        model: The model; its mode is restored afterwards.
        dataset: Map-style, N items with ``clear_example_id`` (see ``with_ids``).
        collate: Collator that keeps the ids.
        sizes: As for ``pass_over``.
        **options: As for ``pass_over``.

    Returns:
        (N, D) float32 on the CPU, with ``sizes`` of each word; None where the head's outputs are not the
        logits.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def read(inputs: dict[str, Any], _: Tensor) -> Tensor:
        seen.clear()
        logits = model(**inputs).logits.float()
        if logits.dim() != (2 if sizes is None else 3):
            raise InputError(
                f"The model gives logits of shape {tuple(logits.shape)}: load one that gives each example "
                "one label (AutoModelForSequenceClassification), or each token "
                "(AutoModelForTokenClassification)."
            )
        given, outputs = (tensor.float() for tensor in seen[-1]) if seen else (logits[..., :0], logits)
        if sizes is None and outputs.dim() == 3 and len(outputs) == len(logits):
            token = (outputs - logits.unsqueeze(1)).abs().amax(dim=2).argmin(dim=1)
            each = torch.arange(len(token), device=token.device)
            given, outputs = given[each, token], outputs[each, token]
        same = outputs.shape == logits.shape and outputs.allclose(logits, rtol=0, atol=0, equal_nan=True)
        return given if same else logits[..., :0]

    hook = head.register_forward_hook(lambda _, given, outputs: seen.append((given[0], outputs)))
    try:
        features = pass_over(read, model, dataset, collate, sizes=sizes, **options)
    finally:
        hook.remove()
    return features if features.shape[1] else None


def looks_trained(head: nn.Linear, model: Any) -> bool:
    """Whether a head has other weights than transformers gives a new one: no bias, and a known spread."""
    with accessible(model):
        if head.bias is not None:
            return bool(whole(head.bias.detach()).any())
        spread = float(whole(head.weight.detach()).float().std())
    config = getattr(model, "config", None)
    usual = getattr(config, "initializer_range", None) or getattr(config, "init_std", None)
    return usual is not None and not usual / 2 < spread < 2 * usual


class LinearProbeInit:
    """Initialises a model's head as a linear probe; a head that ``find_head`` does not find stays as it is.

    Its inputs are read once, where training begins: a restart begins there too.

    Args:
        inputs_of: Reads what a head is given of some rows, (B,), as ``head_inputs`` does.
        labels: Given labels of all rows, (N,).
        rows: Positions of those that the probe is fitted to, (B,).
        groups: Group of each of all rows, (N,); None if every row is alone.
        fit: Fits the probe, as ``fit_linear_head`` does, which is the default.
    """

    def __init__(
        self,
        inputs_of: Callable[[nn.Linear, npt.NDArray[np.integer]], Tensor | None],
        labels: npt.NDArray[Any],
        rows: npt.NDArray[np.integer],
        groups: npt.NDArray[np.integer] | None = None,
        fit: Callable[..., LinearHead] = fit_linear_head,
    ) -> None:
        self._inputs_of, self._labels, self._rows = inputs_of, labels, rows
        self._groups = None if groups is None else groups[rows]
        self._fit = fit
        self._inputs: Tensor | None = None

    def begin(self, model: Any, clean_probability: npt.NDArray[np.floating] | None = None) -> None:
        """Set the head of a model.

        Args:
            model: The model where training begins or, with clean probabilities, back there for a restart.
            clean_probability: The clean probabilities that all labels count by, (N,), of several labels a row
                (N, C). Default: all count alike.

        Raises:
            RunFailedError: If what the head is given is not finite.
        """
        head = find_head(model)
        if head is None:
            return
        if clean_probability is None and looks_trained(head, model):
            warnings.warn(
                "The head of the model looks trained, and is replaced by a linear probe of its inputs: set "
                "probe_init=False to keep it.",
                ClearWarning,
                stacklevel=2,
            )
        kept = None if clean_probability is None else self._inputs  # none after resuming
        inputs = self._inputs_of(head, self._rows) if kept is None else kept
        if inputs is None:
            return
        self._inputs = inputs if clean_probability is None else None
        features, known = finite(inputs), None if clean_probability is None else clean_probability[self._rows]
        start = self._fit(
            features,
            self._labels[self._rows],
            head.out_features,
            clean_probability=known,
            groups=self._groups,
        )
        with accessible(model):
            set_head(head, start, features.mean(axis=0, dtype=np.float64))


def set_head(head: nn.Linear, start: LinearHead, mean: npt.NDArray[np.floating]) -> None:
    """Make a head that map, the first process's on all of them.

    Args:
        head: One without a bias takes it in along the mean of what it is given.
        start: From D features to C logits.
        mean: Of the features, (D,).
    """
    weights = start.weights
    if head.bias is None:
        weights = weights + np.outer(mean, start.bias) / max(mean @ mean, np.finfo(np.float64).tiny)
    else:
        fill(head.bias, torch.from_numpy(start.bias))
    fill(head.weight, torch.from_numpy(weights.T).contiguous())
