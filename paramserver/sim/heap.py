"""Virtual time: what happens when, in integer nanoseconds.

To the next editor: times are integers, because sums of floats depend on their order and runs must be the
same bytes. What happens at one instant happens in the order in which it was scheduled; what is scheduled
for this very instant happens after all that was scheduled for it before. Therefore an instant is a list of
events, whose order is the sequence number that breaks ties; most have one event, and do without a list. Only
distinct instants go through the heap, and integers are compared faster than tuples with a sequence number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

Action = Callable[[Any], object]
"""What happens: called with the one argument that was scheduled with it."""

_Event = tuple[Action, Any]


@dataclass(slots=True, eq=False)
class Timer:
    """Something that will happen, unless it is cancelled first.

    Attributes:
        when: nanoseconds.
    """

    when: int
    _action: Action | None
    _argument: Any

    @property
    def pending(self) -> bool:
        """Say whether it is still to happen."""
        return self._action is not None

    def cancel(self) -> None:
        """Let it not happen; nothing changes if it has happened."""
        self._action = None

    def later(self, heap: EventHeap, duration: int) -> Timer:
        """Cancel it, and return one that lets the same happen so many nanoseconds later."""
        action, self._action = self._action, None
        assert action is not None, "What has happened cannot happen later."
        return heap.timer(self.when + duration, action, self._argument)

    def _fire(self, _: None) -> None:
        action, self._action = self._action, None
        if action is not None:
            action(self._argument)


class EventHeap:
    """Everything that is still to happen, by time.

    Attributes:
        now: the present instant, in nanoseconds; only `run` moves it.
        happened: how many events have happened, cancelled timers included.

    Example:
        >>> heap, seen = EventHeap(), []
        >>> heap.at(20, seen.append, "b"); heap.at(10, seen.append, "a"); heap.at(20, seen.append, "c")
        >>> heap.run()
        False
        >>> seen, heap.now
        (['a', 'b', 'c'], 20)
    """

    __slots__ = ("_at", "_instants", "_until", "happened", "now")

    def __init__(self) -> None:
        self.now = 0
        self.happened = 0
        self._instants: list[int] = []  # a heap of the keys of _at
        self._at: dict[int, _Event | list[_Event]] = {}
        self._until: float = 0  # how many events may have happened before `run` returns

    def at(self, when: int, action: Action, argument: Any = None) -> None:
        """Let something happen at an instant.

        Args:
            when: nanoseconds, not before now.
            action: called with the argument.
            argument: any one thing.
        """
        there = self._at.get(when)
        if there is None:
            assert when >= self.now, f"At {self.now} ns something was scheduled for {when} ns, which is over."
            self._at[when] = (action, argument)
            heappush(self._instants, when)
        elif isinstance(there, list):
            there.append((action, argument))
        else:
            self._at[when] = [there, (action, argument)]

    def timer(self, when: int, action: Action, argument: Any = None) -> Timer:
        """Let something happen at an instant, unless the timer is cancelled before."""
        timer = Timer(when, action, argument)
        self.at(when, timer._fire)
        return timer

    def stop(self) -> None:
        """Let `run` return once all that was scheduled for this instant before it began has happened."""
        self._until = -1

    def run(self, events: float = math.inf) -> bool:
        """Let everything happen, instant by instant, until nothing is left or somebody calls `stop`.

        Args:
            events: after so many it returns, too, once the instant is over.

        Returns:
            Whether there is more to come: it was these events that ended it.
        """
        instants, take = self._instants, self._at.pop
        self._until = self.happened + events
        while instants and self.happened < self._until:
            self.now = now = heappop(instants)
            several = take(now)
            if isinstance(several, tuple):
                self.happened += 1
                action, argument = several
                action(argument)
                continue
            self.happened += len(several)
            for action, argument in several:  # a wish for this very instant makes a new entry, which is next
                action(argument)
        return bool(instants) and self._until >= 0
