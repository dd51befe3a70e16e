"""SelfMix: doubtful labels are forgotten, and sentences are mixed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from clear_peft.baselines.options import method_options
from clear_peft.errors import InputError
from clear_peft.losses import Loss, cross_entropy, make_loss, soft_cross_entropy
from clear_peft.losses.checks import number
from clear_peft.trainer import CleaRTrainer, Phase
from clear_peft.trainer.columns import ID_COLUMN
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.head import find_head
from clear_peft.trainer.tasks import SingleLabel


@dataclass(frozen=True, kw_only=True)
class SelfMixOptions:
    """What ``loss_options`` may hold; the defaults are the authors' for TREC.

    Attributes:
        threshold: τ in [0, 1], the clean probability above which a label is kept. Default 0.5.
        temperature: T > 0 of the pseudo labels; below 1 it sharpens them. Default 0.5.
        alpha: α > 0 of Beta(α, α), from which the mixing weight comes. Default 0.75.
        pseudo_weight: λ_p ≥ 0 of the pseudo-label loss. Default 0.2.
        agreement_weight: λ_r ≥ 0 of the agreement between two forwards. Default 0.3.
    """

    threshold: float = 0.5
    temperature: float = 0.5
    alpha: float = 0.75
    pseudo_weight: float = 0.2
    agreement_weight: float = 0.3

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        number("threshold", self.threshold, "[0, 1]")
        number("temperature", self.temperature, "(0, inf)")
        number("alpha", self.alpha, "(0, inf)")
        number("pseudo_weight", self.pseudo_weight, "[0, inf)")
        number("agreement_weight", self.agreement_weight, "[0, inf)")


class SelfMixTrainer(CleaRTrainer):
    """SelfMix (Qiao et al. 2022, arXiv 2210.04525) on the shared loop.

    After ``args.warm_up_epochs`` of cross entropy every epoch is scored. A label with p > τ is kept; in place
    of the others stands the sharpened prediction, and those examples are called unlabelled. A step takes two
    forwards with different dropout, f and f′, and per example costs

        CE(mixed logits, mixed targets)
        + [unlabelled]·(λ_p·½(CE(f, ŷ) + CE(f′, ŷ)) + λ_r·½(KL(f‖f′) + KL(f′‖f)))

    where the sentence embeddings h of f are mixed with those of other rows of the batch, λ·h_i + (1 − λ)·h_j,
    λ = max(β, 1 − β), β ~ Beta(α, α), the targets likewise, and ŷ is the most likely pseudo label.

    Simpler than the authors' code: pseudo labels are those of the epoch's scoring pass, not of a third
    forward; labelled and unlabelled examples share batches, and an unlabelled one counts as one of the batch
    in the last two terms, where they take a mean (λ_p) and a sum (λ_r) over as many unlabelled as labelled;
    the embedding is the input of the head's last linear layer, where they have a head of two.

    Args:
        model: A classifier whose head ends in a linear layer on one vector per example.
        args: ``CleaRConfig`` with ``clean_routing=False`` and ``loss_options`` as in
            ``SelfMixOptions``; the authors' estimator is ``loss_mixture="paper"`` with ``loss_ema=0``.
        train_dataset: As for ``CleaRTrainer``.
        **kwargs: Everything else that ``CleaRTrainer`` takes.

    Raises:
        InputError: If an option is wrong, or the head takes more than one vector per example (causal LMs).
    """

    tasks = (SingleLabel,)

    def __init__(self, model: Any, args: CleaRConfig, train_dataset: Any = None, **kwargs: Any) -> None:
        self._options = method_options(SelfMixOptions, "SelfMix", args)
        super().__init__(model, args, train_dataset=train_dataset, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise InputError("SelfMix runs its head apart from the model: leave FSDP or DeepSpeed out.")
        output_layer = find_head(self.model)
        if output_layer is None:
            raise InputError(
                "SelfMix needs a head that ends in a trained linear layer, and this model has none: choose "
                "an encoder such as BERT, and train its head."
            )
        self._output_layer = output_layer
        self._embedding: Tensor | None = None
        self._second: Tensor | None = None

    def make_loss(self) -> Loss:
        """Cross entropy; the options are SelfMix's."""
        return make_loss(self.args.loss, len(self.store.rows), self.task.num_labels)

    @property
    def uses_estimates(self) -> bool:
        """It does, without any gates."""
        return True

    @property
    def _mixes(self) -> bool:
        return self.phase in (Phase.CONTINUE, Phase.ROBUST)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """As in ``CleaRTrainer``; after the warm-up with a second forward and the embeddings of the first."""
        if not self.in_training_step:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self._mixes:
            features = {name: x for name, x in inputs.items() if name not in ("labels", ID_COLUMN)}
            self._second = model(**features).logits
        hook = self._output_layer.register_forward_hook(self._remember)
        try:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            hook.remove()
            self._embedding = self._second = None

    def _remember(self, _: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        self._embedding = inputs[0]

    def per_example_loss(self, logits: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """The loss of each example of a batch, (B,) float32; see the class."""
        options, embedding, second = self._options, self._embedding, self._second
        # in the warm-up, too, which would be in vain
        if embedding is None or embedding.ndim != 2 or (second is not None and len(embedding) != len(second)):
            raise InputError(
                "SelfMix mixes one vector per text, and the head of this model takes another input: choose "
                "an encoder such as BERT."
            )
        if second is None:
            return super().per_example_loss(logits, labels, ids)
        embedding, second = embedding[: len(labels)], second[: len(labels)]  # not what fills up the batch
        pseudo = torch.softmax(self.store.predicted_logits(ids) / options.temperature, dim=1)
        unlabelled = self.store.clean_probability(ids) <= options.threshold
        targets = torch.where(unlabelled[:, None], pseudo, one_hot(labels, self.task.num_labels).float())

        beta = float(torch.distributions.Beta(options.alpha, options.alpha).sample())
        share, others = max(beta, 1 - beta), torch.randperm(len(labels)).to(labels.device)
        with self.accelerator.autocast():
            mixed = self._output_layer(share * embedding + (1 - share) * embedding[others])
        loss = soft_cross_entropy(mixed, share * targets + (1 - share) * targets[others])

        likely = pseudo.argmax(dim=1)
        guessed = (cross_entropy(logits, likely) + cross_entropy(second, likely)) / 2
        agreed = disagreement(logits, second)
        return loss + unlabelled * (options.pseudo_weight * guessed + options.agreement_weight * agreed)


def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """Mean of both Kullback–Leibler divergences between two predictions (R-Drop, arXiv 2106.14448).

    Args:
        first: Logits (B, C), any float dtype.
        second: Logits (B, C), any float dtype.

    Returns:
        (B,) float32 of at least 0, differentiable in both.
    """
    logs = first.float().log_softmax(dim=1), second.float().log_softmax(dim=1)
    return ((logs[0].exp() - logs[1].exp()) * (logs[0] - logs[1])).sum(dim=1) / 2
