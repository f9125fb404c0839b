"""Reading rows of a table by their index, with a gradient that has only these rows."""

from __future__ import annotations

from typing import Any

from paramserver.errors import RequestError
from paramserver.rows import RowGradient, RowValues
from paramserver.types import AnyArray

Kept = tuple[AnyArray, tuple[int, ...]]
"""The indices, and the shape of the table."""


def gather(table: AnyArray | RowValues, indices: AnyArray) -> tuple[Any, Kept]:
    """Copy a row of the table for each index, and keep what the vjp needs.

    Args:
        table: ``(rows, ...)`` floats, whole, or those rows of it that the indices name.
        indices: int64 of any shape, each in ``[0, rows)``.

    Returns:
        ``(*indices.shape, *table.shape[1:])``, and the kept.

    Raises:
        RequestError: an index names no row of the table, or a row that was not fetched.
    """
    rows = table.shape[0]
    if indices.min() < 0 or indices.max() >= rows:
        outside = indices[(indices < 0) | (indices >= rows)][0]
        raise RequestError(
            f"Row indices must be at least 0 and less than {rows}, the rows of the table, but one is "
            f"{outside}. Give the model more rows, or hash the features into fewer."
        )
    return table[indices], (indices, table.shape)


def gather_vjp(g: AnyArray, kept: Kept) -> RowGradient:
    """Give the gradient with respect to the table: rows read more than once are added up."""
    indices, shape = kept
    return RowGradient.summed(indices, g, shape)
