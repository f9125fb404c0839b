"""Which rows of a table travel: their numbers, as bytes and back, and every reason why they are wrong.

A row's number is counted from the first row of its slice and takes four bytes. So a row of a table of width
one costs eight bytes in a push, however large the table is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from paramserver.errors import Fault, RequestError
from paramserver.events import Slice
from paramserver.rows import RowIndices, check_indices
from paramserver.wire import paramserver_pb2 as pb

ROWS_MAX = 1 << 19
"""Most single rows that one pull or push of a shard names: 2 MiB, which leaves a header below gRPC's default
limit of 4 MB for a message."""

BYTES_PER_ROW = 4


def encode_rows(indices: RowIndices) -> bytes:
    """Return rows of a slice, counted from its first, as bytes.

    Example:
        >>> encode_rows(np.array([1, 258])).hex(" ")
        '01 00 00 00 02 01 00 00'
    """
    return indices.astype("<u4").tobytes()


def decode_rows(data: bytes, part: Slice) -> RowIndices:
    """Return the rows of a slice, counted from its first, ``(n,) int64``.

    Raises:
        RequestError: they are cut off, out of order, repeated or outside the slice; names key and rows.
    """
    who = f"The rows named of {slice_text(part.key, part.row_begin, part.row_end)}"
    if len(data) % BYTES_PER_ROW:
        raise RequestError(
            f"{who} take {len(data)} bytes, and it has to be a multiple of {BYTES_PER_ROW}: send each row's "
            "number as uint32."
        )
    indices = np.frombuffer(data, "<u4").astype(np.int64)
    check_indices(f"{who}, counted from {part.row_begin}", indices, (part.row_end - part.row_begin,))
    return indices


def encode_wanted(wanted: Mapping[Slice, RowIndices]) -> list[pb.SliceRows]:
    """Return what a pull says of the slices of which only some rows are wanted.

    Raises:
        RequestError: there are too many rows.
    """
    check_count(sum(map(len, wanted.values())))
    return [
        pb.SliceRows(key=part.key, row_begin=part.row_begin, row_end=part.row_end, rows=encode_rows(indices))
        for part, indices in wanted.items()
    ]


def decode_wanted(
    messages: Iterable[pb.SliceRows], slices: Iterable[Slice], tables: Collection[str]
) -> dict[Slice, RowIndices]:
    """Return which rows of which slices a pull wants.

    Args:
        messages: from a client.
        slices: the shard's.
        tables: keys of which single rows may travel.

    Raises:
        RequestError: a slice is not the shard's (``UNKNOWN``), comes twice or is not a table's, or rows are
            wrong.
    """
    own = {(part.key, part.row_begin, part.row_end): part for part in slices}
    wanted: dict[Slice, RowIndices] = {}
    for message in messages:
        place = (message.key, message.row_begin, message.row_end)
        part = own.get(place)
        if part is None:
            known = ", ".join(slice_text(*each) for each in own) or "nothing"
            raise RequestError(
                f"A pull names single rows of {slice_text(*place)}, and this shard owns {known}. Use the "
                "placement that Join gave.",
                Fault.UNKNOWN,
            )
        _check_table(part, tables)
        if part in wanted:
            raise RequestError(f"A pull names rows of {slice_text(*place)} twice. Name them once.")
        wanted[part] = decode_rows(message.rows, part)
    check_count(sum(map(len, wanted.values())))
    return wanted


def announced_rows(
    announced: Sequence[pb.SliceHeader], slices: Sequence[Slice], tables: Collection[str]
) -> dict[Slice, RowIndices]:
    """Return the rows that a push names, of those slices that it does not send whole.

    Args:
        announced: from a client; whether it announces the right slices is checked elsewhere.
        slices: what has to be announced, in placement order.
        tables: keys of which single rows may travel.

    Raises:
        RequestError: rows of what is no table, or rows are wrong.
    """
    rows: dict[Slice, RowIndices] = {}
    for header, part in zip(announced, slices, strict=False):
        if header.HasField("rows") and header.key == part.key:
            _check_table(part, tables)
            rows[part] = decode_rows(header.rows, part)
    check_count(sum(map(len, rows.values())))
    return rows


def check_count(rows: int) -> None:
    """Refuse to name more rows at once than are taken.

    Raises:
        RequestError: ``EXHAUSTED``.
    """
    if rows > ROWS_MAX:
        raise RequestError(
            f"{rows:,} single rows are named to one shard, and at most {ROWS_MAX:,} are taken at once. Use a "
            "smaller batch or more shards, or send the tables whole.",
            Fault.EXHAUSTED,
        )


def slice_text(key: str, row_begin: int, row_end: int) -> str:
    """Return a slice as a sentence calls it."""
    return f"rows {row_begin} to {row_end - 1} of tensor '{key}'"


def _check_table(part: Slice, tables: Collection[str]) -> None:
    if part.key not in tables:
        raise RequestError(f"Single rows of tensor '{part.key}' are named, which is no table. Send it whole.")
