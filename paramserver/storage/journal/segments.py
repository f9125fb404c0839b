"""The segments of one shard's journal: files of frames, one after the other, each linked to the one before.

A segment begins where the shard made a cut, where a generation began, where its server began, or where the
one before had become too long. Its header says what the shard was at that moment, so reading can begin with
any segment; and it has the digest of the one before, so none can be missing, changed or cut short unseen.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from paramserver.errors import RequestError
from paramserver.events import GenerationBegun, JobAnnounced, PushReceived, ShardRecord, Slice
from paramserver.storage.journal.frames import Frames, Piece, read_frames
from paramserver.storage.journal.plain import dump, plain_record, record_of
from paramserver.storage.journal.records import GATHERED, Record, decode, pack_gathered

JOURNAL = "journal"
SUFFIX = ".journal"
HEADER = 1
"""The kind of a segment's first frame."""

FORMAT_VERSION = 1
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says first.

    Attributes:
        shard: whose journal it is.
        segment: its number, from 0.
        full: pushes have their tensors.
        follows: the shard goes on from the end of the segment before; else it was made anew by a new process.
        checkpoint: whose cut has the shard's weights at this moment; None where none has.
        record: what the shard was at this moment; None before it knew the job.
        fingerprint: of the job; empty before it was known.
        previous: the digest of the segment before, in hexadecimal; empty for the first.
        torn: how many bytes were cut off the end of the segment before, since their writing was interrupted.
    """

    shard: int
    segment: int
    full: bool
    follows: bool
    checkpoint: int | None
    record: ShardRecord | None
    fingerprint: str = ""
    previous: str = ""
    torn: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that has been read.

    Attributes:
        path: of its file.
        header: what it says first, with the gradients that the shard had gathered.
        records: all that are whole, in order.
        sound_bytes: how many bytes of the file are sound.
        digest: that the next segment has as its ``previous``, in hexadecimal.
        torn: why reading ended before the file's end; empty if it did not.
    """

    path: Path
    header: Header
    records: tuple[Record, ...]
    sound_bytes: int
    digest: str
    torn: str


def journal_folder(run: Path, shard: int) -> Path:
    """Return where a shard's journal lies."""
    return run / JOURNAL / f"shard-{shard:04d}"


def segment_path(folder: Path, segment: int) -> Path:
    """Return the file of a segment."""
    return folder / f"{segment:06d}{SUFFIX}"


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments in a journal's folder, ascending; none where there is no folder."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
    stems = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def header_pieces(header: Header, slices: Mapping[Slice, int]) -> list[tuple[int, list[Piece]]]:
    """Return the frames that begin a segment: its header, then what the shard had gathered."""
    record = header.record
    value = {
        "format_version": FORMAT_VERSION,
        "shard": header.shard,
        "segment": header.segment,
        "full": header.full,
        "follows": header.follows,
        "checkpoint": header.checkpoint,
        "fingerprint": header.fingerprint,
        "previous": header.previous,
        "torn": header.torn,
        "record": None if record is None else plain_record(record),
    }
    frames: list[tuple[int, list[Piece]]] = [(HEADER, [dump(value)])]
    for push in () if record is None else record.gathered:
        frames.append((GATHERED, pack_gathered(push, slices, full=header.full)))
    return frames


def read_segment(path: Path) -> Segment:
    """Read a segment up to the first thing that is not sound.

    Raises:
        RequestError: it cannot be read, or has no sound header.
    """
    found = _frames(path)
    header = _header(path, found)
    slices: Sequence[Slice] = header.record.slices if header.record is not None else ()
    gathered: list[PushReceived] = []
    records: list[Record] = []
    try:
        for frame in found.frames[1:]:
            record = decode(frame.kind, frame.payload, slices)
            if frame.kind == GATHERED:
                assert isinstance(record.event, PushReceived)
                gathered.append(record.event)
                continue
            if isinstance(record.event, JobAnnounced | GenerationBegun):
                slices = record.event.slices
            records.append(record)
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise RequestError(
            f"Record {len(records)} of {path} is not what this release writes ({error!r})."
        ) from None
    if header.record is not None:
        header = replace(header, record=replace(header.record, gathered=tuple(gathered)))
    return Segment(path, header, tuple(records), found.sound_bytes, found.digest.hex(), found.torn)


def read_header(path: Path) -> Header:
    """Read what a segment says first, without what the shard had gathered.

    Raises:
        RequestError: it cannot be read, or has no sound header.
    """
    return _header(path, _frames(path))


def read_journal(folder: Path) -> list[Segment]:
    """Read all segments of a shard's journal, oldest first, and see that they link up.

    Raises:
        RequestError: one cannot be read, is missing, or is not the one that the next follows. Only the last
            one, and one whose successor says so, may be torn.
    """
    segments = [read_segment(segment_path(folder, number)) for number in segment_numbers(folder)]
    for before, after in pairwise(segments):
        check_link(before, after)
    return segments


def check_link(before: Segment, after: Segment) -> None:
    """See that one segment follows another.

    Raises:
        RequestError: it does not; the sentence says what is wrong.
    """
    if after.header.segment != before.header.segment + 1:
        raise RequestError(f"Between {before.path} and {after.path.name} a segment is missing.")
    if before.torn and not after.header.torn:
        raise RequestError(f"{before.path} has been changed or cut off since it was written: {before.torn}.")
    if after.header.previous != before.digest:
        raise RequestError(
            f"{after.path} does not follow {before.path.name}, which has been changed or cut off since."
        )


def cut_off_torn_tail(path: Path, sound: int) -> int:
    """Cut off what follows the sound bytes of a segment, and return how many bytes that were."""
    torn = path.stat().st_size - sound
    if torn > 0:
        with path.open("r+b") as file:
            file.truncate(sound)
    return max(torn, 0)


def first_needed(headers: Iterable[Header], oldest_checkpoint: int) -> int:
    """Return the first segment that is needed to go on from any checkpoint that is kept.

    Args:
        headers: of all segments, ascending.
        oldest_checkpoint: the oldest checkpoint that is kept.
    """
    needed = 0
    for header in headers:
        if header.checkpoint is not None and header.checkpoint <= oldest_checkpoint:
            needed = header.segment
    return needed


def _frames(path: Path) -> Frames:
    try:
        return read_frames(path.read_bytes())
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from None


def _header(path: Path, found: Frames) -> Header:
    if not found.frames or found.frames[0].kind != HEADER:
        raise RequestError(f"{path} has no sound header: {found.torn or 'it begins with another frame'}.")
    try:
        value: dict[str, Any] = json.loads(bytes(found.frames[0].payload))
        if value.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another format_version")
        record = value.pop("record")
        return Header(**value, record=None if record is None else record_of(record))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(f"The header of {path} is not what this release writes ({error!r}).") from None
