"""Tensors of a record: of each its slice, dimensions, row numbers if it has only some, and values."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paramserver.events import Slice
from paramserver.rows import Gradient, RowGradient
from paramserver.storage.journal.frames import Piece
from paramserver.storage.tensor_file import value_bytes
from paramserver.types import Array

_COUNT = struct.Struct("<I")
_TENSOR = struct.Struct("<IBB")  # which slice, whether single rows, dimensions


def pack_tensors(tensors: Mapping[Slice, Gradient], slices: Mapping[Slice, int]) -> list[Piece]:
    """Return the bytes of tensors, by the place of each slice among those of its shard."""
    pieces: list[Piece] = []
    for part, tensor in tensors.items():
        rows = isinstance(tensor, RowGradient)
        shape = tensor.shape
        head = _TENSOR.pack(slices[part], rows, len(shape)) + struct.pack(f"<{len(shape)}q", *shape)
        if isinstance(tensor, RowGradient):
            indices = np.ascontiguousarray(tensor.indices, "<i8")
            pieces += [head + _COUNT.pack(len(indices)), _raw(indices), value_bytes(tensor.rows)]
        else:
            pieces += [head, value_bytes(tensor)]
    return pieces


def unpack_tensors(payload: memoryview, at: int, slices: Sequence[Slice]) -> dict[Slice, Gradient]:
    """Return the tensors from a place to the end of a payload.

    Args:
        payload: of the frame.
        at: where the first one begins.
        slices: of the shard, in order.

    Raises:
        ValueError, struct.error: the bytes are none of this release's.
    """
    found: dict[Slice, Gradient] = {}
    while at < len(payload):
        place, rows, dimensions = _TENSOR.unpack_from(payload, at)
        at += _TENSOR.size
        shape = struct.unpack_from(f"<{dimensions}q", payload, at)
        at += 8 * dimensions
        if rows:
            (count,) = _COUNT.unpack_from(payload, at)
            at += _COUNT.size
            indices = np.frombuffer(payload, "<i8", count, at).astype(np.int64)
            at += 8 * count
            values, at = _array(payload, at, (count, *shape[1:]))
            found[slices[place]] = RowGradient(indices, values, shape)
        else:
            found[slices[place]], at = _array(payload, at, shape)
    return found


def _array(payload: memoryview, at: int, shape: tuple[int, ...]) -> tuple[Array, int]:
    elements = 1
    for size in shape:
        elements *= size
    values = np.frombuffer(payload, "<f4", elements, at).astype(np.float32).reshape(shape)
    return values, at + 4 * elements


def _raw(array: Any) -> memoryview:
    view: memoryview = array.view(np.uint8).data
    return view
