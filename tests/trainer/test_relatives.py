"""RoSA, MetaPEFT, GLoRA and APT in training: besides gradient descent, resumed, in processes and modes."""

import json
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import peft
import pytest
import torch
from test_restart import RESTART, NothingFound
from test_trainer import StopAfter, equal
from torch.nn.functional import softplus
from toy import Constant, rows, trainer, weights
from transformers import TrainerCallback

from clear_peft.errors import ClearWarning, InputError
from clear_peft.label_quality import MixtureEstimate
from clear_peft.trainer.tuning.glora import SEARCH_NAME
from clear_peft.trainer.tuning.metapeft import MetaTraining
from clear_peft.tuners import build, glora
from clear_peft.tuners.plans import MetaPlan, with_plan
from clear_peft.tuners.rosa import sparse_layers, sparse_values
from processes import run_ranks
from tiny_models import tiny

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # peft on tiny models

TARGETS = ["query", "key", "value", "dense"]
SMALL = {"population": 3, "generations": 1, "parents": 2}


def model(method, architecture="bert", targets=TARGETS, **options):
    base, _ = tiny(architecture)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(base, method, target_modules=targets, options=options)


METHODS = {
    "rosa": {"density": 0.05, "mask_gradients": 3, "mask_steps": 2},
    "metapeft": {"outer_share": 0.5, "outer_learning_rate": 0.1},
    "metapeft_adapter": {"on": "adapter", "outer_share": 0.5, "outer_learning_rate": 0.1},
    "glora": SMALL,
    "apt": {},
}


def of(name, **more):
    method = name.partition("_")[0]
    targets = {"metapeft_adapter": ["output.dense"], "apt": None}.get(name, TARGETS)
    return model(method, targets=targets, **METHODS[name] | more)


def trained(tmp_path, name, by=None, **settings):
    made = trainer(tmp_path, start=of(name), by=by, **{**RESTART, "max_grad_norm": 0.0, **settings})
    made.train()
    return made


def everything(made):
    """Weights and supports."""
    layers = sparse_layers(made.model)
    indices = {f"support{i}": layer.supertuning_indices["default"].clone() for i, layer in enumerate(layers)}
    return weights(made) | indices


class Seen(TrainerCallback):
    """Remembers something of the model at every step, when its gradients are there."""

    def __init__(self, what):
        self.what, self.seen = what, []

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.seen.append(self.what(model))


def values_of(model):
    return torch.cat([value.detach().clone() for value in sparse_values(model)])


def supports_of(model):
    return torch.cat([layer.supertuning_indices["default"].clone() for layer in sparse_layers(model)])


def scales_of(model):
    layers = (module for module in model.modules() if isinstance(getattr(module, "scaling", None), dict))
    return [float(layer.scaling["default"]) for layer in layers]


# RoSA


@pytest.mark.parametrize(
    ("by", "settings", "moment"),
    [
        (Constant(0.6), {}, 6),  # restarts after two epochs of three steps
        (NothingFound(), {}, 6),
        (Constant(0.6), {"restart": False}, 6),  # as the preset paper does
        (None, {"clean_routing": False}, 2),  # mask_steps
    ],
)
def test_the_sparse_half_waits_for_its_support(tmp_path, by, settings, moment):
    values, supports = Seen(values_of), Seen(supports_of)
    made = trainer(tmp_path, start=of("rosa"), by=by, callbacks=[values, supports], **RESTART | settings)
    made.train()
    magnitude = supports_of(of("rosa"))
    for step, (value, support) in enumerate(zip(values.seen, supports.seen, strict=True)):
        assert bool(value.any()) == (step > moment), step
        assert torch.equal(support, magnitude) == (step < moment), step
    assert values_of(made.model).any()


def test_before_the_support_it_is_lora_training(tmp_path):
    """The low-rank half trains as LoRA of the same start does, bit for bit."""
    settings = {"num_train_epochs": 2, "max_grad_norm": 0.0, "clean_routing": False}
    made = trainer(tmp_path, start=of("rosa", mask_steps=10_000), **settings)
    with pytest.warns(ClearWarning, match="only its low-rank half has learnt"):
        made.train()
    lora = model("lora", r=4)
    own = {name.replace("supertuning_", ""): p for name, p in of("rosa").named_parameters()}
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            parameter.copy_(own.get(name, parameter))
    other = trainer(tmp_path, start=lora, **settings)
    other.train()
    found = {n.replace("supertuning_", ""): w for n, w in weights(made).items() if "values" not in n}
    for name, weight in weights(other).items():
        torch.testing.assert_close(weight, found[name], atol=1e-6, rtol=1e-5)


def test_the_support_is_where_the_gradient_of_the_whole_weight_is_largest(tmp_path):
    """Of query, key and value, which share an input, each by its own gradient."""
    made = trainer(tmp_path, start=of("rosa"), clean_routing=False)
    made.create_optimizer()
    made.tuning._choose_support()
    layers = sparse_layers(made.model)
    reference = of("rosa").get_base_model()
    dense = [reference.get_submodule(_name(made.model, layer)).get_base_layer().weight for layer in layers]
    for weight in dense:
        weight.requires_grad_(True)
    squares = [torch.zeros_like(weight) for weight in dense]
    drawn = np.random.default_rng([made.args.seed, 1]).choice(22, 12, replace=False, p=np.full(22, 1 / 22))
    data = made.train_dataset
    for start in range(0, 12, 4):
        batch = data[drawn[start : start + 4].tolist()]
        inputs = {k: torch.tensor(batch[k]) for k in ("input_ids", "attention_mask")}
        loss = torch.nn.functional.cross_entropy(
            reference.eval()(**inputs).logits, torch.tensor(batch["labels"])
        )
        for square, gradient in zip(squares, torch.autograd.grad(loss, dense), strict=True):
            square += gradient**2
    for layer, square in zip(layers, squares, strict=True):
        support = layer.supertuning_indices["default"].long()
        threshold = square.flatten().topk(len(support)).values.min()
        assert (square.flatten()[support] >= threshold * (1 - 1e-4)).all()
        assert torch.equal(support, support.sort().values)
        assert not layer.supertuning_values["default"].any()
    query, key = (layers[i].supertuning_indices["default"] for i in (0, 1))
    assert not torch.equal(query, key)


def _name(model, module):
    return next(n for n, m in model.get_base_model().named_modules() if m is module)


def test_rows_that_are_not_believed_do_not_choose_the_support(tmp_path):
    class Half:
        def estimate(self, losses, labels=None):
            return MixtureEstimate((np.arange(len(losses)) < 11).astype(np.float32), 2, {})

    made = trainer(tmp_path, start=of("rosa"), by=Half(), **RESTART)
    made.store.set_estimate(made.passes.estimate(None))
    drawn = []
    read = made.task.hard_loss
    made.task.hard_loss = lambda logits, labels: drawn.append(labels) or read(logits, labels)
    assert sum(len(losses) for losses in made.passes.drawn(5, (9,))) == 11


def test_the_sparse_half_has_its_own_learning_rate(tmp_path):
    made = trainer(tmp_path, start=of("rosa", sparse_learning_rate=0.5))
    groups = made.create_optimizer().param_groups
    sparse = {id(value) for value in sparse_values(made.model)}
    rates = {group["lr"]: {id(p) for p in group["params"]} for group in groups if group["params"]}
    assert rates[0.5e-2] == sparse
    assert not rates[1e-2] & sparse


def test_rosa_is_saved_as_supertuning_that_plain_peft_loads(tmp_path):
    made = trained(tmp_path, "rosa", by=Constant(0.6))
    made.model.save_pretrained(tmp_path / "adapter")
    assert _same_by_plain_peft(made.model, tmp_path)


# MetaPEFT


def test_scales_that_do_not_learn_leave_lora_as_it_is_bitwise(tmp_path):
    settings = RESTART | {"max_grad_norm": 0.0}
    made = trainer(tmp_path, start=of("metapeft", outer_learning_rate=0.0), by=Constant(0.6), **settings)
    made.train()
    lora = trainer(tmp_path, start=model("lora"), by=Constant(0.6), **settings)
    lora.train()
    assert equal(weights(made), weights(lora))


@pytest.mark.parametrize("name", ["metapeft", "metapeft_adapter"])
def test_scales_learn_after_the_warm_up_and_begin_again(tmp_path, name):
    scales = Seen(scales_of)
    made = trainer(tmp_path, start=of(name), by=Constant(0.6), callbacks=[scales], **RESTART)
    before = {}

    class Before(TrainerCallback):
        def on_train_end(self, args, state, control, model, **_):
            before["scales"] = scales_of(model)

    made.callback_handler.callbacks.insert(0, Before())
    made.train()
    ones = [1.0] * len(scales.seen[0]) if name.endswith("adapter") else [2.0] * len(scales.seen[0])
    for step, seen in enumerate(scales.seen):
        # two epochs of warm-up, and an outer step every second step
        assert (seen == ones) == (step < 8), step
    assert before["scales"] != ones
    assert all(scale > 0 for scale in before["scales"])
    found = scales_of(made.model)
    assert found == (ones if name.endswith("adapter") else before["scales"])


def test_a_folded_bottleneck_computes_the_same(tmp_path):
    made = of("metapeft_adapter").eval()
    _, batch = tiny("bert")
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
        made.set_scaling([0.5 + i for i in range(len(scales_of(made)))])
        scaled = made(**batch).logits
        made.save_pretrained(tmp_path)
        loaded = type(made).from_pretrained(tiny("bert")[0], tmp_path)
        assert torch.equal(loaded(**batch).logits, scaled)
        made.fold_scaling()
        torch.testing.assert_close(made(**batch).logits, scaled)
    assert made.bottleneck_config.scaling is None


def test_metapeft_is_saved_as_lora_with_alphas_that_plain_peft_loads(tmp_path):
    made = trained(tmp_path, "metapeft", by=Constant(0.6))
    made.model.save_pretrained(tmp_path / "adapter")
    pattern = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["alpha_pattern"]
    assert len(set(pattern.values())) > 1
    assert _same_by_plain_peft(made.model, tmp_path)


@pytest.mark.parametrize(("gamma", "gradient"), [(1.0, -0.611640), (2.0, -0.376302)])
def test_an_outer_step_is_of_first_order_and_on_what_softplus_takes(gamma, gradient):
    """y = 1 + γφ, with φ = 0.8 after an inner step of 0.1 towards 2; the outer loss is ½(y − 3)²."""
    phi = 0.8 - 0.1 * gamma * (1 + gamma * 0.8 - 2)
    net = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False, dtype=torch.float64))
    config = peft.LoraConfig(target_modules=["0"], r=1, lora_alpha=1)
    net = with_plan(peft.get_peft_model(net, config, autocast_adapter_dtype=False), MetaPlan())
    starts = {"base_layer": 1.0, "lora_A": 1.0, "lora_B": phi}
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(next(value for part, value in starts.items() if part in name))

    class Passes:
        looking = staticmethod(nullcontext)

        def drawn(self, batches, key):
            yield 0.5 * (net(torch.ones(1, 1, dtype=torch.float64)) - 3) ** 2

    args = SimpleNamespace(world_size=1, device=torch.device("cpu"))
    training = MetaTraining(SimpleNamespace(model=net, args=args, passes=Passes()))
    raw = torch.tensor([gamma], dtype=torch.float64).expm1().log()
    training.load_state_dict({"raw": raw})
    training._outer_step(5)
    assert training._raw.grad.item() == pytest.approx(gradient, abs=2e-6)
    # Adam's first step is its rate, whatever the gradient
    assert training._raw.item() == pytest.approx(raw.item() + 0.01, abs=1e-6)
    assert scales_of(net) == [softplus(training._raw).item()]


# GLoRA


def test_each_step_draws_a_configuration_and_what_is_evaluated_is_whole(tmp_path):
    def masks(model):
        layers = glora.supernet_layers(model).values()
        return [path.mask.clone() for layer in layers for path in _paths(layer)]

    drawn = Seen(masks)
    made = trainer(tmp_path, start=of("glora"), by=NothingFound(), callbacks=[drawn], **RESTART)
    whole = masks(made.model)
    made.train()
    again = Seen(masks)
    trainer(tmp_path, start=of("glora"), by=NothingFound(), callbacks=[again], **RESTART).train()
    assert all(_alike(a, b) for a, b in zip(drawn.seen, again.seen, strict=True))
    assert not any(_alike(a, b) for a, b in zip(drawn.seen, drawn.seen[1:], strict=False))
    assert not any(_alike(seen, whole) for seen in drawn.seen)
    assert not glora.is_supernet(made.model)


def _paths(layer):
    return [p for p in glora._paths(layer) if hasattr(p, "mask")]


def _alike(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_search_ends_with_an_ordinary_adapter_and_says_what_it_found(tmp_path):
    made = trained(tmp_path, "glora", by=Constant(0.6), eval_strategy="epoch", validation_fraction=0.3)
    found = json.loads((tmp_path / SEARCH_NAME).read_text())
    assert len(found["evaluated"]) == 6
    assert set(next(iter(found["best"].values()))) == set("ABCDE")
    made.model.save_pretrained(tmp_path / "adapter")
    assert _same_by_plain_peft(made.model, tmp_path)


def test_no_configuration_has_more_parameters_than_allowed(tmp_path):
    made = trainer(tmp_path, start=of("glora", max_parameters=200), by=Constant(0.6), **RESTART)
    made.train()
    assert json.loads((tmp_path / SEARCH_NAME).read_text())["parameters"] <= 200


def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path):
    """By its file: what has been evaluated is not evaluated again, and the winner is the same."""
    whole = trained(tmp_path / "whole", "glora", by=Constant(0.6), save_strategy="epoch", eval_strategy="no")
    settings = RESTART | {"save_strategy": "epoch", "max_grad_norm": 0.0}
    first = trainer(tmp_path / "killed", start=of("glora"), by=Constant(0.6), **settings)
    evaluate, count = first.passes.logits, []

    def dies(*args, **kwargs):
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return evaluate(*args, **kwargs)

    first.passes.logits = dies
    with pytest.raises(KeyboardInterrupt):
        first.train()
    before = json.loads((tmp_path / "killed" / SEARCH_NAME).read_text())["evaluated"]
    assert len(before) == 3
    second = trainer(tmp_path / "killed", start=of("glora"), by=Constant(0.6), **settings)
    evaluate, count = second.passes.logits, []
    second.passes.logits = lambda *a, **k: count.append(1) or evaluate(*a, **k)
    second.train(resume_from_checkpoint=True)
    assert len(count) == 3
    assert equal(weights(second), weights(whole))
    results = [json.loads((tmp_path / name / SEARCH_NAME).read_text()) for name in ("whole", "killed")]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "planted", ["", "[]", "{", '{"digest": 3}', '{"digest": "x", "evaluated": [["9", [1, 2]]]}']
)
def test_a_damaged_search_file_is_not_believed(tmp_path, planted):
    (tmp_path / SEARCH_NAME).write_text(planted)
    trained(tmp_path, "glora", by=Constant(0.6))
    assert len(json.loads((tmp_path / SEARCH_NAME).read_text())["evaluated"]) == 6


# All


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stop", [4, 7])
def test_resumes_bitwise(tmp_path, name, stop):
    """In the warm-up and after it, between two outer steps."""
    settings = RESTART | {"max_grad_norm": 0.0}
    saving = {"save_strategy": "steps", "save_steps": 1}
    whole = trained(tmp_path / "whole", name, by=Constant(0.6))
    stopped = StopAfter(stop / 3)
    first = trainer(
        tmp_path / "run", start=of(name), by=Constant(0.6), callbacks=[stopped], **settings | saving
    )
    first.tuning.end_training = lambda: None  # killed, so to say
    first.train()
    second = trainer(tmp_path / "run", start=of(name), by=Constant(0.6), **settings | saving)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{stop}"))
    assert equal(everything(second), everything(whole))
    assert scales_of(second.model) == scales_of(whole.model)


@pytest.mark.parametrize("name", METHODS)
def test_the_best_epoch_is_loaded_whole(tmp_path, name):
    """Scales and supports go with the weights."""
    logits = []

    class Remember(TrainerCallback):
        def on_save(self, args, state, control, model, **_):
            logits.append(_logits(made))

    made = trainer(
        tmp_path,
        start=of(name),
        by=NothingFound(),
        eval_dataset=rows(9, seed=4),
        callbacks=[Remember()],
        **RESTART | {"ema_epochs": 0.0},
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
    )
    made.tuning.end_training = lambda: None
    made.train()
    best = made.state.best_global_step // 3 - 1
    assert torch.equal(_logits(made), logits[best])


def _logits(made):
    _, batch = tiny("bert")
    was = made.model.training
    with torch.no_grad():
        found = made.model.eval()(**batch).logits
    made.model.train(was)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_gates_that_are_closed_teach_nothing(tmp_path, name):
    """Routing goes on around it: with γ = 0 no adapter learns, whatever else its method does."""
    made = trained(tmp_path, name, by=Constant(0.6), max_gate_prob=0.0, num_train_epochs=3)
    start = dict(of(name).named_parameters())
    for key, weight in weights(made).items():
        if not any(part in key for part in ("classifier", "pooler", "glora")):
            assert torch.equal(weight, start[key]), key


@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers has renamed gradient checkpointing
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("mode", [{"gradient_checkpointing": True}, {"bf16": True}])
def test_trains_in_every_mode(tmp_path, name, mode):
    if name == "apt" and "gradient_checkpointing" in mode:
        with pytest.raises(InputError, match="does not work with gradient checkpointing"):
            trained(tmp_path, name, by=Constant(0.6), num_train_epochs=3, **mode)
        return
    made = trained(tmp_path, name, by=Constant(0.6), num_train_epochs=3, **mode)
    assert all(weight.isfinite().all() for weight in weights(made).values())
    assert np.isfinite(made.state.log_history[-1].get("train_loss", 0.0))


TWO = """
import sys
sys.path[:0] = {path!r}
import numpy as np
from clear_peft.pipeline.distributed import shutdown
from test_relatives import METHODS, in_any_number_of_processes, outcome
for name in METHODS:
    made = in_any_number_of_processes({out!r}, name, batch=2)
    np.savez({out!r} + f"/{{name}}{{made.args.process_index}}.npz", **outcome(made))
shutdown()
"""


def in_any_number_of_processes(out, name, batch):
    """A training whose order of rows does not depend on the number of processes."""
    start = of(name)
    for module in start.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    made = trainer(
        out,
        start=start,
        train_dataset=rows(24),
        per_device_train_batch_size=batch,
        train_sampling_strategy="sequential",
        num_train_epochs=2,
        clean_routing=False,
        max_grad_norm=0.0,
        optim="sgd",
    )
    made.train()
    return made


def outcome(made):
    arrays = {name: tensor.numpy() for name, tensor in everything(made).items()}
    return arrays | {"scales": np.array(scales_of(made.model))}


@pytest.mark.slow
def test_two_processes_end_alike(tmp_path):
    """With one another bit for bit; and as one process, but for RoSA, whose mask is of smaller batches."""
    here = Path(__file__).parent
    script = tmp_path / "two.py"
    script.write_text(TWO.format(path=[str(here), str(here.parent)], out=str(tmp_path)))
    run_ranks(script)
    for name in METHODS:
        first, second = (np.load(tmp_path / f"{name}{rank}.npz") for rank in (0, 1))
        one = outcome(in_any_number_of_processes(tmp_path, name, batch=4))
        assert one.keys() == set(first)
        for part in one:
            np.testing.assert_array_equal(first[part], second[part], err_msg=f"{name}: {part}")
            if name != "rosa":
                np.testing.assert_allclose(first[part], one[part], atol=1e-4, err_msg=f"{name}: {part}")


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("name", ["rosa", "metapeft", "glora", "apt"])
def test_trains_compiled_as_it_does_not_compiled(monkeypatch, tmp_path, name):
    monkeypatch.setattr("clear_peft.trainer.trainer.faster", nullcontext)  # compiled steps draw as torch does
    settings = {"max_grad_norm": 0.0, "num_train_epochs": 1, "clean_routing": False, "optim": "sgd"}
    plain = trainer(tmp_path, start=of(name), **settings)
    plain.train()
    compiled = trainer(
        tmp_path, start=of(name), **settings, torch_compile=True, torch_compile_backend="aot_eager"
    )
    compiled.train()
    for key, weight in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[key], weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("rosa", {"density": 0}, "density is 0"),
        ("rosa", {"density": "x"}, "density is 'x'"),
        ("rosa", {"r": 0}, "r is 0"),
        ("rosa", {"sparsity": 0.5}, "rosa has no option sparsity"),
        ("rosa", {"mask_score": "sum"}, "mask_score is 'sum'"),
        ("rosa", {"mask_gradients": 0}, "mask_gradients is 0"),
        ("metapeft", {"on": "prefix"}, "on is 'prefix'"),
        ("metapeft", {"use_dora": True}, "metapeft has no option use_dora"),
        ("metapeft", {"outer_share": 0}, "outer_share is 0"),
        ("glora", {"config_C": "none"}, "glora has no option config_C"),
        ("glora", {"population": 1}, "population is 1"),
        ("glora", {"max_parameters": -1}, "max_parameters is -1"),
    ],
)
def test_options_are_checked(method, options, said):
    with pytest.raises(InputError, match=said):
        model(method, **options)


def _same_by_plain_peft(model, tmp_path):
    """Whether a process that cannot import this package gets the same logits from the saved adapter."""
    torch.save(_own_logits(model), tmp_path / "own.pt")
    base, batch = tiny("bert")
    base.save_pretrained(tmp_path / "base")
    torch.save(batch, tmp_path / "batch.pt")
    script = """
import sys
sys.modules["clear_peft"] = None
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
base = AutoModelForSequenceClassification.from_pretrained("base", num_labels=3)
model = PeftModel.from_pretrained(base, "adapter").eval()
for weight in model.parameters():  # as read they lie anywhere in memory, by which products round on some CPUs
    weight.data = weight.data.clone()
with torch.no_grad():
    found = model(**torch.load("batch.pt")).logits
sys.exit(0 if torch.equal(found, torch.load("own.pt")) else 1)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return done.returncode == 0


def _own_logits(model):
    _, batch = tiny("bert")
    with torch.no_grad():
        return model.eval()(**batch).logits
