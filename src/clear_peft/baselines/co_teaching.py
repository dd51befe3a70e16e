"""Co-teaching: two networks choose each other's examples."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_utils import TrainOutput

from clear_peft.baselines.options import method_options
from clear_peft.errors import InputError
from clear_peft.losses import Loss, cross_entropy, make_loss
from clear_peft.losses.checks import number
from clear_peft.trainer.checkpoint import Stateful
from clear_peft.trainer.columns import ID_COLUMN
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.tasks import SingleLabel
from clear_peft.trainer.trainer import CleaRTrainer
from clear_peft.trainer.weights import InitialWeights
from clear_peft.tuners.loading import has_adapter
from clear_peft.tuners.plans import plan_of

# may be pretrained, or start as the pretrained model only at the values that they have
_KEPT = ("pooler", "hra_", "osf_", "deft_")


@dataclass(frozen=True, kw_only=True)
class CoTeachingOptions:
    """What ``loss_options`` may hold.

    Attributes:
        noise_rate: η in [0, 1), the share of wrong labels. It has no default: the method stands on it.
        ramp_epochs: T_k ≥ 0, the epochs over which the dropped share grows to η. Default 3, where the paper
            has 10 of 200.
    """

    noise_rate: float
    ramp_epochs: float = 3.0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        number("noise_rate", self.noise_rate, "[0, 1)")
        number("ramp_epochs", self.ramp_epochs, "[0, inf)")

    def dropped(self, epoch: float) -> float:
        """R(t) = η·min(t/T_k, 1), the share of a batch that is not learnt after ``epoch`` epochs."""
        return self.noise_rate * (min(epoch / self.ramp_epochs, 1) if self.ramp_epochs else 1)


class CoTeachingTrainer(CleaRTrainer):
    """Trains two networks, each on the examples of least loss to the other (Han et al. 2018, 1804.06872).

    Of every batch each network learns the 1 − R(t) that its peer finds easiest. The peer is a second adapter
    and head on the same frozen weights, whose matrices start elsewhere. It sees the same batches, with other
    dropout, and is kept in checkpoints alone: what predicts, is selected and is saved is the first network,
    an ordinary adapter. The logged loss is the sum of both networks'.

    Args:
        model: A PEFT model for single-label classification.
        args: ``CleaRConfig`` with ``clean_routing=False`` and ``loss_options`` as in
            ``CoTeachingOptions``; every micro-batch is chosen from by itself.
        train_dataset: As for ``CleaRTrainer``.
        **kwargs: Everything else that ``CleaRTrainer`` takes.

    Raises:
        InputError: If the noise rate is missing, an option is wrong, the model has no adapter, or several
            processes train.
    """

    tasks = (SingleLabel,)

    def __init__(self, model: Any, args: CleaRConfig, train_dataset: Any = None, **kwargs: Any) -> None:
        self._options = method_options(CoTeachingOptions, "Co-teaching", args)
        if args.world_size > 1:
            raise InputError(f"Co-teaching runs in one process, and here are {args.world_size}: start one.")
        super().__init__(model, args, train_dataset=train_dataset, **kwargs)
        if not has_adapter(self.model):
            raise InputError("Co-teaching trains two adapters on one frozen model: give a PEFT model.")
        if plan_of(self.model) is not None:
            raise InputError(
                "Co-teaching trains its two adapters by gradient descent alone, which rosa, metapeft and "
                "glora do not: choose another PEFT method."
            )
        self._peer = another_start(self.model, args.seed + 1).train()
        self._peer_logits: Tensor | None = None
        self.add_callback(_PeerSteps(self._peer))

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As ``CleaRTrainer``."""
        self._peer_start = InitialWeights(self._peer)
        return super().train(*args, **kwargs)

    def begin_training(self, steps_per_epoch: int) -> None:
        """As ``CleaRTrainer``; where training begins again with a smaller batch, the peer does so, too."""
        if self.state.global_step == 0:
            self._peer_start.copy_to_model(self._peer)
            self._peer.zero_grad()
        super().begin_training(steps_per_epoch)

    def make_loss(self) -> Loss:
        """Cross entropy; the options are co-teaching's."""
        return make_loss(self.args.loss, len(self.store.rows), self.task.num_labels)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """One optimizer for both networks; element by element it is two."""
        return super().create_optimizer(nn.ModuleList([model or self.model, self._peer]))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The loss of both networks, in training; of the first, otherwise."""
        if self.in_training_step:
            features = {name: x for name, x in inputs.items() if name not in ("labels", ID_COLUMN)}
            with self.accelerator.autocast():
                self._peer_logits = self._peer(**features).logits
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def per_example_loss(self, logits: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """What each example adds to either network's mean over its chosen ones, (B,) float32."""
        assert self._peer_logits is not None  # of this very batch
        own = super().per_example_loss(logits, labels, ids)
        peers = cross_entropy(self._peer_logits, labels)
        kept = max(1, round((1 - self._options.dropped(self.state.epoch or 0.0)) * len(labels)))
        chosen = own * _smallest(peers, kept) + peers * _smallest(own, kept)
        return chosen * (len(labels) / kept)

    def stateful(self) -> dict[str, Stateful]:
        """As ``CleaRTrainer``; the peer too."""
        return {**super().stateful(), "peer": _TrainedWeights(self._peer)}


class _TrainedWeights:
    """The trained weights of a network, for a checkpoint."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = _trained(model)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: p.detach().cpu().contiguous() for name, p in self._weights.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, parameter in self._weights.items():
            parameter.copy_(state[name])


class _PeerSteps(TrainerCallback):
    """Does for the peer what the Trainer does for its model around an optimizer step."""

    def __init__(self, peer: nn.Module) -> None:
        self.peer = peer

    def on_pre_optimizer_step(self, args: CleaRConfig, *_: Any, **__: Any) -> None:
        if args.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.peer.parameters(), args.max_grad_norm)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.peer.zero_grad()


@torch.no_grad()
def another_start(model: nn.Module, seed: int) -> nn.Module:
    """A copy of a PEFT model whose trainable matrices are drawn anew.

    Each is drawn from a normal distribution with its own mean and variance: what starts at zero stays there,
    and the copy still starts as the pretrained model. Vectors (biases, norms) and poolers, which may be
    pretrained, stay as they are, and so do the matrices of HRA, OSF and DEFT.

    Args:
        model: The model, which stays as it is; its frozen weights are shared, not copied.
        seed: Of the draw.
    """
    shared = {id(p): p for p in model.parameters() if not p.requires_grad}
    other = copy.deepcopy(model, shared)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same peer wherever the model is
    for name, parameter in _trained(other).items():
        if parameter.ndim > 1 and not any(part in name for part in _KEPT):
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.copy_(parameter.mean() + parameter.std(correction=0) * noise)
    return other


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _smallest(losses: Tensor, count: int) -> Tensor:
    """1 for the ``count`` smallest losses, 0 for the others, (B,)."""
    chosen = torch.zeros_like(losses.detach())
    chosen[losses.detach().argsort(stable=True)[:count]] = 1
    return chosen
