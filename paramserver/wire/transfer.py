"""Arrays as messages full of chunks, and back.

The bytes of an array are copied once into a message here and once out of it: the few bytes around them are
written and read by hand, as the protobuf encoding (https://protobuf.dev/programming-guides/encoding/) says,
because the generated classes copy every chunk once more on each side. The messages are the same; a peer with
generated stubs alone sees no difference, and a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from paramserver.errors import RequestError
from paramserver.types import Array
from paramserver.wire import paramserver_pb2 as pb

CHUNK_BYTES_MAX = 1 << 20
"""Most data in one message. At 1 MiB a 100 MB tensor moves nine times as fast as in one message, and gRPC's
default limit of 4 MB per message is far away."""

INITIALISE = "/paramserver.v1.ParameterServer/Initialise"
PULL = "/paramserver.v1.ParameterServer/Pull"
PUSH = "/paramserver.v1.ParameterServer/Push"
"""The calls whose messages are encoded and decoded here.

Give gRPC no serialiser for that direction, so that it passes plain bytes, as in
``channel.unary_stream(PULL, pb.PullRequest.SerializeToString)``.
"""

Transfer = TypeVar("Transfer", pb.PullReply, pb.PushRequest, pb.InitialiseRequest)

_VARINT, _FIXED64, _BYTES, _GROUP_BEGIN, _GROUP_END, _FIXED32 = range(6)
_FIELD_MAX = (1 << 29) - 1
_GROUPS_MAX = 100  # inside each other; as the generated classes take them
_SLICE_TAG, _OFFSET_TAG, _DATA_TAG = 1 << 3 | _VARINT, 2 << 3 | _VARINT, 3 << 3 | _BYTES


class Run(NamedTuple):
    """One chunk as it came: which announced slice, at which byte, and a view of the message's bytes."""

    slice: int
    offset: int
    data: memoryview


def encode_transfer(
    first: pb.PullReply | pb.PushRequest | pb.InitialiseRequest, arrays: Iterable[Array]
) -> Iterator[bytes]:
    """Yield serialised messages that carry a header and arrays.

    Args:
        first: a message with its header and nothing else.
        arrays: float32 arrays of any shape, in the order in which the header announces them.

    Yields:
        Bytes of messages of the same kind, each with at most ``CHUNK_BYTES_MAX`` of data; the first begins
        with the header.
    """
    tag = bytes([_chunks_tag(type(first))])
    pieces: list[bytes | memoryview] = [first.SerializeToString()]
    space = CHUNK_BYTES_MAX
    for index, array in enumerate(arrays):
        data = np.ascontiguousarray(array, dtype="<f4").reshape(-1).data.cast("B")
        offset = 0
        while offset < len(data):
            if not space:
                yield b"".join(pieces)
                pieces.clear()
                space = CHUNK_BYTES_MAX
            part = data[offset : offset + space]
            inner = _chunk_prefix(index, offset, len(part))
            pieces += (tag + _varint(len(inner) + len(part)) + inner, part)
            offset += len(part)
            space -= len(part)
    yield b"".join(pieces)


def decode_transfer(kind: type[Transfer], raw: bytes) -> tuple[Transfer, list[Run]]:
    """Take a serialised message apart without copying its chunks.

    Args:
        kind: what the message is.
        raw: its bytes; the views in the answer keep them alive.

    Returns:
        The message without its chunks, and the chunks.

    Raises:
        RequestError: the bytes are no such message.

    Example:
        >>> first = pb.PushRequest(header=pb.PushHeader(shard=1))
        >>> raw = next(encode_transfer(first, [np.ones(2, np.float32)]))
        >>> message, runs = decode_transfer(pb.PushRequest, raw)
        >>> message.header.shard, runs[0].offset, len(runs[0].data)
        (1, 0, 8)
    """
    chunks_tag = _chunks_tag(kind)
    view = memoryview(raw)
    runs: list[Run] = []
    rest: list[memoryview] = []
    at, end = 0, len(raw)
    message = kind()
    try:
        while at < end:
            begin = at
            tag, at = _read_varint(raw, at)
            if tag == chunks_tag:
                size, at = _read_varint(raw, at)
                runs.append(_read_chunk(raw, view, at, at + size))
                at += size
            else:
                at = _skip(raw, at, tag)
                rest.append(view[begin:at])
        if at != end:
            raise ValueError("the last field is cut off")
        if rest:
            message.ParseFromString(b"".join(rest))
    except (ValueError, IndexError, DecodeError) as error:
        raise RequestError(
            f"A message of {end:,} bytes is not a {kind.DESCRIPTOR.name}: it was cut off, or is of another "
            "kind."
        ) from error
    return message, runs


def _chunks_tag(kind: type[pb.PullReply] | type[pb.PushRequest] | type[pb.InitialiseRequest]) -> int:
    """Return the tag of the field ``chunks``, which is one byte long: the field's number is below 16."""
    return kind.DESCRIPTOR.fields_by_name["chunks"].number << 3 | _BYTES


def _chunk_prefix(index: int, offset: int, size: int) -> bytes:
    """Return a chunk's bytes up to its data."""
    return b"".join(
        (
            bytes([_SLICE_TAG]) + _varint(index) if index else b"",
            bytes([_OFFSET_TAG]) + _varint(offset) if offset else b"",
            bytes([_DATA_TAG]) + _varint(size),
        )
    )


def _read_chunk(raw: bytes, view: memoryview, at: int, end: int) -> Run:
    if end > len(raw):
        raise ValueError("a chunk is cut off")
    index = offset = 0
    data = view[at:at]
    while at < end:
        tag, at = _read_varint(raw, at)
        if tag == _SLICE_TAG:
            index, at = _read_varint(raw, at)
        elif tag == _OFFSET_TAG:
            offset, at = _read_varint(raw, at)
        elif tag == _DATA_TAG:
            size, at = _read_varint(raw, at)
            data = view[at : at + size]
            at += size
        elif not 0 < tag >> 3 <= _FIELD_MAX:
            raise ValueError("a chunk's field without a number")
        else:
            at = _skip(raw, at, tag)
    if at != end:
        raise ValueError("a chunk's last field is cut off")
    return Run(_signed(index), _signed(offset), data)


def _varint(value: int) -> bytes:
    """Return a number, at least 0, in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place after it."""
    value = shift = 0
    while True:
        group = raw[at]
        at += 1
        value |= (group & 0x7F) << shift
        if group < 0x80:
            return value, at
        shift += 7
        if shift >= 70:  # ten groups of seven bits hold any 64-bit number
            raise ValueError("a number of more than 64 bits")


def _signed(value: int) -> int:
    """Return what an unsigned 64-bit number means as a signed one."""
    return value - (1 << 64) if value >> 63 else value


def _skip(raw: bytes, at: int, tag: int) -> int:
    """Return the place after the field whose tag has just been read."""
    wire_type = tag & 7
    if wire_type == _VARINT:
        return _read_varint(raw, at)[1]
    if wire_type == _BYTES:
        size, at = _read_varint(raw, at)
        return at + size
    if wire_type in (_FIXED64, _FIXED32):
        return at + (8 if wire_type == _FIXED64 else 4)
    if wire_type == _GROUP_BEGIN:
        return _skip_group(raw, at, tag >> 3)
    raise ValueError("a field of an unknown type")


def _skip_group(raw: bytes, at: int, field: int) -> int:
    """Return the place after a group, an old kind of field that a peer's own fields may still be."""
    groups = [field]
    while groups:
        tag, at = _read_varint(raw, at)
        if tag & 7 == _GROUP_BEGIN:
            if len(groups) == _GROUPS_MAX:
                raise ValueError("too many groups inside each other")
            groups.append(tag >> 3)
        elif tag & 7 != _GROUP_END:
            at = _skip(raw, at, tag)
        elif groups.pop() != tag >> 3:
            raise ValueError("a group that ends as another one")
    return at
