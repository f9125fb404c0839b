"""Frames: the grains of a journal. Each is whole or is not there.

A frame is a little-endian head (length of the payload as uint64, CRC-32 of kind and payload as uint32, kind
as one byte) and its payload. A process that dies, or a machine that loses power, can leave a torn frame at
the end of a file and nowhere else; reading ends before it.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Piece: TypeAlias = bytes | memoryview

MAGIC = b"PSJRNL1\n"
"""The first bytes of every file of frames."""

_HEAD = struct.Struct("<QIB")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: what kind it is of, and its payload."""

    kind: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one file.

    Attributes:
        frames: all that are whole, in order.
        sound_bytes: how many bytes of the file they take, its first ones included.
        digest: SHA-256 over the heads of the frames, which hold the checksums of all payloads.
        torn: why reading ended before the file's end, as a sentence; empty if it did not.
    """

    frames: tuple[Frame, ...]
    sound_bytes: int
    digest: bytes
    torn: str


class FrameDigest:
    """The running SHA-256 over the heads of a file's frames.

    Attributes:
        frames: how many there have been.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._sha256 = hashlib.sha256()

    def frame(self, kind: int, pieces: Sequence[Piece]) -> bytes:
        """Return the head of a frame, which counts from now on.

        Args:
            kind: 1 to 255.
            pieces: that make the payload, one after the other.
        """
        head = pack_head(kind, pieces)
        self._sha256.update(head)
        self.frames += 1
        return head

    def digest(self) -> bytes:
        """Return the digest of all frames so far, 32 bytes."""
        return self._sha256.digest()


def pack_head(kind: int, pieces: Iterable[Piece]) -> bytes:
    """Return the head of a frame with this payload."""
    crc, length = zlib.crc32(bytes((kind,))), 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
        length += len(piece)
    return _HEAD.pack(length, crc, kind)


def read_frames(data: bytes | memoryview, frames_max: int | None = None) -> Frames:
    """Read a file's bytes up to the first thing that is not sound.

    Args:
        data: of the whole file.
        frames_max: reading ends after so many frames; None: it does not.
    """
    view = memoryview(data)
    sha256 = hashlib.sha256()
    frames: list[Frame] = []
    if bytes(view[: len(MAGIC)]) != MAGIC:
        return Frames((), 0, sha256.digest(), "it does not begin as a journal does")
    begin, torn = len(MAGIC), ""
    while begin < len(view) and (frames_max is None or len(frames) < frames_max):
        head = view[begin : begin + _HEAD.size]
        if len(head) < _HEAD.size:
            torn = f"byte {begin} begins a frame whose head is cut off"
            break
        length, crc, kind = _HEAD.unpack(head)
        payload = view[begin + _HEAD.size : begin + _HEAD.size + length]
        if len(payload) < length:
            torn = f"byte {begin} begins a frame that is cut off"
            break
        if zlib.crc32(payload, zlib.crc32(bytes((kind,)))) != crc:
            torn = f"byte {begin} begins a frame whose checksum is another"
            break
        sha256.update(head)
        frames.append(Frame(kind, payload))
        begin += _HEAD.size + length
    return Frames(tuple(frames), begin, sha256.digest(), torn)
