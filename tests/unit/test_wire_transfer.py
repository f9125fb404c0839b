"""Chunks by hand are the same messages as by the generated classes, and arrive in the right place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from paramserver.errors import Fault, RequestError
from paramserver.events import Slice
from paramserver.placement import slice_shape
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.receive import (
    NotFiniteError,
    Receiver,
    bytes_of,
    check_announced,
    slice_headers,
)
from paramserver.wire.transfer import CHUNK_BYTES_MAX, Run, decode_transfer, encode_transfer

KINDS: list[Any] = [pb.PullReply, pb.PushRequest, pb.InitialiseRequest]
SHAPES = {"a": (5, 3), "b": (), "c": (600, 1000)}
SLICES = (Slice("a", 0, 2, 0), Slice("a", 2, 5, 1), Slice("b", 0, 1, 1), Slice("c", 0, 600, 1))


def headed(kind: Any) -> Any:
    """Return a message of a kind with a header and no chunks."""
    message = kind()
    if kind is pb.PullReply:
        message.header.CopyFrom(pb.PullHeader(version=3, slices=slice_headers(SLICES, SHAPES)))
    elif kind is pb.PushRequest:
        message.header.CopyFrom(pb.PushHeader(shard=1, sequence=2, slices=slice_headers(SLICES, SHAPES)))
    else:
        message.header.CopyFrom(pb.InitialiseHeader(shard=1, initialiser="x"))
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_messages_by_hand_are_those_of_the_generated_classes(kind: Any) -> None:
    rng = np.random.default_rng(0)
    sizes = (0, 1, 31, 32, 33, CHUNK_BYTES_MAX // 4, 700_000)
    arrays = [rng.normal(size=size).astype(np.float32) for size in sizes]
    data = [b""] * len(arrays)
    raws = list(encode_transfer(headed(kind), arrays))
    for place, raw in enumerate(raws):
        by_class = kind.FromString(raw)
        assert by_class.SerializeToString() == raw
        message, runs = decode_transfer(kind, raw)
        assert runs == [Run(chunk.slice, chunk.offset, memoryview(chunk.data)) for chunk in by_class.chunks]
        assert sum(len(run.data) for run in runs) <= CHUNK_BYTES_MAX
        by_class.ClearField("chunks")
        assert message == by_class
        assert message.HasField("header") == (place == 0)
        for chunk in runs:
            assert chunk.offset == len(data[chunk.slice])
            data[chunk.slice] += bytes(chunk.data)
    assert data == [array.tobytes() for array in arrays]
    assert len(raws) == -(-sum(array.nbytes for array in arrays) // CHUNK_BYTES_MAX)


def test_a_header_alone_is_one_message() -> None:
    assert list(encode_transfer(headed(pb.PushRequest), [])) == [headed(pb.PushRequest).SerializeToString()]


@given(st.binary(max_size=64))
@example(b"kl")  # an empty group
@example(b"ksl")  # one that ends as another
@example(bytes.fromhex("1a 02 6b 6c"))  # one in a chunk's place
@example(bytes.fromhex("12 02 6b 6c"))  # one in a chunk
@example(bytes.fromhex("12 02 02 00"))  # a field without a number in a chunk
@example(b"k" * 60)
def test_any_bytes_are_read_as_the_generated_class_reads_them_or_refused(raw: bytes) -> None:
    try:
        message, runs = decode_transfer(pb.PushRequest, raw)
    except RequestError:
        with pytest.raises(DecodeError):
            pb.PushRequest.FromString(raw)
        return
    by_class = pb.PushRequest.FromString(raw)
    assert [(run.slice, run.offset, bytes(run.data)) for run in runs] == [
        (chunk.slice, chunk.offset, chunk.data) for chunk in by_class.chunks
    ]
    by_class.ClearField("chunks")
    assert message == by_class


@pytest.mark.parametrize("depth", [50, 100_000])
def test_groups_inside_groups_are_skipped_or_refused_but_never_too_deep(depth: int) -> None:
    raw = b"k" * depth + b"l" * depth
    if depth == 50:
        assert decode_transfer(pb.PushRequest, raw) == (pb.PushRequest.FromString(raw), [])
        return
    for read in (lambda: decode_transfer(pb.PushRequest, raw), lambda: pb.PushRequest.FromString(raw)):
        with pytest.raises((RequestError, DecodeError)):
            read()


@given(
    st.lists(
        st.builds(
            pb.Chunk,
            slice=st.integers(-(2**31), 2**31 - 1),
            offset=st.integers(-(2**63), 2**63 - 1),
            data=st.binary(max_size=300),
        )
    ),
    st.integers(0, 2**63 - 1),
)
def test_any_chunks_of_a_peer_are_read(chunks: list[pb.Chunk], sequence: int) -> None:
    message = pb.PushRequest(header=pb.PushHeader(sequence=sequence), chunks=chunks)
    read, runs = decode_transfer(pb.PushRequest, message.SerializeToString())
    assert read.header.sequence == sequence
    assert [(run.slice, run.offset, bytes(run.data)) for run in runs] == [
        (chunk.slice, chunk.offset, chunk.data) for chunk in chunks
    ]


def test_every_cut_of_a_message_is_refused_or_is_a_shorter_message() -> None:
    raw = next(encode_transfer(headed(pb.PushRequest), [np.ones(100, np.float32)]))
    for size in range(len(raw)):
        try:
            read, runs = decode_transfer(pb.PushRequest, raw[:size])
        except RequestError:
            continue
        by_class = pb.PushRequest.FromString(raw[:size])
        assert (read.HasField("header"), len(runs)) == (by_class.HasField("header"), len(by_class.chunks))


@given(st.data())
def test_a_receiver_puts_any_cut_into_place(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 40), max_size=4))
    slices = [Slice(f"t{index}", 0, size, 0) for index, size in enumerate(sizes)]
    sent = {part: np.arange(part.row_end, dtype=np.float32) + 1 for part in slices}
    got = {part: np.zeros(part.row_end, np.float32) for part in slices}
    receiver = Receiver(got, finite_from="replica 1")
    for index, array in enumerate(sent.values()):
        raw, offset = array.tobytes(), 0
        while offset < len(raw):
            size = 4 * data.draw(st.integers(1, (len(raw) - offset) // 4))
            receiver.feed([Run(index, offset, memoryview(raw)[offset : offset + size])])
            offset += size
    receiver.finish()
    for part in slices:
        assert np.array_equal(got[part], sent[part])


def test_a_receiver_writes_into_rows_of_a_whole_tensor() -> None:
    whole = np.zeros((5, 3), np.float32)
    receiver = Receiver({Slice("a", 2, 5, 1): whole[2:5]})
    message = headed(pb.PushRequest)
    for raw in encode_transfer(message, [np.ones((3, 3), np.float32)]):
        receiver.feed(decode_transfer(pb.PushRequest, raw)[1])
    receiver.finish()
    assert whole.sum(axis=1).tolist() == [0, 0, 3, 3, 3]


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.float32)[:, :2], np.zeros(4), np.broadcast_to(np.float32(1), (4,))]
)
def test_a_receiver_takes_no_array_that_its_bytes_would_miss(array: Any) -> None:
    with pytest.raises(ValueError, match="writable float32"):
        Receiver({Slice("a", 0, 4, 0): array})


def test_without_the_check_any_value_is_taken_and_with_it_none_that_is_not_finite() -> None:
    part = Slice("a", 0, 3, 0)
    raw = memoryview(np.array([1, np.nan, np.inf], np.float32).tobytes())
    got = np.zeros(3, np.float32)
    Receiver({part: got}).feed([Run(0, 0, raw)])
    assert np.isnan(got[1])
    with pytest.raises(NotFiniteError, match=r"'a' from replica 4 holds nan at element 1"):
        Receiver({part: got}, finite_from="replica 4").feed([Run(0, 0, raw)])


def test_the_announcement_of_a_shard_is_accepted_and_any_other_is_not() -> None:
    slices = SLICES[1:]
    right = slice_headers(slices, SHAPES)
    check_announced(right, slices, SHAPES)
    arrays = [np.empty(slice_shape(SHAPES[part.key], part), np.float32) for part in slices]
    assert bytes_of(slices, SHAPES) == sum(array.nbytes for array in arrays)
    with pytest.raises(RequestError, match=r"Expected 3 slices, and found 2: rows 0 to 599 of tensor 'c'"):
        check_announced(right[:2], slices, SHAPES)
    with pytest.raises(RequestError, match=r"Expected 2 slices, and found 3: rows 0 to 599 of tensor 'c'"):
        check_announced(right, slices[:2], SHAPES)
    with pytest.raises(RequestError, match="Expected rows 2 to 4 of tensor 'a'"):
        check_announced(right[::-1], slices, SHAPES)
    right[0].key = "aa"
    with pytest.raises(RequestError, match="Did you mean 'a'") as raised:
        check_announced(right, slices, SHAPES)
    assert raised.value.fault is Fault.UNKNOWN
