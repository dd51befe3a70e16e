"""The table of what runs where is that of the tests."""

import re
import sys
from itertools import product
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "what-runs-where.md").read_text()
sys.path.insert(0, str(HERE / "routing"))


def test_the_matrix_of_the_page_is_that_of_the_gates():
    from cases import CASES, KNOWN, TUNERS

    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if "|" in line
    ]
    head = next(row for row in rows if row[0] == "method")
    of_page = {
        (name, architecture): cell
        for names, *cells in rows
        for name in re.findall("`([a-z]+)`", names)
        for architecture, cell in zip(head[1:], cells, strict=False)
        if len(cells) == len(head) - 1 and names != "method"
    }
    methods = {name for name, _ in of_page}
    tested = {tuple(case.replace("glora_supernet", "glora").split("-", 1)) for case in CASES}
    for place, cell in of_page.items():
        assert (cell == "yes") == (place in tested), place
    assert {method for method, _ in tested} - methods <= {*TUNERS}
    assert {*product({*KNOWN} - {"lora"}, ("bert", "llama"))} <= tested


def test_every_test_that_is_named_is_there():
    named = set(re.findall(r"`(?:tests/\w+/)?(test_\w+)(\.py)?`", PAGE))
    assert len(named) > 15
    source = {path.stem: path.read_text() for path in HERE.rglob("test_*.py")}
    for name, is_file in named:
        assert name in source if is_file else any(f"def {name}(" in text for text in source.values()), name
