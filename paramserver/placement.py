"""Which shard owns which rows.

All tensors are laid end to end in key order, and the line is cut into equal shares; each cut moves to the
nearest row boundary (axis 0), so a slice is whole rows of one tensor. The coordinator computes this once and
hands it out; a client never computes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np

from paramserver.errors import RequestError
from paramserver.events import Slice, TensorSpec
from paramserver.rows import Gradient, Gradients, RowGradient, RowIndices
from paramserver.types import Array, Tensors

BYTES_PER_ELEMENT = 4
UNBALANCED_RATIO = 1.2
"""Above this ratio of the largest shard to the mean, the coordinator says so in the log."""


def rows_of(shape: tuple[int, ...]) -> int:
    """Return the rows (axis 0) of a shape; a tensor of no dimensions has one."""
    return shape[0] if shape else 1


def slice_shape(tensor_shape: tuple[int, ...], part: Slice) -> tuple[int, ...]:
    """Return the shape of a slice of a tensor.

    Example:
        >>> slice_shape((10, 3), Slice("w", 4, 8, 0))
        (4, 3)
    """
    return (part.row_end - part.row_begin, *tensor_shape[1:]) if tensor_shape else ()


def place(tensors: Iterable[TensorSpec], shards: int) -> tuple[Slice, ...]:
    """Cut tensors into slices for a number of shards.

    Args:
        tensors: the model's tensors, in any order.
        shards: how many shards there are, >= 1.

    Returns:
        Slices in key order and, within a key, in row order; together they hold each row exactly once. A shard
        may get none when there are more shards than rows.

    Raises:
        RequestError: a tensor has no elements, two share a key, or there is none.

    Example:
        >>> for part in place([TensorSpec("w", (6, 2)), TensorSpec("b", (2,))], 2):
        ...     print(part.key, part.row_begin, part.row_end, part.shard)
        b 0 2 0
        w 0 2 0
        w 2 6 1
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.key)
    _check(ordered)
    total = sum(prod(tensor.shape) for tensor in ordered)
    cuts = [_nearest_row(ordered, total * cut, shards) for cut in range(shards + 1)]
    slices: list[Slice] = []
    first_row = 0
    for tensor in ordered:
        rows = rows_of(tensor.shape)
        for shard in range(shards):
            begin = max(cuts[shard], first_row) - first_row
            end = min(cuts[shard + 1], first_row + rows) - first_row
            if begin < end:
                slices.append(Slice(tensor.key, begin, end, shard))
        first_row += rows
    return tuple(slices)


def bytes_per_shard(tensors: Iterable[TensorSpec], slices: Iterable[Slice], shards: int) -> list[int]:
    """Return how many bytes of weights each shard owns."""
    shapes = {tensor.key: tensor.shape for tensor in tensors}
    sizes = [0] * shards
    for part in slices:
        sizes[part.shard] += prod(slice_shape(shapes[part.key], part)) * BYTES_PER_ELEMENT
    return sizes


def imbalance(sizes: list[int]) -> float:
    """Return the largest shard's bytes over the mean; 1.0 is perfect balance."""
    return max(sizes) * len(sizes) / sum(sizes)


def split(tensors: Tensors, slices: Iterable[Slice]) -> dict[Slice, Array]:
    """Return a view of each slice's rows."""
    return {part: rows(tensors[part.key], part) for part in slices}


def rows(tensor: Array, part: Slice) -> Array:
    """Return a view of one slice's rows of its tensor."""
    return tensor[part.row_begin : part.row_end] if tensor.ndim else tensor


def split_gradients(gradients: Gradients, slices: Iterable[Slice]) -> dict[Slice, Gradient]:
    """Return each slice's part of gradients: a view of an array, or the rows that lie in the slice."""
    parts: dict[Slice, Gradient] = {}
    for part in slices:
        gradient = gradients[part.key]
        if isinstance(gradient, RowGradient):
            begin, end = rows_between(gradient.indices, part)
            shape = slice_shape(gradient.shape, part)
            parts[part] = RowGradient(slice_indices(gradient.indices, part), gradient.rows[begin:end], shape)
        else:
            parts[part] = rows(gradient, part)
    return parts


def slice_indices(indices: RowIndices, part: Slice) -> RowIndices:
    """Return those indices that lie in a slice, counted from its first row.

    Args:
        indices: of rows of the tensor, ``(n,) int64``, ascending.
        part: the slice.
    """
    begin, end = rows_between(indices, part)
    return indices[begin:end] - part.row_begin


def rows_between(indices: RowIndices, part: Slice) -> tuple[int, int]:
    """Return where in ascending indices those of a slice begin and end."""
    begin, end = np.searchsorted(indices, (part.row_begin, part.row_end))
    return int(begin), int(end)


def join(shapes: Mapping[str, tuple[int, ...]], values: Mapping[Slice, Array]) -> dict[str, Array]:
    """Put slices together again.

    Args:
        shapes: of the whole tensors, by key.
        values: every slice of every tensor.

    Returns:
        Fresh arrays by key, in key order.
    """
    tensors = {key: np.empty(shapes[key], np.float32) for key in sorted(shapes)}
    for part, value in values.items():
        rows(tensors[part.key], part)[...] = value
    return tensors


def _nearest_row(ordered: list[TensorSpec], wish: int, shards: int) -> int:
    """Return the row, counted over all tensors, whose beginning is nearest to element ``wish / shards``.

    Integers all the way, so that every machine cuts alike; of two equally near rows the lower one.
    """
    first_row = first_element = 0
    for tensor in ordered:
        rows, row = rows_of(tensor.shape), prod(tensor.shape[1:])
        inside = wish - first_element * shards
        if inside <= rows * row * shards:
            return first_row + (2 * inside + row * shards - 1) // (2 * row * shards)
        first_row += rows
        first_element += rows * row
    return first_row


def _check(ordered: list[TensorSpec]) -> None:
    if not ordered:
        raise RequestError("A job needs at least one tensor, and this one has none.")
    for tensor, following in zip(ordered, [*ordered[1:], None], strict=True):
        if following is not None and tensor.key == following.key:
            raise RequestError(f"Two tensors share the key '{tensor.key}'. Give each its own key.")
        if prod(tensor.shape) == 0 or any(size < 0 for size in tensor.shape):
            raise RequestError(f"Tensor '{tensor.key}' has shape {tensor.shape}, which holds no elements.")
