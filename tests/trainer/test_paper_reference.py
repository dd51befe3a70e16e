"""``CleaRTrainer`` with the preset ``paper`` is the paper's training, step by step."""

import dataclasses
import re
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import paper_reference
import pytest
import torch
from datasets import Dataset
from paper_reference import History, Recipe, predictions, trained_weights, tuned_model
from transformers import TrainerCallback

from clear_peft.routing import Router
from clear_peft.trainer import CleaRConfig, CleaRTrainer, preset
from clear_peft.tuners import build
from tiny_models import tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers, peft and torch on tiny models

EPOCHS, WARM_UP, BATCH, PREFIX = 6, 3, 8, 20
# how the reference tunes a layer, what is trained besides, and the paper's settings
METHODS = {
    "lora": (paper_reference.lora, ["classifier"], Recipe(0.85)),
    "adapter": (paper_reference.adapter, ["classifier"], Recipe(0.7, temperature=0.5, beta=0.9)),
    "prefix": (paper_reference.prefix, ["classifier", "bert.pooler"], Recipe(0.85)),
    "bitfit": (paper_reference.bitfit, ["classifier", "bert.pooler"], Recipe(0.9)),
}


def scoring(trainer):
    """Smoothed losses (N,), p (N,) and predictions (N, C) of the last scoring."""
    found = trainer.estimate
    logits = trainer.store.predicted_logits(torch.arange(len(found.losses)))
    return torch.from_numpy(found.losses), torch.from_numpy(found.train.clean_probability), logits


def paper_trainer(folder, model, data, method, **settings):
    fixed = {
        "output_dir": str(folder),
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": BATCH,
        "learning_rate": Recipe.learning_rate,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "bf16": False,
        "train_sampling_strategy": "random",
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "metric_for_best_model": None,
        "logging_strategy": "no",
        "seed": Recipe.seed,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    args = CleaRConfig(**{**preset("paper", method), **fixed, **settings})
    return Watched(model=model, args=args, train_dataset=data)


class Watched(CleaRTrainer):
    """Remembers the rows of each step."""

    def per_example_loss(self, logits, labels, ids):
        self.batches = [*getattr(self, "batches", []), ids.clone()]
        return super().per_example_loss(logits, labels, ids)


class Record(TrainerCallback):
    """Writes down a training as the reference does."""

    def __init__(self):
        self.history = History()

    def on_epoch_begin(self, args, state, control, **_):
        epoch, seen = round(state.epoch), self.history
        if epoch >= WARM_UP:
            seen.losses[epoch], seen.p[epoch], seen.teacher[epoch] = scoring(self.trainer)

    def on_step_begin(self, args, state, control, **_):
        torch.manual_seed(state.global_step)  # of dropout

    def on_step_end(self, args, state, control, model, **_):
        self.history.weights.append(comparable(model))


def comparable(model):
    """The trained weights of a PEFT model under the reference's names, biases as what they have become."""
    before = dict(tiny_bert(0.0).named_parameters())
    found = {}
    for name, weight in trained_weights(model).items():
        name = re.sub(r"^base_model\.(model\.)?|(\.modules_to_save)?\.default\b", "", name)
        name = re.sub(r"(layer\.\d+)", r"\1.tuned", name)
        if name == "prompt_encoder.embedding.weight":
            layers = weight.unflatten(1, (-1, 2, before["bert.pooler.dense.bias"].numel())).unbind(1)
            for i, layer in enumerate(layers):
                attention = f"bert.encoder.layer.{i}.tuned.attention.self"
                found[f"{attention}.prefix_keys"], found[f"{attention}.prefix_values"] = layer.unbind(1)
        elif name.endswith("beft_bias"):
            name = name.replace("beft_bias", "bias")
            found[name] = before[name.replace(".tuned", "")].detach() + weight.flatten()
        else:
            found[name] = weight
    return found


def tiny_bert(dropout):
    model, _ = tiny("bert")
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.dim() == 2:
            parameter.data *= 5  # at .02 a model of this size hardly tells rows apart
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model


def table(size=45, length=8):
    """Three classes with a token of their own, a third of the labels wrong, padded to one length."""
    rng = np.random.default_rng(0)
    clean = np.arange(size) % 3
    ids = rng.integers(10, 90, (size, length))
    ids[:, 1] = 3 + clean
    mask = (np.arange(length) < rng.integers(4, length + 1, size)[:, None]).astype(int)
    labels = np.where(rng.random(size) < 1 / 3, (clean + 1) % 3, clean)
    inputs = {"input_ids": np.where(mask, ids, 1), "attention_mask": mask}
    return {name: torch.from_numpy(values) for name, values in inputs.items()}, torch.from_numpy(labels)


@dataclass
class Run:
    """One finished training by ``CleaRTrainer``, and what the reference is to begin with."""

    method: str
    dropout: float
    start: dict
    history: History
    batches: list
    predicted: torch.Tensor

    def reference(self, **changes):
        """What the reference makes of the same start and rows: its history, and its last predictions."""
        put_in, also_trained, recipe = METHODS[self.method]
        inputs, labels = table()
        if self.method == "prefix":  # peft counts positions from the end of the prefix
            inputs["position_ids"] = PREFIX + torch.arange(inputs["input_ids"].shape[1]).expand(
                len(labels), -1
            )
        model = tuned_model(tiny_bert(self.dropout), put_in, also_trained)
        assert self.start.keys() == trained_weights(model).keys()
        model.load_state_dict(self.start, strict=False)
        steps = len(self.batches) // EPOCHS
        epochs = [self.batches[i : i + steps] for i in range(0, len(self.batches), steps)]
        assert all(torch.equal(torch.cat(rows).sort().values, torch.arange(len(labels))) for rows in epochs)
        recipe = dataclasses.replace(recipe, **changes)
        return paper_reference.train(model, inputs, labels, epochs, recipe), predictions(model, inputs)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that trains with ``CleaRTrainer``, every setting once."""
    done = {}

    def train(method, dropout, schedule):
        inputs, labels = table()
        data = Dataset.from_dict({n: v.tolist() for n, v in inputs.items()} | {"labels": labels.tolist()})
        torch.manual_seed(0)
        model = build(tiny_bert(dropout), method)
        start, record = comparable(model), Record()
        folder = tmp_path_factory.mktemp(method)
        draw = Router.draw

        def seen(router, *args, **options):
            record.history.gates.append(draw(router, *args, **options))
            return record.history.gates[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Router, "draw", seen)
            # dropout by torch's own draws, as the reference has it
            patch.setattr("clear_peft.trainer.trainer.faster", nullcontext)
            record.trainer = paper_trainer(folder, model, data, method, lr_scheduler_type=schedule)
            record.trainer.add_callback(record)
            record.trainer.train()
        predicted = torch.from_numpy(record.trainer.predict(data).predictions)
        return Run(method, dropout, start, record.history, record.trainer.batches, predicted)

    def once(*settings):
        if settings not in done:
            done[settings] = train(*settings)
        return done[settings]

    return once


def apart(first, second):
    """The largest difference between weights after the same step."""
    return max(
        (a[name] - b[name]).abs().max().item()
        for a, b in zip(first.weights, second.weights, strict=True)
        for name in a
        # a bias of all keys changes no attention: its gradient is rounding, and Adam scales that up
        if not name.endswith("key.bias")
    )


@pytest.mark.parametrize(
    ("method", "dropout", "schedule"),
    [
        ("lora", 0.0, "linear"),
        ("lora", 0.1, "linear"),
        ("lora", 0.1, "constant"),
        ("adapter", 0.1, "linear"),
        ("bitfit", 0.1, "linear"),
        ("prefix", 0.0, "linear"),  # an attention of more keys draws another dropout
    ],
)
def test_every_step_is_the_papers(run, method, dropout, schedule):
    ours = run(method, dropout, schedule)
    expected, predicted = ours.reference(linear=schedule == "linear")
    history = ours.history
    assert len(history.gates) == len(expected.gates) == EPOCHS * 6
    assert all(torch.equal(a, b) for a, b in zip(history.gates, expected.gates, strict=True))
    assert list(expected.p) == list(range(WARM_UP, EPOCHS))
    for epoch, p in expected.p.items():
        assert p.min() < 0.1
        assert p.max() > 0.9, "nothing is compared where every label is believed alike"
        torch.testing.assert_close(history.losses[epoch], expected.losses[epoch], atol=5e-5, rtol=0)
        torch.testing.assert_close(history.p[epoch], p, atol=5e-4, rtol=0)
        # ours keeps predictions in half precision, as logarithms of probabilities
        teacher = torch.log_softmax(expected.teacher[epoch], dim=1)
        torch.testing.assert_close(history.teacher[epoch], teacher, atol=3e-3, rtol=0)
    assert apart(history, expected) < 1e-5
    logarithms = torch.log_softmax(predicted, dim=1)
    torch.testing.assert_close(torch.log_softmax(ours.predicted, dim=1), logarithms, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 0.75},
        {"temperature": 1.0},
        {"beta": 0.0},
        {"warm_up": 2},
        {"consistency": 0.9},
        {"linear": False},
        {"seed": 1},
    ],
    ids=str,
)
def test_another_recipe_is_told_apart(run, change):
    """What the test above could overlook: a setting that the trainer does not use."""
    ours = run("adapter", 0.1, "linear")
    assert apart(ours.history, ours.reference(**change)[0]) > 1e-4
