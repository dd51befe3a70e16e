"""docs/options.md is what the options are."""

from pathlib import Path

from clear_peft.run_folder.config import options
from clear_peft.run_folder.options_table import options_table

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_page_is_up_to_date():
    command = "python -m clear_peft.run_folder.options_table > docs/options.md"
    assert PAGE.read_text(encoding="utf-8") == options_table(), f"run {command}"


def test_a_row_says_name_type_default_range_and_meaning():
    rows = [line for line in options_table().splitlines() if line.startswith("| `")]
    assert len(rows) == len(options())
    meaning = next(option.meaning for option in options() if option.name == "validation_fraction")
    cells = ("`validation_fraction`", "number", "`0.1`", "above 0 and below 1", meaning)
    assert f"| {' | '.join(cells)} |" in rows
    assert [len(row.split(" | ")) for row in rows] == [5] * len(rows), "a meaning with a bar in it"
