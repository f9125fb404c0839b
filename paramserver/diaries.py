"""What replicas and shards write into a trace, whatever clock they live by.

To the next editor: real and virtual time both record through these two classes, and nothing else knows how
spans are named, what their notes say, or where arrows begin and end. So two traces of one job differ in their
times alone. Neither class reads a clock: whoever writes says what time it is, in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paramserver.events import (
    NOBODY,
    Outcome,
    PushAnswered,
    PushReceived,
    Replica,
    RoundClosed,
    ShardEffect,
    ShardEvent,
    Verdict,
)
from paramserver.tracing import Arrow, Note, Recorder, Row, Span


def shard_row(server: int, shard: int) -> Row:
    """Return the row of a shard's handler."""
    return Row(f"server{server}", f"shard {shard}")


def replica_row(name: str) -> Row:
    """Return the row of a replica's thread.

    Example:
        >>> replica_row("worker0/1")
        Row(process='worker0', thread='worker0/1')
    """
    return Row(name.partition("/")[0], name)


def push_name(replica: Replica, sequence: int, shard: int) -> str:
    """Name a push's way to one shard: its arrow."""
    return f"{replica.rank}.{replica.incarnation}.{sequence}/{shard}"


class ReplicaDiary:
    """One replica's row of the trace.

    Args:
        row: whose.
        recorder: where to.
    """

    def __init__(self, row: Row, recorder: Recorder) -> None:
        self._row, self._recorder = row, recorder
        self._open: tuple[str, int, int] | None = None  # what lasts now, its clock, and since when
        self._parked: int | None = None
        self._unparked: int | None = None
        self._waits_for = NOBODY

    def begin(self, name: str, clock: int, now: int) -> None:
        """Note that a pull, the computation of a gradient, or a push begins.

        Args:
            name: ``pull``, ``compute`` or ``push``.
            clock: of the replica, in finished steps.
            now: nanoseconds.
        """
        self._open = (name, clock, now)
        self._parked = self._unparked = None

    def park(self, now: int, waits_for: int = NOBODY) -> None:
        """Note that the pull waits, as far as is known for the push of this rank."""
        self._parked = now if self._parked is None else self._parked
        self._unparked, self._waits_for = None, waits_for

    def unpark(self, now: int) -> None:
        """Note that the pull waits no more, though it has not ended."""
        self._unparked = now

    def pulled(self, now: int, released_by: int, sees: Iterable[str]) -> None:
        """Note that all weights are here.

        Args:
            now: nanoseconds.
            released_by: the rank whose push ended the wait, or `NOBODY`.
            sees: names of the pushes that this pull is the first to see.
        """
        self._waits_for = released_by
        self._close(now, {})
        for name in sees:
            self._recorder.add(Arrow(name, "arrives", self._row, now))

    def computed(self, now: int) -> None:
        """Note that the gradient is there."""
        self._close(now, {})

    def pushed(self, now: int, replica: Replica, verdict: Verdict, shards: Iterable[int]) -> None:
        """Note that the verdict is there.

        Args:
            now: nanoseconds.
            replica: whose push.
            verdict: over all shards.
            shards: to which it went.
        """
        assert self._open is not None
        _, clock, since = self._open
        self._close(now, {"verdict": str(verdict)})
        for shard in shards:
            self._recorder.add(Arrow(push_name(replica, clock, shard), "leaves", self._row, since))

    def end(self, now: int) -> None:
        """Note that the replica ends here, whatever it is about."""
        if self._open is not None:
            self._close(now, {"unfinished": 1})

    def _close(self, now: int, notes: dict[str, Note]) -> None:
        assert self._open is not None
        name, clock, since = self._open
        self._recorder.add(Span(self._row, name, since, now, {"clock": clock, **notes}))
        if self._parked is not None:
            until = now if self._unparked is None else self._unparked
            self._recorder.add(
                Span(self._row, "wait", self._parked, until, {"for": self._waits_for, **notes})
            )
        self._open = None


class Gathered:
    """Follows one shard's events, so that it is known which pushes each of them brings into the weights."""

    def __init__(self) -> None:
        self._pushes: list[PushReceived] = []  # of the open round

    def applied(self, event: ShardEvent, effects: Sequence[ShardEffect]) -> Sequence[PushReceived]:
        """Return the pushes that an event has applied, in the order in which they came.

        Args:
            event: what the shard has handled.
            effects: what came of it.
        """
        match event:
            case PushReceived():
                verdict = effects[0].verdict if isinstance(effects[0], PushAnswered) else None
                if verdict is None or verdict.duplicate:
                    return ()
                if verdict.outcome is Outcome.APPLIED:
                    return (event,)
                if verdict.outcome is Outcome.BUFFERED:
                    self._pushes.append(event)
            case RoundClosed():
                ranks = set(event.ranks)
                applied = [push for push in self._pushes if push.replica.rank in ranks]
                self._pushes = []
                return applied
        return ()


class ShardDiary:
    """One shard's row of the trace.

    Args:
        server: the number of its server.
        shard: its own.
        recorder: where to.
    """

    def __init__(self, server: int, shard: int, recorder: Recorder) -> None:
        self._shard, self._row, self._recorder = shard, shard_row(server, shard), recorder
        self._unseen: list[str] = []  # pushes that no pull has seen yet

    def applied(self, begin: int, end: int, pushes: Sequence[PushReceived]) -> None:
        """Note that pushes have come into the weights, from a time to another, in nanoseconds."""
        names = [push_name(push.replica, push.sequence, self._shard) for push in pushes]
        self._recorder.add(Span(self._row, "apply", begin, end, {"gradients": len(names)}))
        for name in names:
            self._recorder.add(Arrow(name, "passes", self._row, begin))
        self._unseen.extend(names)

    def see(self) -> tuple[str, ...]:
        """Take out the pushes that the pull which is being granted is the first to see."""
        unseen = tuple(self._unseen)
        self._unseen.clear()
        return unseen
