"""The table of what runs where is that of the tests."""

import re
import sys
from itertools import product
from pathlib import Path

import pytest

from clear_peft.errors import InputError
from clear_peft.tuners import build
from tiny_models import tiny

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "what-runs-where.md").read_text()
sys.path.insert(0, str(HERE / "routing"))


ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith("|--")
]
ARCHITECTURES = next(row for row in ROWS if row[0] == "method")[1:]
MATRIX = {
    (name, architecture): cell
    for names, *cells in ROWS
    for name in re.findall("`([a-z]+)`", names)
    for architecture, cell in zip(ARCHITECTURES, cells, strict=False)
    if len(cells) == len(ARCHITECTURES)
}


def test_the_matrix_of_the_page_is_that_of_the_gates():
    from cases import CASES, KNOWN, TUNERS

    methods = {name for name, _ in MATRIX}
    tested = {tuple(case.replace("glora_supernet", "glora").split("-", 1)) for case in CASES}
    for place, cell in MATRIX.items():
        assert (cell == "yes") == (place in tested), place
    assert {method for method, _ in tested} - methods <= {*TUNERS}
    assert {*product({*KNOWN} - {"lora"}, ("bert", "llama"))} <= tested


@pytest.mark.filterwarnings("ignore")  # peft on tiny models
@pytest.mark.parametrize(
    ("method", "architecture"), [place for place, cell in MATRIX.items() if cell == "no"]
)
def test_what_does_not_go_together_is_refused(method, architecture):
    model, _ = tiny(architecture)
    with pytest.raises(InputError):
        build(model, method)


def test_no_cell_is_empty():
    for row in ROWS:
        assert all(row) or not any(row), row


def test_every_test_that_is_named_is_there():
    named = set(re.findall(r"`(?:tests/\w+/)?(test_\w+)(\.py)?`", PAGE))
    assert len(named) > 15
    source = {path.stem: path.read_text() for path in HERE.rglob("test_*.py")}
    for name, is_file in named:
        assert name in source if is_file else any(f"def {name}(" in text for text in source.values()), name
