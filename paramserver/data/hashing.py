"""Give every category a row of one table, without a list of all categories (the hashing trick).

Weinberger et al., "Feature hashing for large scale multitask learning", 2009. Two categories may share a row;
with few categories in a large table that is rare, and it costs little.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from paramserver.data.dataset import Indices


def hashed_row(field: str, value: str, rows: int) -> int:
    """Give the row of one value of one field: the same on every machine, in every process.

    Args:
        field: the field's name, so that equal values of different fields have rows of their own.
        value: the value as text.
        rows: rows of the table, at least 1.

    Returns:
        The first 8 bytes of the SHA-256 of ``field=value`` in UTF-8, as a big-endian number, modulo `rows`.

    Example:
        >>> hashed_row("carrier", "UA", 2**18)
        219848
    """
    digest = hashlib.sha256(f"{field}={value}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % rows


def hashed_column(field: str, values: Sequence[str], rows: int) -> Indices:
    """Give the rows of a whole column, hashing each different value once.

    Args:
        field: the field's name.
        values: one value for each sample.
        rows: rows of the table, at least 1.

    Returns:
        (samples,) int64 in ``[0, rows)``.
    """
    row_of = {value: hashed_row(field, value, rows) for value in set(values)}
    return np.fromiter((row_of[value] for value in values), np.int64, len(values))
