"""What is used of transformers' Trainer without being documented is all in one list, and is there."""

import ast
import inspect
import re
from collections import defaultdict
from pathlib import Path

import pytest
import transformers

import clear_peft.baselines
import clear_peft.trainer
from clear_peft.trainer import CleaRTrainer
from clear_peft.trainer.compat import OVERRIDDEN, USED

FILES = sorted(
    path
    for room in (clear_peft.trainer, clear_peft.baselines)
    for path in Path(room.__path__[0]).glob("*.py")
)
TRAINER = CleaRTrainer.__name__
# by these names a trainer goes where it is not self
TRAINERS = {"trainer", "_trainer", "Trainer"}


def private(name):
    return name.startswith("_") and not name.startswith("__")


class _Names(ast.NodeVisitor):
    """Of each class, the private names that it makes, and those that are read off it or off a trainer."""

    def __init__(self):
        self.made, self.bases, self.read = defaultdict(set), {}, defaultdict(set)
        self._class = None

    def visit_ClassDef(self, node):
        outer, self._class = self._class, node.name
        self.bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                self.made[node.name].add(part.name)
            elif isinstance(part, ast.AnnAssign):
                self.made[node.name].add(part.target.id)
        self.generic_visit(node)
        self._class = outer

    def visit_Attribute(self, node):
        owner = node.value
        whose = None
        if isinstance(owner, ast.Call) and getattr(owner.func, "id", None) == "super":
            whose = "super()"
        elif getattr(owner, "id", getattr(owner, "attr", None)) in TRAINERS:
            whose = TRAINER
        elif getattr(owner, "id", None) == "self":
            whose = self._class
        if whose is not None and private(node.attr):
            if isinstance(node.ctx, ast.Store):
                self.made[whose].add(node.attr)
            else:
                self.read[whose].add(node.attr)
        self.generic_visit(node)

    def known(self, name):
        """What a class and those of its bases that are our own make."""
        return self.made[name].union(*(self.known(base) for base in self.bases.get(name, ())))


@pytest.fixture(scope="module")
def names():
    found = _Names()
    for path in FILES:
        found.visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def theirs(names):
    """Private names that are read, and that no class of ours makes."""
    ours = {name: names.known(name) for name in names.read}
    return {name for whose, read in names.read.items() for name in read - ours[whose]}


def exists(name):
    made = re.search(rf"\bself\.{name}(?:: [^=\n]+)? = ", inspect.getsource(transformers.Trainer))
    return hasattr(transformers.Trainer, name) or made is not None


def test_the_list_is_read_off_the_right_files(names):
    assert {"trainer.py", "row_passes.py", "selfmix.py"} <= {path.name for path in FILES}
    assert names.bases["CleaRTrainer"] == ["Trainer"]
    assert "_signature_columns" in theirs(names)
    assert "_store" not in theirs(names)


def test_every_private_name_of_theirs_that_is_read_is_listed(names):
    assert theirs(names) - OVERRIDDEN.keys() - USED.keys() == set()


def test_every_private_method_of_theirs_that_is_overridden_is_listed(names):
    ours = [name for name in names.bases if "CleaRTrainer" in (name, *names.bases[name])]
    made = {name for own in ours for name in names.made[own] if private(name) and exists(name)}
    assert made == OVERRIDDEN.keys()


@pytest.mark.parametrize("name", [*OVERRIDDEN, *USED])
def test_every_name_of_the_list_is_there(name):
    assert exists(name)


def test_every_name_of_the_list_is_used(names):
    assert USED.keys() - theirs(names) == set()
    assert OVERRIDDEN.keys() - names.known(TRAINER) == set()
    assert OVERRIDDEN.keys() & USED.keys() == set()
    assert all(reason for reason in [*OVERRIDDEN.values(), *USED.values()])
