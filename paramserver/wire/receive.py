"""Chunks into arrays, and every reason why they do not fit.

A small state machine without sockets, the same for a server that takes a push and a client that takes a pull:
announce, feed, finish. It allocates nothing by what a sender declares: the receiver knows beforehand what has
to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from paramserver.errors import Fault, RequestError, did_you_mean
from paramserver.events import FLOAT32_MAX, Slice
from paramserver.placement import BYTES_PER_ELEMENT, slice_shape
from paramserver.rows import RowIndices
from paramserver.types import Array, Shapes
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.numbers import DTYPE_SERVED, decode_dtype, encode_dtype
from paramserver.wire.rows import check_count, encode_rows, slice_text
from paramserver.wire.transfer import CHUNK_BYTES_MAX, Run


class NotFiniteError(RequestError):
    """A gradient or weight is not finite, or a gradient too large; it then counts as one of no samples."""


def slice_headers(
    slices: Iterable[Slice],
    shapes: Shapes,
    rows: Mapping[Slice, RowIndices] = MappingProxyType({}),
    *,
    name_rows: bool = False,
) -> list[pb.SliceHeader]:
    """Return the announcement of slices.

    Args:
        slices: in placement order.
        shapes: of the whole tensors, by key.
        rows: which rows follow of those slices that do not travel whole.
        name_rows: say which rows these are; else the receiver knows.

    Raises:
        RequestError: too many rows are named.
    """
    if name_rows:
        check_count(sum(map(len, rows.values())))
    return [
        pb.SliceHeader(
            key=part.key,
            row_begin=part.row_begin,
            row_end=part.row_end,
            dtype=encode_dtype(DTYPE_SERVED),
            shape=travelling_shape(part, shapes, rows),
            rows=encode_rows(rows[part]) if name_rows and part in rows else None,
        )
        for part in slices
    ]


def travelling_shape(part: Slice, shapes: Shapes, rows: Mapping[Slice, RowIndices]) -> tuple[int, ...]:
    """Return the shape of what travels of a slice: of all of it, or of its named rows.

    Args:
        part: the slice.
        shapes: of the whole tensors, by key.
        rows: which rows travel of those slices that do not travel whole.
    """
    shape = shapes[part.key]
    return (len(rows[part]), *shape[1:]) if part in rows else slice_shape(shape, part)


def check_announced(
    announced: Sequence[pb.SliceHeader],
    slices: Sequence[Slice],
    shapes: Shapes,
    rows: Mapping[Slice, RowIndices] = MappingProxyType({}),
) -> None:
    """Refuse an announcement that differs in anything from what has to come.

    Args:
        announced: what a header says will follow.
        slices: what has to follow, in placement order.
        shapes: of the whole tensors, by key.
        rows: which rows have to follow of those slices that do not travel whole.

    Raises:
        RequestError: an unknown key (``UNKNOWN``), or another order, other rows, another shape or dtype, a
            missing or surplus slice; the sentence names key, expected and found.
    """
    for header in announced:
        if header.key not in shapes:
            raise RequestError(
                f"There is no tensor '{header.key}' in this job.{did_you_mean(header.key, shapes)}",
                Fault.UNKNOWN,
            )
    for header, part in zip(announced, slices, strict=False):
        found, expected = (
            (header.key, header.row_begin, header.row_end),
            (part.key, part.row_begin, part.row_end),
        )
        if found != expected:
            raise RequestError(
                f"Expected {slice_text(*expected)} of shard {part.shard} at this place, and found "
                f"{slice_text(*found)}. Send exactly the shard's slices, in placement order."
            )
        if header.HasField("rows") and part not in rows:
            raise RequestError(f"Expected all of {slice_text(*expected)}, and found single rows of it.")
        shape = travelling_shape(part, shapes, rows)
        if tuple(header.shape) != shape:
            named = f", {len(rows[part])} of which are named" if part in rows else ""
            raise RequestError(
                f"Expected shape {shape} for {slice_text(*expected)}{named}, and found "
                f"{tuple(header.shape)}. Shapes have to be equal; nothing is transposed or broadcast."
            )
        decode_dtype(header.dtype, part.key)
    if len(announced) < len(slices):
        missing = slices[len(announced)]
        what = slice_text(missing.key, missing.row_begin, missing.row_end)
        raise RequestError(
            f"Expected {len(slices)} slices, and found {len(announced)}: {what} of shard {missing.shard} are "
            "missing."
        )
    if len(announced) > len(slices):
        surplus = announced[len(slices)]
        raise RequestError(
            f"Expected {len(slices)} slices, and found {len(announced)}: "
            f"{slice_text(surplus.key, surplus.row_begin, surplus.row_end)} are too many."
        )


class Receiver:
    """Puts chunks into arrays as they come: in order, without gap, exactly as many bytes as expected.

    Args:
        destinations: arrays of the shapes of what travels, float32, C-contiguous and writable, in placement
            order; they may be views of rows of whole tensors. Half-filled after an error.
        finite_from: check each chunk for NaN and infinity, and name this sender if there is one, such as
            ``replica 3``; None: do not check.
        largest: what no value's size may exceed where they are checked.
    """

    def __init__(
        self,
        destinations: Mapping[Slice, Array],
        finite_from: str | None = None,
        largest: float = FLOAT32_MAX,
    ) -> None:
        self._slices = list(destinations)
        self._bytes = [_writable_bytes(array) for array in destinations.values()]
        self._numbers = [array.reshape(-1) for array in destinations.values()]
        self._finite_from = finite_from
        self._largest = largest
        self._index = 0
        self._offset = 0
        self._pass_filled()

    def feed(self, runs: Iterable[Run]) -> None:
        """Take the chunks of one message.

        Raises:
            NotFiniteError: a value is NaN, infinite or too large, and the check is on.
            RequestError: chunks out of order, with a gap, cut inside a number, or more than expected.
        """
        size = 0
        for run in runs:
            size += len(run.data)
            if size > CHUNK_BYTES_MAX:
                raise RequestError(
                    f"The chunks of one message carry {size:,} bytes or more, and at most "
                    f"{CHUNK_BYTES_MAX:,} are taken. Send smaller chunks.",
                    Fault.EXHAUSTED,
                )
            self._take(run)

    def finish(self) -> None:
        """Say that the sender is done.

        Raises:
            RequestError: bytes are missing.
        """
        if self._index < len(self._slices):
            part = self._slices[self._index]
            raise RequestError(
                f"The chunks of tensor '{part.key}' were cut off: expected {len(self._bytes[self._index]):,} "
                f"bytes for rows {part.row_begin} to {part.row_end - 1}, and found {self._offset:,}. "
                "Send the whole again."
            )

    def _take(self, run: Run) -> None:
        if self._index == len(self._slices):
            raise RequestError(
                f"A chunk of {len(run.data):,} bytes for slice {run.slice} came after the last expected "
                f"byte: {len(self._slices)} slices were announced and are complete."
            )
        part, space = self._slices[self._index], self._bytes[self._index]
        if (run.slice, run.offset) != (self._index, self._offset):
            raise RequestError(
                f"Chunks are out of order: expected slice {self._index} (tensor '{part.key}') at byte "
                f"{self._offset:,}, and found slice {run.slice} at byte {run.offset:,}."
            )
        size = len(run.data)
        if not size or size % BYTES_PER_ELEMENT:
            raise RequestError(
                f"A chunk of tensor '{part.key}' has {size:,} bytes, and it has to be a multiple of "
                f"{BYTES_PER_ELEMENT} above 0."
            )
        end = self._offset + size
        if end > len(space):
            raise RequestError(
                f"Tensor '{part.key}' got too many bytes: expected {len(space):,} for rows {part.row_begin} "
                f"to {part.row_end - 1}, and found {end:,} or more."
            )
        space[self._offset : end] = run.data
        if self._finite_from is not None:
            self._check_finite(part, self._offset // BYTES_PER_ELEMENT, end // BYTES_PER_ELEMENT)
        self._offset = end
        self._pass_filled()

    def _pass_filled(self) -> None:
        while self._index < len(self._slices) and self._offset == len(self._bytes[self._index]):
            self._index, self._offset = self._index + 1, 0

    def _check_finite(self, part: Slice, begin: int, end: int) -> None:
        numbers = self._numbers[self._index][begin:end]
        low, high = float(numbers.min()), float(numbers.max())  # either is NaN if any number is
        if -self._largest <= low and high <= self._largest:
            return
        place = begin + int(np.argmin(np.abs(numbers) <= self._largest))
        value = self._numbers[self._index][place]
        bound = f"at most {self._largest:.2g}, or a round's sum is not" if np.isfinite(value) else "finite"
        raise NotFiniteError(
            f"Tensor '{part.key}' from {self._finite_from} holds {value:g} at element {place} of rows "
            f"{part.row_begin} to {part.row_end - 1}, and every value has to be {bound}. Nothing of it is "
            "applied; look at the learning rate and the data."
        )


def bytes_of(
    slices: Iterable[Slice], shapes: Shapes, rows: Mapping[Slice, RowIndices] = MappingProxyType({})
) -> int:
    """Return how many bytes the slices' values have, of some of them only the rows that travel."""
    return sum(prod(travelling_shape(part, shapes, rows)) * BYTES_PER_ELEMENT for part in slices)


def _writable_bytes(array: npt.NDArray[np.float32]) -> memoryview:
    if array.dtype != np.dtype("<f4") or not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError("A destination has to be a writable float32 array in C order.")
    return array.reshape(-1).data.cast("B")
