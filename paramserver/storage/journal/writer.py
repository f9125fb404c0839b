"""Write one shard's journal: segments that are begun, grown, synced and in the end removed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from paramserver.events import Slice
from paramserver.storage.atomic import sync_folder
from paramserver.storage.cuts import oldest_checkpoint
from paramserver.storage.journal.frames import MAGIC, FrameDigest, Piece, read_frames
from paramserver.storage.journal.segments import (
    Header,
    cut_off_torn_tail,
    first_needed,
    header_pieces,
    journal_folder,
    read_header,
    segment_numbers,
    segment_path,
)

_BUFFER_BYTES = 1 << 18


class SegmentWriter:
    """The files of one shard's journal, for one writer. Every method may raise `OSError`.

    Args:
        run: the run folder.
        shard: whose journal.
        bytes_max: so much of a light journal is kept; the newest segment in any case.
    """

    def __init__(self, run: Path, shard: int, bytes_max: int) -> None:
        self._run = run
        self._shard = shard
        self._folder = journal_folder(run, shard)
        self._bytes_max = bytes_max
        self._file: BinaryIO | None = None
        self._digest = FrameDigest()
        self._headers: dict[int, Header] = {}  # of the segments that there are
        self._bytes: dict[int, int] = {}  # of each of them
        self._segment = -1
        self._dirty = False

    def begin(self, header: Header, slices: Mapping[Slice, int]) -> None:
        """Begin the next segment; the one before is whole from now on.

        Args:
            header: of the segment; its number and what it says of the one before are filled in here.
            slices: the place of each slice among those of the shard.
        """
        if self._file is None:
            previous, torn = self._take_over()
        else:
            previous, torn = self._digest.digest().hex(), 0
            self._finish()
        self._segment += 1
        header = replace(header, segment=self._segment, previous=previous, torn=torn)
        self._digest = FrameDigest()
        self._file = segment_path(self._folder, self._segment).open("xb", _BUFFER_BYTES)
        self._bytes[self._segment] = self._file.write(MAGIC)
        self._headers[self._segment] = header
        self.write(header_pieces(header, slices))
        if header.full:
            sync_folder(self._folder)
        self._remove_old(header.full)

    def write(self, frames: Iterable[tuple[int, Sequence[Piece]]]) -> None:
        """Append frames; `flush` or `sync` brings them out of this process."""
        assert self._file is not None, "a segment has to be begun first"
        for kind, pieces in frames:
            self._file.write(self._digest.frame(kind, pieces))
            for piece in pieces:
                self._file.write(piece)
        self._dirty = True

    @property
    def place(self) -> tuple[int, int, str]:
        """The present segment, how many frames it has, and their digest in hexadecimal."""
        return self._segment, self._digest.frames, self._digest.digest().hex()

    def flush(self) -> None:
        """Give the system what was written: it survives this process, but not a loss of power."""
        if self._file is not None and self._dirty:
            self._file.flush()
            self._bytes[self._segment] = self._file.tell()
            self._dirty = False

    def sync(self) -> None:
        """Wait until the disk has what was written."""
        if self._file is not None:
            self.flush()
            getattr(os, "fdatasync", os.fsync)(self._file.fileno())

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _finish(self) -> None:
        assert self._file is not None
        if self._headers[self._segment].full:
            self.sync()
        else:
            self.flush()
        self._file.close()

    def _take_over(self) -> tuple[str, int]:
        """Look at what an earlier process has left; return its digest, and how many bytes were torn."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in (self._folder, self._folder.parent, self._run):
            sync_folder(folder)
        numbers = segment_numbers(self._folder)
        if not numbers:
            return "", 0
        for number in numbers[:-1]:
            path = segment_path(self._folder, number)
            self._headers[number], self._bytes[number] = read_header(path), path.stat().st_size
        self._segment = numbers[-1]
        path = segment_path(self._folder, self._segment)
        found = read_frames(path.read_bytes())
        torn = cut_off_torn_tail(path, found.sound_bytes)
        self._bytes[self._segment] = found.sound_bytes
        if found.frames:
            self._headers[self._segment] = read_header(path)
            return found.digest.hex(), torn
        # It was torn before its header was whole, so there never was such a segment.
        torn += found.sound_bytes
        path.unlink()
        del self._bytes[self._segment]
        self._segment -= 1
        if self._segment not in self._headers:
            return "", torn
        return read_frames(segment_path(self._folder, self._segment).read_bytes()).digest.hex(), torn

    def _remove_old(self, full: bool) -> None:
        if full:
            oldest = oldest_checkpoint(self._run)
            needed = 0 if oldest is None else first_needed(self._headers.values(), oldest)
        else:
            needed, size = self._segment, self._bytes[self._segment]
            while needed - 1 in self._bytes and size + self._bytes[needed - 1] <= self._bytes_max:
                needed -= 1
                size += self._bytes[needed]
        for number in [number for number in self._headers if number < needed]:
            segment_path(self._folder, number).unlink(missing_ok=True)
            del self._headers[number], self._bytes[number]
