"""Which rows of a table are copies of one text, and which belong together."""

import numpy as np

from clear_peft.data.examples import Examples
from clear_peft.label_quality import as_groups, combined, duplicate_groups


def row_groups(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Copies, and groups of rows of which none may judge another.

    Args:
        examples: N rows, with or without groups of their own.

    Returns:
        Rows whose texts are the same, or nearly, have one number in the first, (N,) int64; the second is
        ``clear_peft.label_quality.groups.combined`` of these and the groups of the input, (N,) int64.
    """
    copies = as_groups(duplicate_groups(examples.texts), len(examples))
    return copies, copies if examples.groups is None else combined(copies, examples.groups)
