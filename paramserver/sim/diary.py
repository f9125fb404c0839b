"""What a replica of a virtual world writes down of its steps: records, waits, and its row of the trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from paramserver.diaries import ReplicaDiary
from paramserver.events import NOBODY, Replica, Verdict
from paramserver.session import Pulled
from paramserver.sim.calls import Call


class StepRecord(NamedTuple):
    """One step of one replica.

    Attributes:
        rank: whose.
        clock: which.
        pulled_ns: when the weights were there.
        waited_ns: how long the pull was parked before.
        waited_for: the rank whose push ended the wait, or `NOBODY`.
        clock_gap: of the pull, in clocks.
        pushed_ns: when the verdict was there.
        outcome: of the push, so far: in a synchronous mode ``buffered``.
        version: the largest over the shards at which the gradient was computed.
        staleness: in versions.
        loss: mean over the step's samples.
    """

    rank: int
    clock: int
    pulled_ns: int
    waited_ns: int
    waited_for: int
    clock_gap: int
    pushed_ns: int
    outcome: str
    version: int
    staleness: int
    loss: float


class Diary:
    """One replica's diary; whoever writes says what time it is, in nanoseconds.

    Args:
        steps: where to write each step, shared by all replicas; None for nowhere.
        row: of the trace; None where none is kept.

    Attributes:
        waits: nanoseconds that pulls were parked, by the rank whose push ended that.
    """

    def __init__(self, steps: list[StepRecord] | None, row: ReplicaDiary | None) -> None:
        self.waits: Counter[int] = Counter()
        self._steps, self._row = steps, row
        self._pulled_at = self._waited = 0
        self._waited_for = NOBODY
        self._parked: int | None = None
        self._granted = 0
        self._pulled: Pulled | None = None

    def pull(self, now: int, clock: int, attempts: int) -> None:
        """Note that a pull begins, or, after so many attempts, begins anew: to the trace that is one pull."""
        self._parked = None
        if self._row is not None and not attempts:
            self._row.begin("pull", clock, now)

    def park(self, now: int) -> None:
        """Note that the pull waits."""
        if self._parked is None:
            self._parked = now
            if self._row is not None:
                self._row.park(now)

    def granted(self, now: int) -> None:
        """Note that the last weights have come; taking them in is still to be done."""
        self._granted = now
        if self._row is not None and self._parked is not None:
            self._row.unpark(now)

    def pulled(self, now: int, pulled: Pulled, calls: Sequence[Call], last: Call) -> None:
        """Note that all weights are here.

        Args:
            now: nanoseconds.
            pulled: what came.
            calls: one for each shard.
            last: the one whose answer came last.
        """
        self._pulled, self._pulled_at = pulled, now
        self._waited, self._waited_for = 0, NOBODY
        if self._parked is not None:
            self._waited, self._waited_for = self._granted - self._parked, last.released_by
            self.waits[self._waited_for] += self._waited
        if self._row is not None:
            self._row.pulled(now, self._waited_for, (name for call in calls for name in call.sees))

    def compute(self, now: int, clock: int) -> None:
        """Note that the computation of a gradient begins."""
        if self._row is not None:
            self._row.begin("compute", clock, now)

    def computed(self, now: int) -> None:
        """Note that the gradient is there."""
        if self._row is not None:
            self._row.computed(now)

    def push(self, now: int, clock: int) -> None:
        """Note that a push begins."""
        if self._row is not None:
            self._row.begin("push", clock, now)

    def pushed(
        self, now: int, replica: Replica, clock: int, verdict: Verdict, loss: float, calls: Sequence[Call]
    ) -> None:
        """Note that the verdict is there.

        Args:
            now: nanoseconds.
            replica: whose push.
            clock: of the step.
            verdict: over all shards.
            loss: of the step.
            calls: one for each shard.
        """
        pulled, outcome = self._pulled, verdict.outcome.value
        assert pulled is not None
        if self._steps is not None:
            record = StepRecord(
                replica.rank,
                clock,
                self._pulled_at,
                self._waited,
                self._waited_for,
                pulled.clock_gap,
                now,
                outcome,
                max(pulled.versions),
                verdict.staleness,
                loss,
            )
            self._steps.append(record)
        if self._row is not None:
            self._row.pushed(now, replica, verdict, [call.shard for call in calls])

    def end(self, now: int) -> None:
        """Note that the replica ends, or begins a new life."""
        if self._row is not None:
            self._row.end(now)
