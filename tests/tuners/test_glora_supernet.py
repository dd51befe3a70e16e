import copy
import subprocess
import sys
from itertools import product

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import nn
from torch.nn.functional import linear

from clear_peft.errors import InputError
from clear_peft.routing import Router
from clear_peft.tuners.internals import enable_checkpointing
from tiny_models import tiny

pytest.importorskip("peft.tuners.glora", reason="peft has GLoRA since 0.20")
from peft import GloraConfig
from peft.tuners.glora import GloraLinear

from clear_peft.tuners.glora import (
    SUPERNET_OPTIONS,
    choices,
    fold,
    make_supernet,
    parameter_count,
    search_space,
    set_configuration,
    supernet_layers,
    whole,
)

KINDS = (
    ("none", "constant", "vector", "lora"),
    ("none", "constant", "vector", "lora"),
    ("none", "vector", "lora"),
    ("none", "constant", "vector"),
    ("none", "constant", "vector"),
)
ALL = list(product(*(range(len(kinds)) for kinds in KINDS)))
NONE, WHOLE = ALL[0], ALL[-1]
IN, OUT, RANK = 5, 4, 2


class Net(nn.Module):
    """Layers side by side, each with its own configuration."""

    def __init__(self, count, bias=True):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(IN, OUT, bias=bias) for _ in range(count))
        randomise(self)

    def forward(self, x):
        return torch.stack([layer(x) for layer in self.layers])


def randomise(model, std=0.3):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return model


def plain(net, r=RANK):
    return get_peft_model(net, GloraConfig(r=r, target_modules=r"layers\.\d+", **SUPERNET_OPTIONS))


def supernet(count=1, bias=True, r=RANK):
    model = randomise(plain(Net(count, bias), r))
    make_supernet(model)
    return model


def inputs(seed=0):
    return torch.randn(3, IN, generator=torch.Generator().manual_seed(seed))


def dense(layer, tensor, gene):
    """A tensor by its definition."""
    path, kind = getattr(layer, f"glora_{tensor}")["default"], KINDS["ABCDE".index(tensor)][gene]
    shape = {"A": (OUT, IN), "B": (OUT, IN), "C": (IN, 1), "D": (OUT,), "E": (OUT,)}[tensor]
    if kind == "none":
        return torch.zeros(shape)
    if kind == "lora":
        return path.Xd @ path.Xu
    vector = path.X if tensor in "DE" else path.Xd[:, :1]
    return (vector if kind == "vector" else vector.flatten()[0]).expand(shape)


def by_formula(layer, genes, x):
    A, B, C, D, E = (dense(layer, *given) for given in zip("ABCDE", genes, strict=True))
    W, b = layer.base_layer.weight, layer.base_layer.bias
    return linear(x, W + W * A + B, b + b * D + E + (W @ C)[:, 0])


def only(model):
    return next(iter(supernet_layers(model).values()))


@torch.no_grad()
def test_worked_example():
    model = plain(nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2)])}))
    make_supernet(model)
    layer = only(model)
    layer.base_layer.weight.copy_(torch.tensor([[1.0, 2], [3, 4]]))
    layer.base_layer.bias.copy_(torch.tensor([1.0, -1]))
    A, B, C, D, E = (getattr(layer, f"glora_{tensor}")["default"] for tensor in "ABCDE")
    A.Xd.copy_(torch.tensor([[0.5, 0], [0, -1]]))
    A.Xu.copy_(torch.eye(2))
    B.Xd.copy_(torch.tensor([[0.0, 1], [1, 0]]))
    B.Xu.copy_(torch.eye(2))
    C.Xd.copy_(torch.tensor([[2.0, 7], [-1, 7]]))
    D.X.copy_(torch.tensor([0.5, 2]))
    E.X.copy_(torch.tensor([0.25, 0.75]))
    set_configuration(model, (3, 3, 1, 2, 2))  # C as a vector, the others as large as can be
    assert torch.equal(layer(torch.ones(1, 2)), torch.tensor([[6.25, 3.75]]))
    fold(model, (3, 3, 1, 2, 2))
    assert torch.equal(layer(torch.ones(1, 2)), torch.tensor([[6.25, 3.75]]))
    layer.merge()
    assert torch.equal(layer.base_layer.weight, torch.tensor([[1.5, 3], [4, 0]]))
    assert torch.equal(layer.base_layer.bias, torch.tensor([1.75, -0.25]))


def test_all_configurations_of_a_layer_fold_and_reload_in_plain_peft(tmp_path):
    model = supernet(len(ALL))
    x = inputs()
    configuration = [gene for genes in ALL for gene in genes]
    layers = list(supernet_layers(model).values())
    expected = torch.stack([by_formula(*pair, x) for pair in zip(layers, ALL, strict=True)])
    set_configuration(model, configuration)
    searched = model(x)
    torch.testing.assert_close(searched, expected, atol=1e-6, rtol=1e-6)

    names = set(model.state_dict())
    attributes = [set(vars(module)) for module in plain(Net(1)).modules()]
    fold(model, configuration)
    assert all(set(vars(module)) in attributes for module in model.modules())
    assert {type(path).__name__ for layer in layers for path in layer.glora_A.values()} == {"GloraLoraPath"}
    assert set(model.state_dict()) == names
    assert torch.equal(model(x), searched)
    model.save_pretrained(tmp_path)
    net = model.get_base_model().state_dict()
    base = {name.replace("base_layer.", ""): t for name, t in net.items() if "base_layer" in name}
    torch.save(base, tmp_path / "base")
    torch.save(x, tmp_path / "x")
    code = f"""
import sys
sys.modules["clear_peft"] = None
import torch
from peft import PeftModel
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear({IN}, {OUT}) for _ in range({len(ALL)}))

    def forward(self, x):
        return torch.stack([layer(x) for layer in self.layers])

torch.set_num_threads(1)
net = Net()
net.load_state_dict(torch.load("base"))
torch.save(PeftModel.from_pretrained(net, ".")(torch.load("x")).detach(), "y")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "y"), searched)


@pytest.mark.parametrize("rank", [1, 3])
def test_any_rank_folds(rank):
    model = supernet(len(ALL), r=rank)
    x = inputs()
    configuration = [gene for genes in ALL for gene in genes]
    layers = list(supernet_layers(model).values())
    expected = torch.stack([by_formula(*pair, x) for pair in zip(layers, ALL, strict=True)])
    fold(model, configuration)
    torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=1e-6)


def test_the_whole_configuration_is_pefts_own_layer():
    reference = randomise(plain(Net(2)))
    model = supernet(2)
    assert torch.equal(model(inputs()), reference(inputs()))
    set_configuration(model, NONE * 2)
    assert not torch.equal(model(inputs()), reference(inputs()))
    assert whole(model) == WHOLE * 2
    assert torch.equal(model(inputs()), reference(inputs()))
    for gradients in (model, reference):
        gradients(inputs()).square().sum().backward()
    for own, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert own.grad is theirs.grad is None or torch.equal(own.grad, theirs.grad)
    saved = [get_peft_model_state_dict(m) for m in (model, reference)]
    assert saved[0].keys() == saved[1].keys()


def test_no_tensor_is_the_frozen_layer():
    model = supernet()
    set_configuration(model, NONE)
    assert torch.equal(only(model)(inputs()), only(model).base_layer(inputs()))


def test_only_a_low_rank_b_is_lora():
    model = supernet()
    set_configuration(model, (0, 3, 0, 0, 0))
    layer = only(model)
    lora = get_peft_model(
        nn.ModuleDict({"layer": copy.deepcopy(layer.base_layer)}),
        LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["layer"]),
    ).base_model.model["layer"]
    with torch.no_grad():
        lora.lora_A["default"].weight.copy_(layer.glora_B["default"].Xu)
        lora.lora_B["default"].weight.copy_(layer.glora_B["default"].Xd)
    torch.testing.assert_close(layer(inputs()), lora(inputs()), atol=1e-6, rtol=1e-6)


def test_only_a_vector_e_is_bitfit():
    model = supernet()
    set_configuration(model, (0, 0, 0, 0, 2))
    layer = only(model)
    biased = copy.deepcopy(layer.base_layer)
    with torch.no_grad():
        biased.bias += layer.glora_E["default"].X
    torch.testing.assert_close(layer(inputs()), biased(inputs()), atol=1e-6, rtol=1e-6)


def test_a_vector_a_with_the_same_d_scales_the_output():
    model = supernet()
    set_configuration(model, (2, 0, 0, 2, 0))
    layer = only(model)
    scale = layer.glora_A["default"].Xd[:, 0]
    with torch.no_grad():
        layer.glora_D["default"].X.copy_(scale)
    scaled = (1 + scale) * layer.base_layer(inputs())
    torch.testing.assert_close(layer(inputs()), scaled, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("genes", [NONE, (1, 2, 1, 1, 2), (3, 1, 2, 2, 1), (2, 3, 0, 0, 0), WHOLE])
def test_gradients(genes):
    model = supernet().double()
    layer = only(model)
    set_configuration(model, genes)
    x = inputs().double()
    trained = [p for p in layer.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda *_: layer(x), trained)

    layer(x).square().sum().backward()
    assert all(p.grad is not None for p in trained)  # as DDP wants it
    for tensor, kinds, gene in zip("ABCDE", KINDS, genes, strict=True):
        path, kind = getattr(layer, f"glora_{tensor}")["default"], kinds[gene]
        moved = {name for name, p in path.named_parameters() if p.grad.any()}
        everything = {"X"} if tensor in "DE" else {"Xd", "Xu"}
        assert moved == {"none": set(), "lora": everything}.get(kind, everything - {"Xu"})


def test_what_is_not_chosen_does_not_leak():
    model = supernet()
    with torch.no_grad():
        for tensor in "ABC":
            path = getattr(only(model), f"glora_{tensor}")["default"]
            path.Xu.fill_(torch.inf)
            path.Xd[:, 1:] = torch.nan
    set_configuration(model, (2, 1, 1, 2, 2))
    y = only(model)(inputs())
    assert y.isfinite().all()
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_parameter_counts():
    model = supernet(2)
    sizes = (
        (0, 1, OUT, (IN + OUT) * RANK),
        (0, 1, OUT, (IN + OUT) * RANK),
        (0, IN, (IN + 1) * RANK),
        (0, 1, OUT),
        (0, 1, OUT),
    )
    for genes in ALL:
        count = sum(size[gene] for size, gene in zip(sizes, genes, strict=True))
        assert parameter_count(model, genes + NONE) == parameter_count(model, NONE + genes) == count
    assert parameter_count(model, WHOLE * 2) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert parameter_count(model, (3, 2, 1, 0, 1, 1, 0, 2, 2, 0)) == 18 + 4 + 5 + 1 + 1 + 12 + 4


def test_a_layer_without_bias_has_neither_c_nor_d_nor_e():
    model = supernet(16, bias=False)
    assert search_space(model) == [4, 4, 1, 1, 1] * 16
    assert choices(next(iter(supernet_layers(model).values())))[2:] == (("none",),) * 3
    pairs = list(product(range(4), repeat=2))
    configuration = [gene for pair in pairs for gene in (*pair, 0, 0, 0)]
    expected = []
    for layer, (a, b) in zip(supernet_layers(model).values(), pairs, strict=True):
        A, B = (dense(layer, *given) for given in (("A", a), ("B", b)))
        expected.append(linear(inputs(), layer.base_layer.weight * (1 + A) + B))
    assert parameter_count(model, configuration) == 8 * (1 + OUT + (IN + OUT) * RANK)
    set_configuration(model, configuration)
    searched = model(inputs())
    torch.testing.assert_close(searched, torch.stack(expected), atol=1e-6, rtol=1e-6)
    fold(model, configuration)
    assert torch.equal(model(inputs()), searched)


def bert(dtype=torch.float32):
    model, batch = tiny("bert")
    targets = ["query", "key", "value", "dense"]
    config = GloraConfig(task_type="SEQ_CLS", r=2, target_modules=targets, **SUPERNET_OPTIONS)
    model = get_peft_model(model.to(dtype), config)
    randomise(model, std=0.1)
    make_supernet(model)
    set_configuration(model, mixed(model))
    return model, batch


def mixed(model):
    """A different configuration for every layer."""
    return [gene for place in range(len(search_space(model)) // 5) for gene in ALL[(97 * place + 60) % 432]]


@pytest.mark.filterwarnings("ignore:Could not find a config file in  -:UserWarning")  # peft 0.20
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folded_transformer_is_pefts_own(dtype, tmp_path):
    model, batch = bert(dtype)
    searched = model(**batch).logits
    fold(model, mixed(model))
    assert not any("clear_peft" in type(module).__module__ for module in model.modules())
    assert torch.equal(model(**batch).logits, searched)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny("bert")[0].to(dtype), tmp_path)
    assert torch.equal(loaded(**batch).logits, searched)
    with pytest.raises(InputError, match="no GLoRA supernet"):
        search_space(model)
    make_supernet(model)  # and back
    assert torch.equal(model(**batch).logits, searched)


def test_can_be_routed():
    model, batch = bert()
    searched = model(**batch).logits
    set_configuration(model, NONE * (len(search_space(model)) // 5))
    frozen = model(**batch).logits  # with the trained head, which is not gated
    router = Router(model)
    set_configuration(model, mixed(model))
    assert torch.equal(model(**batch).logits, searched)
    for gates, expected in ((True, searched), (False, frozen)):
        with router.hold(torch.full((4, router.num_blocks), gates)):
            assert torch.equal(model(**batch).logits, expected)
    with router.hold(torch.tensor([[True] * router.num_blocks, [False] * router.num_blocks] * 2)):
        logits = model(**batch).logits
        logits.sum().backward()
    assert torch.equal(logits[::2], searched[::2])
    assert torch.equal(logits[1::2], frozen[1::2])
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    fold(model, mixed(model))
    with router.hold(torch.ones(4, router.num_blocks, dtype=torch.bool)):
        assert torch.equal(model(**batch).logits, searched)
    router.detach()
    assert torch.equal(model(**batch).logits, searched)


def test_disabled_and_merged_it_is_as_pefts():
    model, batch = bert()
    searched = model(**batch).logits
    with model.disable_adapter():
        assert torch.equal(model(**batch).logits, tiny("bert")[0](**batch).logits)
    assert torch.equal(model(**batch).logits, searched)
    model.merge_adapter()
    torch.testing.assert_close(model(**batch).logits, searched, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="merged into the base weights"):
        whole(model)
    model.unmerge_adapter()
    torch.testing.assert_close(model(**batch).logits, searched, atol=1e-5, rtol=1e-5)


def test_a_copy_and_another_device_keep_the_configuration():
    model = supernet()
    set_configuration(model, (1, 2, 1, 1, 2))
    y = model(inputs())
    twin = copy.deepcopy(model)
    whole(model)
    assert torch.equal(twin(inputs()), y)
    assert not any("mask" in name for name, _ in [*twin.named_buffers(), *twin.state_dict().items()])
    assert twin.half().to("meta")(inputs().half().to("meta")).is_meta


def test_another_configuration_compiles_nothing_anew():
    compiled = []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph

    model = supernet(2)
    fast = torch.compile(model, backend=backend, fullgraph=True)
    for genes in (WHOLE, NONE, (1, 2, 1, 1, 2), (3, 1, 2, 2, 1)):
        set_configuration(fast, genes + WHOLE)
        y = fast(inputs())
        assert torch.equal(y, model(inputs()))
        y.sum().backward()
    assert len(compiled) == 1


def test_checkpointed_gradients_are_the_same():
    gradients = []
    for checkpointing in (False, True):
        model, batch = bert()
        model.train()
        if checkpointing:
            enable_checkpointing(model.get_base_model(), {"use_reentrant": False})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model(**batch).logits.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("options", [{}, {"config_D_E": "vector", "config_C": "vector"}])
def test_smaller_kinds_are_refused(options):
    model = get_peft_model(Net(1), GloraConfig(target_modules=r"layers\.\d+", **options))
    with pytest.raises(InputError, match="give config_A_B='lora', config_C='lora', config_D_E='vector'"):
        make_supernet(model)


def test_other_models_are_refused():
    lora = get_peft_model(Net(1), LoraConfig(target_modules=["0"]))
    several = plain(Net(1))
    several.add_adapter("other", several.peft_config["default"])
    for model in (lora, several):
        with pytest.raises(InputError, match="one GLoRA adapter and no other"):
            make_supernet(model)
    with pytest.raises(InputError, match="no GLoRA supernet"):
        set_configuration(plain(Net(1)), NONE)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        (NONE, "has 5 genes: give 10"),
        ((*NONE, 0, 0, 3, 0, 0), "Gene 7 of the configuration is 3: give a whole number from 0 to 2"),
        ((-1, 0, 0, 0, 0, *NONE), "Gene 0 of the configuration is -1"),
    ],
)
@pytest.mark.parametrize("use", [set_configuration, parameter_count, fold])
def test_configurations_of_other_models_are_refused(use, configuration, message):
    model = supernet(2)
    with pytest.raises(InputError, match=message):
        use(model, configuration)
    assert all(type(layer) is GloraLinear for layer in supernet_layers(model).values())
