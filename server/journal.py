"""The journal of one shard: noted by whoever is inside the shard, written by a thread of its own.

To the next editor: two promises meet here. In a job with ``durability journal`` an effect leaves the shard
only once the disk has the event that led to it, so nothing that anybody has heard can be lost. In all others
the journal is light and is for looking back alone: it may lag behind, it holds nothing up, and where the disk
refuses it ends with a warning and the training goes on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paramserver.errors import RequestError
from paramserver.events import (
    CutAsked,
    CutOrdered,
    GenerationBegun,
    JobAnnounced,
    ShardEffect,
    ShardEvent,
    Slice,
)
from paramserver.logs import fields
from paramserver.shard import Shard
from paramserver.storage import JournalLink
from paramserver.storage.journal import Header, Piece, SegmentWriter, encode, is_recorded

log = logging.getLogger("server")

LIGHT_SECONDS = 0.2
"""How long a light record may stay in this process."""

SEGMENTS_KEPT = 8
"""A light journal is cut into so many segments; the oldest is removed where a new one has no room."""


FINAL_CUT = -1
"""In place of a checkpoint's number: that of the one which is made once the job has ended."""

LINK_SECONDS = 5.0
"""How long a cut waits for its link; a disk that takes longer for a light journal is not worth the wait."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """Here the shard has made its cut of a checkpoint."""

    checkpoint: int
    pushes: Mapping[str, int]
    staleness: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class _Begin:
    """A segment begins here."""

    header: Header
    slices: Mapping[Slice, int]


class ShardJournal:
    """Notes what one shard is told and answers.

    Args:
        run: the run folder.
        shard: the shard's number.
        bytes_max: so much of a light journal is kept; 0: none is written.
        fail: called with a sentence, from any thread, where a full journal cannot be written.

    Attributes:
        released: called, from the writing thread, when more has been synced.
    """

    def __init__(self, run: Path, shard: int, bytes_max: int, fail: Callable[[str], None]) -> None:
        self.released: Callable[[], object] = lambda: None
        self._shard = shard
        self._fail = fail
        self._segment_bytes = bytes_max // SEGMENTS_KEPT
        self._writer = SegmentWriter(run, shard, bytes_max)
        self._full = False  # guarded by the shard's lock, and so is all up to _noted
        self._begun = False
        self._slices: dict[Slice, int] = {}
        self._bytes = 0  # of the records in the segment
        self._noted = 0  # records and segments so far
        # Filled inside, emptied by the thread.
        self._items: deque[_Begin | _Mark | tuple[int, list[Piece]]] = deque()
        self._linked = threading.Condition()
        self._links: dict[int, JournalLink | None] = {}  # by checkpoint; guarded by _linked
        self._stopped = False  # nothing is written any more; guarded by _linked
        self._synced = 0  # how many the disk has; set by the thread
        self._ended = False  # set once the disk has refused, or the journal is closed
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"journal-{shard}", daemon=True)
        self._thread.start()

    @property
    def noted(self) -> int:
        """How much has been noted; what the shard says now may leave once `synced` has come as far."""
        return self._noted if self._full else 0

    @property
    def synced(self) -> int:
        """How much the disk has."""
        return self._synced

    def note(self, event: ShardEvent, effects: Sequence[ShardEffect], now: float, shard: Shard) -> None:
        """Note an event that the shard has just handled; the shard's lock is held.

        Args:
            event: what it was told.
            effects: what came of it.
            now: seconds, as the shard was told.
            shard: as it is now.
        """
        if self._ended or not is_recorded(event):
            if isinstance(event, CutAsked) and self._begun and not self._ended:
                self._mark(FINAL_CUT, shard)
            return
        if isinstance(event, (JobAnnounced, GenerationBegun)):
            self._full = event.job.has_journal
            self._slices = {part: place for place, part in enumerate(event.slices)}
        if not (self._full or self._segment_bytes):
            return
        if not self._begun:
            self._begin(None, None)
        kind, pieces = encode(now, event, effects, self._slices, full=self._full)
        self._bytes += sum(map(len, pieces))
        self._append((kind, pieces))
        if isinstance(event, CutOrdered):
            self._mark(event.checkpoint, shard)
            self._begin(event.checkpoint, shard)
        elif self._bytes > self._segment_bytes and not self._full:
            self._begin(None, shard)
        if self._full:
            self._wake.set()

    def link(self, checkpoint: int) -> JournalLink | None:
        """Return where a cut was made, once the journal up to there has left this process.

        Blocks until then, but not for long.

        Args:
            checkpoint: whose cut, or `FINAL_CUT`.

        Returns:
            The place; None where there is no journal.
        """
        with self._linked:
            if checkpoint not in self._links:
                return None
            self._linked.wait_for(lambda: self._links[checkpoint] or self._stopped, LINK_SECONDS)
            return self._links.pop(checkpoint)

    def resume(self, shard: Shard) -> None:
        """Go on with the journal of a shard that has been made anew from it.

        Args:
            shard: as replay has left it.
        """
        record = shard.record()
        assert record is not None, "a shard without a job has nothing to go on with"
        self._full = record.job.has_journal
        self._slices = {part: place for place, part in enumerate(record.slices)}
        self._begin(None, shard)
        self._wake.set()

    def close(self) -> None:
        """Write what is left; blocks until that is done."""
        self._ended = True
        self._wake.set()
        self._thread.join()

    def _begin(self, checkpoint: int | None, shard: Shard | None) -> None:
        record = None if shard is None else shard.record()
        fingerprint = "" if record is None else record.job.fingerprint()
        header = Header(self._shard, 0, self._full, shard is not None, checkpoint, record, fingerprint)
        self._begun, self._bytes = True, 0
        self._append(_Begin(header, dict(self._slices)))

    def _mark(self, checkpoint: int, shard: Shard) -> None:
        """Let the writing thread say where the journal is now."""
        record = shard.record()
        if record is None:
            return
        with self._linked:
            self._links[checkpoint] = None
        self._append(_Mark(checkpoint, record.pushes, record.staleness))
        self._wake.set()

    def _append(self, item: _Begin | _Mark | tuple[int, list[Piece]]) -> None:
        self._items.append(item)
        self._noted += 1

    # ----------------------------------------------------------------------------------- the writing thread

    def _run(self) -> None:
        try:
            while not self._ended:
                self._wake.wait(None if self._full else LIGHT_SECONDS)
                self._wake.clear()
                self._write()
            self._write()
            self._writer.close()
        except (OSError, RequestError) as error:
            self._refused(error)
        finally:
            with self._linked:
                self._stopped = True
                self._linked.notify_all()

    def _write(self) -> None:
        """Write and sync all that is there: one wait for the disk, however much it is."""
        count = len(self._items)
        if not count:
            return
        frames: list[tuple[int, list[Piece]]] = []
        links: dict[int, JournalLink] = {}
        for _ in range(count):
            item = self._items.popleft()
            if isinstance(item, tuple):
                frames.append(item)
                continue
            if frames:
                self._writer.write(frames)
            frames = []
            if isinstance(item, _Begin):
                self._writer.begin(item.header, item.slices)
            else:
                place = self._writer.place
                links[item.checkpoint] = JournalLink(*place, item.pushes, item.staleness)
        if frames:
            self._writer.write(frames)
        if self._full:
            self._writer.sync()
        else:
            self._writer.flush()
        if links:
            with self._linked:
                self._links |= links
                self._linked.notify_all()
        self._synced += count
        if self._full:
            self.released()

    def _refused(self, error: OSError | RequestError) -> None:
        why = str(error) if isinstance(error, RequestError) else error.strerror or str(error)
        self._ended = True
        if self._full:
            self._fail(
                f"The journal of shard {self._shard} cannot be written: {why}. All that was answered is in "
                "it. Free some space and go on with this run."
            )
        else:
            log.warning(
                "The journal of shard %d cannot be written: %s. The training goes on without it.",
                self._shard,
                why,
                extra=fields(shard=self._shard),
            )
        self._items.clear()
