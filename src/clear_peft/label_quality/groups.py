"""Groups of rows that are left out together: copies of a text, near or exact, and what the user names."""

from numbers import Real

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clear_peft.errors import InputError
from clear_peft.label_quality.types import Groups

_MOST_JOINED = 0.1
_CELLS_AT_ONCE = 1 << 18


def as_groups(values: npt.ArrayLike, size: int) -> Groups:
    """Group ids from 0 in the order of their first rows, (N,) int64.

    Args:
        values: A group of each row, (N,): numbers or text. Rows with a negative number, or without a value,
            are alone; so are those with an empty text.
        size: N.

    Raises:
        InputError: If there are not N values.
    """
    given = np.asarray(values)
    if given.dtype.kind in "US":  # None and NaN of a list are text now as well
        given = np.asarray(values, dtype=object)
    if given.shape != (size,):
        raise InputError(f"groups have shape {given.shape}: give one for each of the {size} rows.")
    codes = pd.factorize(pd.Series(given))[0].astype(np.int64)
    alone = codes < 0
    if np.issubdtype(given.dtype, np.number):
        alone |= given < 0
    elif given.dtype == object:
        alone |= np.fromiter(map(_is_none, given), bool, size)
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return pd.factorize(codes)[0].astype(np.int64)


def combined(copies: Groups, groups: Groups) -> Groups:
    """Groups of both kinds, (N,) int64: connected components of rows that share a copy or a group.

    A text that many customers wrote ("Thanks!") would merge them all. So where a component is larger than
    its largest part and has more than a tenth of the rows, it is split: rows whose copies are in several
    groups stay with their copies, all others with their group.

    Args:
        copies: Group of the copies of each row, (N,), numbered from 0.
        groups: Group of each row, (N,), numbered from 0.
    """
    size, kinds = len(copies), copies.max(initial=-1) + 1
    nodes = kinds + groups.max(initial=-1) + 1
    links = coo_array((np.ones(size, np.int8), (copies, kinds + groups)), shape=(nodes, nodes))
    joined = connected_components(links, directed=False)[1][copies]
    own = np.maximum(np.bincount(copies)[copies], np.bincount(groups)[groups])
    largest = pd.Series(own).groupby(joined).transform("max").to_numpy()
    too_large = np.bincount(joined)[joined] > np.maximum(largest, _MOST_JOINED * size)
    spread = pd.Series(groups).groupby(copies).transform("nunique").to_numpy() > 1
    parted = np.where(spread, nodes + copies, nodes + kinds + groups)
    return pd.factorize(np.where(too_large, parted, joined))[0].astype(np.int64)


def _is_none(value: object) -> bool:
    return value < 0 if isinstance(value, Real) else isinstance(value, str) and not value.strip()


def copy_weights(copies: Groups) -> npt.NDArray[np.float64]:
    """Weights (N,) by which the copies of a text count together as one row."""
    return 1 / np.bincount(copies)[copies]


def identical_rows(features: npt.NDArray[np.number]) -> Groups:
    """Rows whose numbers are the same but for rounding, as those of copies are, (N,).

    Each column is rounded to 1/4094 of its range, or of the median range of columns that vary where that is
    more. So a few columns of far larger numbers, as hidden states of language models have, hide no others.

    Args:
        features: Finite numbers, (N, …) with N ≥ 1, perhaps a memory map.
    """
    values = np.asarray(features).reshape(len(features), -1)
    low, high = (ends.astype(np.float64) / 2 for ends in (values.min(axis=0), values.max(axis=0)))
    centre, reach = high + low, high - low
    varying = reach[reach > 0]
    if len(varying):
        reach = np.maximum(reach, np.quantile(varying, 0.5, method="lower"))
    reach[reach == 0] = 1
    keys: list[bytes] = []
    step = max(_CELLS_AT_ONCE // values.shape[1], 1)
    for start in range(0, len(values), step):
        part = values[start : start + step].astype(np.float64)
        keys += [row.tobytes() for row in np.rint((part - centre) / reach * 2047).astype(np.int16)]
    return pd.factorize(pd.Series(keys, dtype=object))[0].astype(np.int64)
