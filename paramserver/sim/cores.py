"""The cores of one machine, shared by all who have something to compute on it.

While no more work is under way than there are cores, each piece goes at full speed. Beyond that all go
equally slower (processor sharing: Kleinrock, *Queueing Systems* II, 1976, section 4.4), which is what a fair
scheduler with short time slices comes to.

To the next editor: every piece of work has to reach its own amount of *progress*, which grows equally for
all. So who ends first is known without looking at the others, and a piece costs the logarithm of their
number. Progress is counted in whole parts of a nanosecond, so that a run is the same bytes everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from paramserver.sim.heap import Action, EventHeap

PARTS = 1 << 20
"""Of a nanosecond of progress: rounding costs less than a nanosecond in a million events."""

THOUSAND = 1000
"""Cores are counted in thousandths."""


@dataclass(slots=True, eq=False)
class Work:
    """Something that is being computed.

    Attributes:
        end: the progress at which it is done; nanoseconds from now on where cores are not shared.
        action: called when it is done; None once it has been cancelled.
        argument: of the action.
    """

    end: int
    action: Action | None
    argument: Any

    @property
    def pending(self) -> bool:
        """Say whether it is still under way."""
        return self.action is not None


class Cores:
    """Who computes, and how fast.

    Args:
        heap: virtual time.
        count: cores that are shared, such as 2 or 1.7; None where everyone has a core to itself.
    """

    __slots__ = (
        "_active",
        "_busy",
        "_changes",
        "_heap",
        "_milli",
        "_progress",
        "_queue",
        "_since",
        "_started",
    )

    def __init__(self, heap: EventHeap, count: float | None) -> None:
        self._heap = heap
        self._milli = None if count is None else round(count * THOUSAND)
        self._active = 0
        self._busy = 0  # thousandths of a core, times nanoseconds
        self._progress = 0  # in parts of a nanosecond, of everyone who is under way
        self._since = 0  # when that was so
        self._started = 0
        self._changes = 0
        self._queue: list[tuple[int, int, Work]] = []

    @property
    def shared(self) -> bool:
        """Say whether anybody has to share."""
        return self._milli is not None

    @property
    def busy_ns(self) -> int:
        """Return what all cores together have computed, in nanoseconds of one; 0 where nobody shares."""
        if self._milli is None:
            return 0
        return (self._busy + (self._heap.now - self._since) * self._used()) // THOUSAND

    def _used(self) -> int:
        assert self._milli is not None
        return min(self._active * THOUSAND, self._milli)

    def begin(self, duration: int, action: Action, argument: Any = None) -> Work:
        """Begin something that takes so many nanoseconds of a core for itself; call the action at its end."""
        if self._milli is None:
            work = Work(self._heap.now + duration, action, argument)
            self._heap.at(work.end, self._end_alone, work)
            return work
        self._advance()
        work = Work(self._progress + duration * PARTS, action, argument)
        self._started += 1
        heappush(self._queue, (work.end, self._started, work))
        self._active += 1
        self._schedule()
        return work

    def cancel(self, work: Work) -> int:
        """Let it not go on; return how much was left, in nanoseconds; 0 if it is done already."""
        if work.action is None:
            return 0
        work.action = None
        if self._milli is None:
            return work.end - self._heap.now
        self._advance()
        self._active -= 1
        self._schedule()
        return -(-max(0, work.end - self._progress) // PARTS)

    def _end_alone(self, work: Work) -> None:
        action, work.action = work.action, None
        if action is not None:
            action(work.argument)

    def _advance(self) -> None:
        """Count the progress since the last change."""
        now = self._heap.now
        if self._active:
            share = self._used()
            self._busy += (now - self._since) * share
            self._progress += (now - self._since) * PARTS * share // (self._active * THOUSAND)
        self._since = now

    def _schedule(self) -> None:
        """Wake when the next one is done, unless something changes before."""
        queue = self._queue
        while queue and queue[0][2].action is None:
            heappop(queue)
        self._changes += 1
        if queue:
            share = self._used()
            left = max(0, queue[0][0] - self._progress)
            wait = -(-left * self._active * THOUSAND // (share * PARTS))
            self._heap.at(self._since + wait, self._wake, self._changes)

    def _wake(self, changes: int) -> None:
        if changes != self._changes:
            return
        self._advance()
        queue, done = self._queue, list[tuple[Action, Any]]()
        while queue and (queue[0][2].action is None or queue[0][0] <= self._progress):
            work = heappop(queue)[2]
            action, work.action = work.action, None
            if action is not None:
                done.append((action, work.argument))
                self._active -= 1
        self._schedule()
        for action, argument in done:
            action(argument)
