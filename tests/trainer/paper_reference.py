"""The training of the CleaR paper (arXiv 2411.00873), written out in plain torch to compare ours with.

It takes nothing from this package but the draw of the gates, so that both draw the same: no trainer, no
router, no PEFT layers. Each layer runs twice, tuned and frozen, and its outputs are mixed as in the paper's
equation.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, pad, softmax

from clear_peft.routing.gates import draw_gates


@dataclass(frozen=True)
class Recipe:
    """The paper's settings, in its letters.

    Attributes:
        gamma: γ, the probability of an open gate for a surely clean example.
        temperature: T of the consistency term.
        beta: β, the weight of the losses of the pass before.
        warm_up: Epochs before the first scoring.
        consistency: λ.
        linear: Whether the learning rate falls linearly to 0, or stays as it is.
    """

    gamma: float
    temperature: float = 1.0
    beta: float = 0.0
    warm_up: int = 3
    consistency: float = 1.0
    learning_rate: float = 5e-3
    linear: bool = True
    seed: int = 0


@dataclass
class History:
    """What happened.

    Attributes:
        gates: Of each step, (B, L) bool.
        weights: After each step, by name.
        losses: Of the scoring before an epoch, smoothed, (N,); by epoch, as are the next two.
        p: The clean probabilities, (N,).
        teacher: The predictions of the scoring, (N, C).
    """

    gates: list[Tensor] = field(default_factory=list)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    losses: dict[int, Tensor] = field(default_factory=dict)
    p: dict[int, Tensor] = field(default_factory=dict)
    teacher: dict[int, Tensor] = field(default_factory=dict)


class Lora(nn.Module):
    def __init__(self, base, rank, scale):
        super().__init__()
        self.base, self.scale = base, scale
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.scale * self.lora_B(self.lora_A(x))


class Bottleneck(nn.Module):
    def __init__(self, base, width):
        super().__init__()
        self.base = base
        self.bottleneck_down = nn.Linear(base.out_features, width)
        self.bottleneck_up = nn.Linear(width, base.out_features)

    def forward(self, x):
        y = self.base(x)
        return y + self.bottleneck_up(gelu(self.bottleneck_down(y)))


class Prefix(nn.Module):
    """BERT's self-attention with learnt keys and values before those of the tokens."""

    def __init__(self, base, length):
        super().__init__()
        self.base = base
        self.prefix_keys, self.prefix_values = (
            nn.Parameter(torch.zeros(length, base.all_head_size)) for _ in range(2)
        )

    def forward(self, x, attention_mask, **_):
        keys, values = (
            torch.cat([prefix.expand(len(x), -1, -1), of_tokens(x)], dim=1)
            for prefix, of_tokens in (
                (self.prefix_keys, self.base.key),
                (self.prefix_values, self.base.value),
            )
        )
        query, keys, values = (
            part.unflatten(-1, (self.base.num_attention_heads, -1)).transpose(1, 2)
            for part in (self.base.query(x), keys, values)
        )
        scores = query @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5
        visible = pad(attention_mask, (len(self.prefix_keys), 0), value=True)
        weights = softmax(scores.masked_fill(~visible, -torch.inf), dim=-1)
        return (weights @ values).transpose(1, 2).flatten(2), None


def lora(layer, rank=4, scale=2.0):
    attention = layer.attention.self
    attention.query = Lora(attention.query, rank, scale)
    attention.value = Lora(attention.value, rank, scale)


def adapter(layer, width=16):
    layer.attention.output.dense = Bottleneck(layer.attention.output.dense, width)
    layer.output.dense = Bottleneck(layer.output.dense, width)


def prefix(layer, length=20):
    layer.attention.self = Prefix(layer.attention.self, length)


def bitfit(layer):
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))


class GatedLayer(nn.Module):
    """h' = m·(the layer with its PEFT modules) + (1 − m)·(the frozen layer), m one gate for each example."""

    def __init__(self, layer, put_in):
        super().__init__()
        self.frozen = layer
        self.tuned = copy.deepcopy(layer)
        put_in(self.tuned)
        self.gate: Tensor | None = None  # (B,) bool; None: open

    def forward(self, *args, **kwargs):
        before = torch.get_rng_state()
        tuned = self.tuned(*args, **kwargs)
        if self.gate is None:
            return tuned
        torch.set_rng_state(before)  # one example has one dropout mask, whichever way it takes
        frozen = self.frozen(*args, **kwargs)
        m = self.gate.to(tuned.dtype)[:, None, None]
        return m * tuned + (1 - m) * frozen


def tuned_model(model, put_in, also_trained: Sequence[str]):
    """Freeze a BERT classifier and put PEFT modules into its layers; other modules are trained as a whole."""
    model.requires_grad_(False)
    for name in also_trained:
        model.get_submodule(name).requires_grad_(True)
    layers = model.bert.encoder.layer
    for i, layer in enumerate(layers):
        layers[i] = GatedLayer(layer, put_in)
    return model


def trained_weights(model) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def held(model, gates: Tensor) -> Iterator[None]:
    """Give each layer its column of the gates, (B, L), forward and backward."""
    layers = model.bert.encoder.layer
    for layer, gate in zip(layers, gates.T, strict=True):
        layer.gate = gate
    yield
    for layer in layers:
        layer.gate = None


@torch.no_grad()
def predictions(model, inputs: dict[str, Tensor]) -> Tensor:
    """Logits (N, C) in evaluation mode with all PEFT modules on: for scoring, and at inference."""
    model.eval()
    return model(**inputs).logits


def clean_probability(losses: Tensor) -> Tensor:
    """The posterior of the component with the smaller mean, of two Gaussians on the losses."""
    values = losses.double().numpy()[:, None]
    mixture = GaussianMixture(2, random_state=0).fit(values)
    return torch.from_numpy(mixture.predict_proba(values)[:, np.argmin(mixture.means_)]).float()


def train(
    model,
    inputs: dict[str, Tensor],
    labels: Tensor,
    epochs: Sequence[Sequence[Tensor]],
    recipe: Recipe,
) -> History:
    """Train a tuned model in place.

    Args:
        model: What ``tuned_model`` made.
        inputs: (N, …) each.
        labels: Given labels, (N,) int64.
        epochs: Of each epoch, the rows of each batch, (B,) int64.
        recipe: The settings.
    """
    history = History()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
    layers, steps = len(model.bert.encoder.layer), sum(map(len, epochs))
    step, losses, p, teacher = 0, None, torch.ones(len(labels)), None
    for epoch, batches in enumerate(epochs):
        if epoch >= recipe.warm_up:
            teacher = predictions(model, inputs)
            before, losses = losses, cross_entropy(teacher, labels, reduction="none")
            if before is not None:
                losses = (1 - recipe.beta) * losses + recipe.beta * before
            p = clean_probability(losses)
            history.losses[epoch], history.p[epoch], history.teacher[epoch] = losses, p, teacher
        for rows in batches:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * (1 - step / steps if recipe.linear else 1)
            gates = draw_gates(recipe.gamma * p[rows], rows, layers, seed=recipe.seed, step=step)
            torch.manual_seed(step)  # of dropout
            model.train()
            with held(model, gates):
                logits = model(**{name: values[rows] for name, values in inputs.items()}).logits
                loss = cross_entropy(logits, labels[rows])
                if teacher is not None:
                    t = recipe.temperature
                    loss = loss + recipe.consistency * cross_entropy(
                        logits / t, softmax(teacher[rows] / t, 1)
                    )
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            history.gates.append(gates)
            history.weights.append(trained_weights(model))
            step += 1
    return history
