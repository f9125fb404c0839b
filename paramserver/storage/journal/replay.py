"""What a shard did, done again: the deployed shard, told once more what it was told.

A shard is deterministic and never looks at the values of tensors, so the light form is enough to see whether
each answer was the right one. The full form, from a checkpoint on, gives the weights, too, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from paramserver.events import (
    Cut,
    GenerationBegun,
    InitialiseReceived,
    JobAnnounced,
    PushReceived,
    Refused,
    ShardEffect,
    ShardEvent,
    ShardRecord,
    Slice,
    Snapshot,
)
from paramserver.shard import Shard
from paramserver.storage.journal.answers import light
from paramserver.storage.journal.records import Record
from paramserver.storage.journal.segments import Segment
from paramserver.types import Empty, empty

ReadCut = Callable[[int, tuple[Slice, ...]], Cut]
"""Reads the shard's part of a checkpoint, given its number and the slices."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One record, done again.

    Attributes:
        segment: in which it is.
        record: what the journal says.
        effects: what the shard did this time, reports and all; None for a request that was refused, which
            changes nothing and depends on more than the journal has.
        differs: it answered otherwise than the journal says.
    """

    segment: int
    record: Record
    effects: tuple[ShardEffect, ...] | None
    differs: bool


@dataclass(frozen=True, slots=True)
class Seam:
    """The beginning of a segment.

    Attributes:
        segment: that begins.
        is_new: the shard was made anew here, by a new process or since it is the first that is read.
        differs: the header says that the shard was something else than what replay has made of it.
    """

    segment: int
    is_new: bool
    differs: bool


class Replay:
    """Replays a shard's journal.

    Args:
        shard: the shard's number.
        read_cut: reads the cuts for exact weights; None: replay without any tensors.
        empty: makes the arrays that weights are written to.

    Attributes:
        shard: as it is by now.
    """

    def __init__(self, shard: int, read_cut: ReadCut | None = None, empty: Empty = empty) -> None:
        self.shard = Shard(shard, empty)
        self._read_cut = read_cut
        self._empty = empty

    def run(self, segments: Iterable[Segment], *, goes_on: bool = False) -> Iterator[Seam | Replayed]:
        """Replay segments in order; to be exact, the first has to begin at a checkpoint or at the start.

        Args:
            segments: to be replayed.
            goes_on: the first of them follows what was replayed before.
        """
        first = not goes_on
        for segment in segments:
            yield self.begin(segment, first=first)
            first = False
            for record in segment.records:
                yield self.again(segment.header.segment, record)

    def begin(self, segment: Segment, *, first: bool) -> Seam:
        """Begin a segment.

        Args:
            segment: whose header is taken.
            first: nothing before it was replayed.
        """
        header = segment.header
        record = header.record
        if header.follows and not first:
            return Seam(header.segment, False, _plain(self.shard.record()) != _plain(record))
        self.shard = Shard(header.shard, self._empty)
        if record is not None:
            if self._read_cut is None:
                self.shard.resume(_without_tensors(record), _empty_cut(header.shard, record))
            else:
                assert header.checkpoint is not None, "exact replay begins at a checkpoint"
                self.shard.resume(record, self._read_cut(header.checkpoint, record.slices))
        return Seam(header.segment, True, False)

    def again(self, segment: int, record: Record) -> Replayed:
        """Do one record again."""
        if any(isinstance(effect, Refused) and _asks(record.event, effect) for effect in record.effects):
            return Replayed(segment, record, None, False)
        effects = tuple(self.shard.handle(self._prepared(record.event), record.now))
        answers = tuple(answer for answer in map(light, effects) if answer is not None)
        return Replayed(segment, record, effects, answers != record.effects)

    def _prepared(self, event: ShardEvent) -> ShardEvent:
        """Return an event with the tensors that this replay works with."""
        if self._read_cut is not None:
            if isinstance(event, GenerationBegun) and event.checkpoint is not None:
                return replace(event, cut=self._read_cut(event.checkpoint, event.slices))
            return event
        match event:
            case JobAnnounced() | GenerationBegun():
                return replace(event, slices=())
            case PushReceived() if event.gradients:
                return replace(event, gradients={})
            case InitialiseReceived():
                return replace(event, values={})
            case _:
                return event


def _asks(event: ShardEvent, effect: Refused) -> bool:
    return getattr(event, "request", None) == effect.request


def _without_tensors(record: ShardRecord) -> ShardRecord:
    gathered = tuple(replace(push, gradients={}) for push in record.gathered)
    return replace(record, slices=(), gathered=gathered)


def _empty_cut(shard: int, record: ShardRecord) -> Cut:
    return Cut(shard, Snapshot(record.version, record.rounds, {}), {}, record.clocks, record.verdicts)


def _plain(record: ShardRecord | None) -> ShardRecord | None:
    """Return what two records of one shard have in common, whether they were made with tensors or without."""
    if record is None:
        return None
    waiting = tuple((replace(pull, rows={}), since) for pull, since in record.waiting)
    return replace(_without_tensors(record), waiting=waiting)
