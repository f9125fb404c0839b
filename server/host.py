"""The one lock of a shard, and the doorway to it.

To the next editor: under the lock there is only ``Shard.handle``. Whatever can be done before it (receiving,
decoding, checking for NaN) or after it (encoding, logging, waking whoever waits) is done outside. More
concurrency is more shards, not finer locks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from paramserver.events import ShardEffect, ShardEvent, ShardStatistics
from paramserver.shard import Shard
from server.journal import ShardJournal
from server.trace import ShardTrace

log = logging.getLogger("server")


@dataclass(frozen=True, slots=True)
class Broken:
    """Handling an event raised what it must not raise: a mistake in this program."""

    shard: int
    event: ShardEvent
    error: Exception


@dataclass(frozen=True, slots=True)
class HostStatistics:
    """A shard's own statistics and its lock's.

    Attributes:
        shard: the shard's.
        lock_wait_seconds: total time that callers waited for the lock.
        lock_hold_seconds: total time that it was held.
    """

    shard: ShardStatistics
    lock_wait_seconds: float
    lock_hold_seconds: float


class ShardHost:
    """A shard behind its lock. Any thread may call; effects leave in the order in which the shard made them.

    Args:
        shard: owned by this host from now on.
        now: the clock that the shard is told, in seconds.
        trace: follows what the shard does; None where no trace is kept.
        journal: notes it, and says when effects may leave; None where there is no journal.
    """

    def __init__(
        self,
        shard: Shard,
        now: Callable[[], float] = time.monotonic,
        trace: ShardTrace | None = None,
        journal: ShardJournal | None = None,
    ) -> None:
        self.index = shard.index
        self._now = now
        self._lock = threading.Lock()
        self._shard = shard  # guarded by _lock
        self._trace = trace  # guarded by _lock
        self._wait_seconds = 0.0  # guarded by _lock
        self._hold_seconds = 0.0  # guarded by _lock
        self._journal = journal
        # With how much the journal must have before it leaves; filled under _lock, emptied by one thread.
        self._outbox: deque[tuple[int, ShardEffect | Broken]] = deque()

    def handle(self, event: ShardEvent) -> None:
        """Let the shard handle one event; blocks while another thread is inside."""
        asked = time.perf_counter()
        with self._lock:
            self._wait_seconds += time.perf_counter() - asked
            self._handle(event)

    def try_handle(self, event: ShardEvent) -> bool:
        """Let the shard handle one event if nobody is inside; say whether it did. Never blocks."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._handle(event)
        finally:
            self._lock.release()
        return True

    def effects(self) -> Iterator[ShardEffect | Broken]:
        """Take out the effects that may leave by now, oldest first. One thread at a time may do so."""
        journal = self._journal
        while self._outbox and (journal is None or self._outbox[0][0] <= journal.synced):
            yield self._outbox.popleft()[1]

    def when_released(self, call: Callable[[], object]) -> None:
        """Have this called, from any thread, when effects that had to wait for the disk may leave."""
        if self._journal is not None:
            self._journal.released = call

    def statistics(self) -> HostStatistics:
        """Return how the shard and its lock stand; blocks while another thread is inside."""
        with self._lock:
            return self._statistics()

    def try_statistics(self) -> HostStatistics | None:
        """Return how the shard and its lock stand; None while another thread is inside. Never blocks."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._statistics()
        finally:
            self._lock.release()

    def _handle(self, event: ShardEvent) -> None:
        assert self._lock.locked()
        entered = time.perf_counter()
        effects: Sequence[ShardEffect | Broken]
        try:
            now, began = self._now(), 0 if self._trace is None else self._trace.now()
            effects = told = self._shard.handle(event, now)
            if self._journal is not None:
                self._journal.note(event, told, now, self._shard)
            if self._trace is not None:
                effects = self._trace.note(event, told, began)
        except Exception as error:
            effects = [Broken(self.index, event, error)]
        due = 0 if self._journal is None else self._journal.noted
        self._outbox.extend((due, effect) for effect in effects)
        self._hold_seconds += time.perf_counter() - entered

    def _statistics(self) -> HostStatistics:
        assert self._lock.locked()
        return HostStatistics(self._shard.statistics(), self._wait_seconds, self._hold_seconds)


class Lane:
    """The event loop's way to a shard: events in order, no blocking, effects back on the loop.

    A cheap event is handled at once where the shard is free. Any other goes to a pool of threads, one thread
    at a time for each shard, and all that come meanwhile queue behind it, so orders stay in order. Confined
    to the event loop but for what the pool does.

    Args:
        host: the shard.
        pool: threads, shared by all lanes.
        wake: calls a function on the event loop, from any thread.
        deliver: gets each effect, on the event loop, in order.
    """

    def __init__(
        self,
        host: ShardHost,
        pool: Executor,
        wake: Callable[[Callable[[], None]], object],
        deliver: Callable[[ShardEffect | Broken], None],
    ) -> None:
        self.host = host
        self._pool = pool
        self._wake = wake
        self._deliver = deliver
        self._inbox: deque[ShardEvent] = deque()
        self._busy = False
        host.when_released(lambda: wake(self._drain))

    def submit(self, event: ShardEvent, *, cheap: bool) -> None:
        """Bring an event to the shard, after all earlier ones; its effects are delivered now or later.

        Args:
            event: for the shard.
            cheap: handling it takes much less than a millisecond.
        """
        if not self._busy and cheap and self.host.try_handle(event):
            self._drain()
            return
        self._inbox.append(event)
        if not self._busy:
            self._busy = True
            self._pool.submit(self._work, list(self._inbox))
            self._inbox.clear()

    def _work(self, events: list[ShardEvent]) -> None:
        """Handle events in a thread of the pool."""
        for event in events:
            self.host.handle(event)
            self._wake(self._drain)
        self._wake(self._rest)

    def _rest(self) -> None:
        """Go on with what has come meanwhile, if anything."""
        if self._inbox:
            self._pool.submit(self._work, list(self._inbox))
            self._inbox.clear()
        else:
            self._busy = False

    def _drain(self) -> None:
        for effect in self.host.effects():
            self._deliver(effect)
