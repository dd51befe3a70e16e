"""Lower rooms never import upper ones, and each knows no more than its reason to exist needs."""

import ast
from pathlib import Path

import pytest

import clear_peft

ROOT = Path(clear_peft.__file__).parent
# from the ground up; rooms on one floor do not know each other
FLOORS = [
    {"errors", "files", "lazy"},
    {"noise", "label_quality", "objectives", "routing"},
    {"tuners", "data"},
    {"training", "audit"},
    {"methods", "report"},
    {"runs"},
    {"pipeline"},
    {"bench"},
    {"cli"},
]
HUGGING_FACE = {"transformers", "peft", "datasets", "accelerate", "tokenizers"}
FORBIDDEN = {
    "noise": HUGGING_FACE | {"torch"},
    "label_quality": HUGGING_FACE | {"torch"},
    "objectives": HUGGING_FACE,
    "routing": {"datasets"},
    "methods": HUGGING_FACE | {"torch"},
    "audit": HUGGING_FACE | {"torch"},
    "report": HUGGING_FACE | {"torch"},
    "pipeline": HUGGING_FACE | {"torch"},
    "bench": HUGGING_FACE,
    "cli": HUGGING_FACE | {"torch", "numpy", "pandas"},
}
TRAINER = {"Trainer", "TrainingArguments", "Seq2SeqTrainer"}


def _room(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def _imports(path):
    """(module, name or None) of every import, those inside functions and relative ones too."""
    package = ["clear_peft", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def _rooms_in(module, name):
    parts = module.split(".")
    if parts[0] != "clear_peft":
        return None
    return parts[1] if len(parts) > 1 else name


FILES = sorted(ROOT.rglob("*.py"))
PARAMETERS = pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])


def test_every_room_has_a_floor():
    rooms = {_room(path) for path in FILES} - {"__init__"}
    assert rooms == set().union(*FLOORS)


@PARAMETERS
def test_lower_rooms_never_import_upper_ones(path):
    floor = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
    own = _room(path)
    if own == "__init__":
        return  # the public face opens every room
    for module, name in _imports(path):
        room = _rooms_in(module, name)
        if room in floor and room != own:
            same_ground = floor[room] == floor[own] == 0
            assert floor[room] < floor[own] or same_ground, f"{own} imports {room}"


@PARAMETERS
def test_a_room_knows_only_what_it_needs(path):
    own = _room(path)
    for module, name in _imports(path):
        package = module.partition(".")[0]
        assert package not in FORBIDDEN.get(own, set()), f"{own} imports {package}"
        if package == "transformers" and own != "training":
            assert name not in TRAINER, f"{own} imports {name}"
