"""What a replica of a virtual world writes down of its steps: records, waits, and its row of the trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from paramserver.events import Verdict
from paramserver.session import Pulled
from paramserver.sim.calls import NOBODY, Call
from paramserver.sim.shards import push_name
from paramserver.tracing import Arrow, Note, Recorder, Row, Span


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
        row: of the trace.
        steps: where to write each step, shared by all replicas; None for nowhere.
        recorder: of the trace; None for none.

    Attributes:
        waits: nanoseconds that pulls were parked, by the rank whose push ended that.
    """

    def __init__(self, row: Row, steps: list[StepRecord] | None, recorder: Recorder | None) -> None:
        self.waits: Counter[int] = Counter()
        self._row, self._steps, self._recorder = row, steps, recorder
        self._asked = self._pulled_at = self._waited = 0
        self._waited_for = NOBODY
        self._parked: int | None = None
        self._pulled: Pulled | None = None

    def ask(self, now: int) -> None:
        """Note that a pull or a push begins."""
        self._asked = now
        self._parked = None

    def park(self, now: int) -> None:
        """Note that the pull waits."""
        if self._parked is None:
            self._parked = now

    def pulled(self, now: int, clock: int, pulled: Pulled, calls: Sequence[Call], last: Call) -> None:
        """Note that all weights are here.

        Args:
            now: nanoseconds.
            clock: of the reader.
            pulled: what came.
            calls: one for each shard.
            last: the one whose answer came last.
        """
        self._pulled, self._pulled_at = pulled, now
        self._waited, self._waited_for = 0, NOBODY
        if self._parked is not None:
            self._waited, self._waited_for = now - self._parked, last.released_by
            self.waits[self._waited_for] += self._waited
        if self._recorder is None:
            return
        self._span("pull", self._asked, now, {"clock": clock})
        if self._parked is not None:
            self._span("wait", self._parked, now, {"for": self._waited_for})
        for name in (name for call in calls for name in call.sees):
            self._recorder.add(Arrow(name, "arrives", self._row, now))

    def computed(self, now: int, clock: int) -> None:
        """Note that the gradient is there."""
        if self._recorder is not None:
            self._span("compute", self._pulled_at, now, {"clock": clock})

    def pushed(
        self, now: int, rank: int, clock: int, verdict: Verdict, loss: float, calls: Sequence[Call]
    ) -> None:
        """Note that the verdict is there.

        Args:
            now: nanoseconds.
            rank: whose push.
            clock: of the step.
            verdict: over all shards.
            loss: of the step.
            calls: one for each shard.
        """
        pulled, outcome = self._pulled, verdict.outcome.value
        assert pulled is not None
        if self._steps is not None:
            record = StepRecord(
                rank,
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
        if self._recorder is not None:
            self._span("push", self._asked, now, {"clock": clock, "verdict": str(verdict)})
            for call in calls:
                name = push_name(call.event, call.shard)
                self._recorder.add(Arrow(name, "leaves", self._row, self._asked))

    def _span(self, name: str, begin: int, end: int, notes: dict[str, Note]) -> None:
        assert self._recorder is not None
        self._recorder.add(Span(self._row, name, begin, end, notes))
