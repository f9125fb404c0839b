"""What a shard's handler writes into a trace, and what it tells readers for theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from paramserver.diaries import Gathered, ShardDiary
from paramserver.events import (
    NOBODY,
    MembershipChanged,
    PullGranted,
    PullReceived,
    PushReceived,
    RoundClosed,
    ShardEffect,
    ShardEvent,
)


class ShardTrace:
    """Follows one shard; whoever holds its lock calls.

    Args:
        diary: where to write.
        now: the time, in nanoseconds of the trace.
    """

    def __init__(self, diary: ShardDiary, now: Callable[[], int]) -> None:
        self.now = now
        self._diary = diary
        self._gathered = Gathered()
        self._last = NOBODY  # whose push came last

    def note(self, event: ShardEvent, effects: Sequence[ShardEffect], began: int) -> Sequence[ShardEffect]:
        """Write down what an event has brought about.

        Args:
            event: that the shard has just handled.
            effects: what came of it.
            began: when it began to handle it.

        Returns:
            The effects; those that grant a replica's pull say what they let it see, and who released it.
        """
        applied = self._gathered.applied(event, effects)
        if applied:
            self._diary.applied(began, self.now(), applied)
        cause = self._cause(event)
        if isinstance(event, PullReceived) and event.replica is None:
            return effects  # an observer has no row
        return [
            replace(effect, released_by=cause, sees=self._diary.see())
            if isinstance(effect, PullGranted)
            else effect
            for effect in effects
        ]

    def _cause(self, event: ShardEvent) -> int:
        """Return the rank whose push an event brings to its effect, or `NOBODY`."""
        match event:
            case PushReceived():
                self._last = event.replica.rank
                return self._last
            case RoundClosed():
                return self._last  # the push that came last, or, after a death, nobody's
            case MembershipChanged():
                self._last = NOBODY
        return NOBODY
