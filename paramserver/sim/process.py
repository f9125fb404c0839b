"""A server as a process: it may be paused, and it may end and come back with nothing."""

from __future__ import annotations

from collections import deque
from typing import Any

from paramserver.sim.heap import Action, EventHeap


class Process:
    """One process.

    Args:
        heap: virtual time.

    Attributes:
        is_up: it has not ended, or is back.
        life: how often it has ended.
    """

    __slots__ = ("_heap", "_held", "_is_paused", "_resumes_at", "is_up", "life")

    def __init__(self, heap: EventHeap) -> None:
        self.is_up, self.life = True, 0
        self._heap = heap
        self._is_paused, self._resumes_at = False, 0
        self._held: deque[tuple[Action, Any]] = deque()

    def do(self, action: Action, argument: Any) -> None:
        """Call an action, now or in its turn once the process is not paused any more."""
        if self._is_paused:
            self._held.append((action, argument))
        else:
            action(argument)

    def pause(self, until: int) -> None:
        """Do nothing until then; what is under way ends no sooner."""
        self._is_paused, self._resumes_at = True, max(until, self._resumes_at)
        self._heap.at(until, self._resume, self.life)

    def end(self) -> None:
        """End, and forget what was still to be done."""
        self.is_up, self.life = False, self.life + 1
        self._is_paused, self._resumes_at = False, 0
        self._held.clear()

    def come_back(self) -> None:
        """Begin anew."""
        self.is_up = True

    def _resume(self, life: int) -> None:
        if life != self.life or not self._is_paused or self._heap.now < self._resumes_at:
            return
        self._is_paused = False
        held, self._held = self._held, deque()
        for action, argument in held:
            action(argument)
