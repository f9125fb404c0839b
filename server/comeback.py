"""A shard that comes back: its newest checkpoint, and all that its journal has since."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from paramserver.errors import RequestError
from paramserver.events import Cut, Slice
from paramserver.placement import place
from paramserver.shard import Shard
from paramserver.storage import checkpoint_folder, newest_checkpoint, read_cut
from paramserver.storage.journal import (
    Replay,
    check_link,
    journal_folder,
    read_header,
    read_segment,
    segment_numbers,
    segment_path,
)
from paramserver.types import Empty

log = logging.getLogger("server")


def come_back(run: Path, shard: int, shards: int, empty: Empty) -> Shard | None:
    """Make a shard what it was when it last said something; blocks for as long as its journal is long.

    Args:
        run: the run folder.
        shard: the shard's number.
        shards: how many there are now.
        empty: makes the arrays that weights are written to.

    Returns:
        The shard; None where there is no full journal, or none that leads anywhere or is of as many shards as
        there are now, which is said in the log.
    """
    folder = journal_folder(run, shard)
    numbers = segment_numbers(folder)
    try:
        first = _first(run, folder, numbers)
        if first is None:
            return None
        replay = Replay(shard, partial(_read_cut, run, shard), empty)
        before = None
        for number in numbers[numbers.index(first) :]:
            segment = read_segment(segment_path(folder, number))
            if before is not None:
                check_link(before, segment)
            for each in replay.run([segment], goes_on=before is not None):
                if each.differs:
                    raise RequestError(f"{segment.path} does not lead to what it says it has led to.")
            before = segment
    except RequestError as error:
        log.error("Shard %d cannot go on from its journal. %s", shard, error)
        return None
    record = replay.shard.record()
    if record is None:
        return None
    if record.slices != tuple(part for part in place(record.job.tensors, shards) if part.shard == shard):
        log.warning("Shard %d has a journal of another number of shards, and cannot go on from it.", shard)
        return None
    log.info("Shard %d goes on at version %d, from its journal.", shard, record.version)
    return replay.shard


def _first(run: Path, folder: Path, numbers: list[int]) -> int | None:
    """Return the segment that begins at the newest checkpoint, or else with the job; None for no full one."""
    try:
        newest, _ = newest_checkpoint(run)
    except RequestError:
        newest = -1
    for number in reversed(numbers):
        try:
            header = read_header(segment_path(folder, number))
        except RequestError:
            if number == numbers[-1]:
                numbers.remove(number)  # it was torn before its header was whole
                continue
            raise
        if not header.full:
            return None
        if header.checkpoint == newest or (header.record is None and not header.follows):
            return number
    return None


def _read_cut(run: Path, shard: int, checkpoint: int, slices: Sequence[Slice]) -> Cut:
    return read_cut(checkpoint_folder(run, checkpoint), shard, slices)
