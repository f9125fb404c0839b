"""Rows of tables as bytes: back as they were, every mistake named, and few bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.errors import Fault, RequestError
from paramserver.events import Slice
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire import rows
from paramserver.wire.receive import Receiver, check_announced, slice_headers, travelling_shape
from paramserver.wire.transfer import decode_transfer, encode_transfer

PART, OTHER = Slice("t", 100, 110, 1), Slice("w", 0, 2, 1)
SHAPES = {"t": (500, 3), "w": (2, 2)}
TABLES = frozenset("t")


def indices(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


@given(st.lists(st.integers(0, 9), unique=True).map(sorted))
def test_rows_come_back_as_they_were(numbers: list[int]) -> None:
    data = rows.encode_rows(indices(*numbers))
    assert len(data) == 4 * len(numbers)
    assert rows.decode_rows(data, PART).tolist() == numbers
    wanted = {PART: indices(*numbers)}
    messages = [pb.SliceRows.FromString(each.SerializeToString()) for each in rows.encode_wanted(wanted)]
    back = rows.decode_wanted(messages, (OTHER, PART), TABLES)
    assert {part: found.tolist() for part, found in back.items()} == {PART: numbers}
    headers = slice_headers((PART, OTHER), SHAPES, wanted, name_rows=True)
    announced = rows.announced_rows(headers, (PART, OTHER), TABLES)
    assert {part: found.tolist() for part, found in announced.items()} == {PART: numbers}
    check_announced(headers, (PART, OTHER), SHAPES, announced)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\1\0\0", ("take 3 bytes", "multiple of 4")),
        (rows.encode_rows(indices(10)), ("from 0 to 9", "found 10")),
        (b"\xff\xff\xff\xff", ("from 0 to 9", "found 4294967295")),
        (rows.encode_rows(indices(3, 3)), ("each once", "3 after 3")),
        (rows.encode_rows(indices(5, 1)), ("ascending", "1 after 5")),
    ],
)
def test_wrong_rows_are_refused_by_key(data: bytes, words: tuple[str, ...]) -> None:
    wanted = pb.SliceRows(key="t", row_begin=100, row_end=110, rows=data)
    header = slice_headers((PART,), SHAPES)[0]
    header.rows = data
    for decode in (
        lambda: rows.decode_rows(data, PART),
        lambda: rows.decode_wanted([wanted], (PART,), TABLES),
        lambda: rows.announced_rows([header], (PART,), TABLES),
    ):
        with pytest.raises(RequestError) as refused:
            decode()
        for word in ("rows 100 to 109 of tensor 't'", *words):
            assert word in str(refused.value)


@pytest.mark.parametrize(
    ("messages", "fault", "sentence"),
    [
        ([("t", 100, 111)], Fault.UNKNOWN, "rows 100 to 110 of tensor 't', and this shard owns rows 100 to"),
        ([("x", 0, 1)], Fault.UNKNOWN, "rows 0 to 0 of tensor 'x'"),
        ([("w", 0, 2)], Fault.INVALID, "tensor 'w' are named, which is no table"),
        ([("t", 100, 110)] * 2, Fault.INVALID, "rows 100 to 109 of tensor 't' twice"),
    ],
)
def test_a_pull_of_rows_of_the_wrong_slices_is_refused(messages: Any, fault: Fault, sentence: str) -> None:
    with pytest.raises(RequestError) as refused:
        rows.decode_wanted(
            [pb.SliceRows(key=key, row_begin=begin, row_end=end) for key, begin, end in messages],
            (PART, OTHER),
            TABLES,
        )
    assert sentence in str(refused.value)
    assert refused.value.fault is fault


def test_a_push_announces_as_many_rows_as_it_names() -> None:
    named = {PART: indices(1, 2, 3)}
    headers = slice_headers((PART, OTHER), SHAPES, named, name_rows=True)
    headers[0].shape[0] = 2
    with pytest.raises(RequestError, match=r"shape \(3, 3\) for .* of tensor 't', 3 of which are named, and"):
        check_announced(headers, (PART, OTHER), SHAPES, rows.announced_rows(headers, (PART, OTHER), TABLES))
    headers = slice_headers((PART, OTHER), SHAPES)
    headers[1].rows = b""
    with pytest.raises(RequestError, match="tensor 'w' are named, which is no table"):
        rows.announced_rows(headers, (PART, OTHER), TABLES)
    headers = slice_headers((PART,), SHAPES, named, name_rows=True)
    with pytest.raises(RequestError, match="Expected all of rows 100 to 109 of tensor 't', and found single"):
        check_announced(headers, (PART,), SHAPES)


def test_more_rows_than_a_header_may_have_are_refused_on_both_sides() -> None:
    huge = Slice("t", 0, rows.ROWS_MAX + 1, 0)
    every = np.arange(rows.ROWS_MAX + 1)
    message = pb.SliceRows(key="t", row_begin=0, row_end=huge.row_end, rows=rows.encode_rows(every))
    headers = slice_headers((huge,), {"t": (rows.ROWS_MAX + 1, 1)})
    headers[0].rows = message.rows
    for name in (
        lambda: rows.encode_wanted({huge: every}),
        lambda: rows.decode_wanted([message], (huge,), TABLES),
        lambda: rows.announced_rows(headers, (huge,), TABLES),
        lambda: slice_headers((huge,), {"t": (9,)}, {huge: every}, name_rows=True),
    ):
        with pytest.raises(RequestError, match=r"524,289 single rows .* at most 524,288") as refused:
            name()
        assert refused.value.fault is Fault.EXHAUSTED
    rows.encode_wanted({huge: every[:-1]})


def test_no_row_at_all_travels_too() -> None:
    none = {PART: indices()}
    headers = slice_headers((PART, OTHER), SHAPES, none, name_rows=True)
    assert list(headers[0].shape) == [0, 3]
    arrays = {part: np.full(travelling_shape(part, SHAPES, none), 7, np.float32) for part in (PART, OTHER)}
    got = {part: np.zeros_like(array) for part, array in arrays.items()}
    receiver = Receiver(got)
    message = pb.PushRequest(header=pb.PushHeader(slices=headers))
    for raw in encode_transfer(message, arrays.values()):
        receiver.feed(decode_transfer(pb.PushRequest, raw)[1])
    receiver.finish()
    assert got[OTHER].tolist() == [[7, 7], [7, 7]]
