"""Files and hub names in, labelled examples with ids out."""

from clear_peft.data.examples import Examples, LoadedTable, load_examples
from clear_peft.data.formulas import escape_formulas, unescape_formulas
from clear_peft.data.groups import row_groups
from clear_peft.data.labels import LabelNames
from clear_peft.data.split import hold_out
from clear_peft.data.tables import check_output, check_writable, read_table, write_table
from clear_peft.data.tokens import say_how_many_are_cut, tokenize

__all__ = [
    "Examples",
    "LabelNames",
    "LoadedTable",
    "check_output",
    "check_writable",
    "escape_formulas",
    "hold_out",
    "load_examples",
    "read_table",
    "row_groups",
    "say_how_many_are_cut",
    "tokenize",
    "unescape_formulas",
    "write_table",
]
