"""What a shard holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from paramserver import events as ev
from paramserver.consistency import Consistency, parse_consistency
from paramserver.errors import Fault, RequestError
from paramserver.optim import build_optimizer
from paramserver.parking import ParkingLot
from paramserver.placement import slice_shape
from paramserver.roll import Roll
from paramserver.types import Empty
from paramserver.weights import Weights

Effects = list[ev.ShardEffect]


class ShardState:
    """All that one shard holds.

    Args:
        index: the shard's number within the job, from 0.
        empty: makes the arrays that new weights are written to.

    Attributes:
        index: as above.
        orders: the number of the last order that was handled.
        job: what is trained; None before it is announced.
        ended: why the job ended: a sentence if it failed, empty if it finished; None while it goes on.
        started: as many replicas have joined as the job waits for.
        expected: so many.
        roll: who counts, at which clock each is, and what its last push came to.
        round: the open round's gradients, by rank.
        parked: the pulls that wait.
        pushes: how many pushes came to what, for people.
        staleness: of how many applied gradients, for people.
    """

    def __init__(self, index: int, empty: Empty) -> None:
        self.index = index
        self.orders = 0
        self.job: ev.JobSpec | None = None
        self.ended: str | None = None
        self.started = False
        self.expected = 0
        self.roll = Roll(index)
        self.round: dict[int, ev.PushReceived] = {}
        self.parked = ParkingLot()
        self.pushes: Counter[str] = Counter()
        self.staleness: Counter[int] = Counter()
        self._empty = empty
        self._rule: Consistency | None = None
        self._weights: Weights | None = None

    def announce(self, job: ev.JobSpec, slices: Iterable[ev.Slice]) -> None:
        """Take a job, and what this shard owns of it; there are no weights yet."""
        self.job = job
        shapes = {tensor.key: tensor.shape for tensor in job.tensors}
        self._rule = parse_consistency(job.consistency)
        self._weights = Weights(
            {part: slice_shape(shapes[part.key], part) for part in slices},
            build_optimizer(job.optimizer, job.learning_rate, job.schedule, job.versions_total),
            # Two, so that an observer finds one round on all shards while the next is being applied.
            versions_kept=2 if self._rule.gathers else 1,
            empty=self._empty,
            tables=[tensor.key for tensor in job.tensors if tensor.table],
        )

    @property
    def rule(self) -> Consistency:
        """The job's consistency model.

        Raises:
            RequestError: there is no job yet.
        """
        if self._rule is None:
            raise RequestError("There is no job here yet. Join first.", Fault.PRECONDITION)
        return self._rule

    @property
    def weights(self) -> Weights:
        """The weights and the optimizer's state.

        Raises:
            RequestError: there is no job yet.
        """
        if self._weights is None:
            raise RequestError("There is no job here yet. Join first.", Fault.PRECONDITION)
        return self._weights

    @property
    def is_open(self) -> bool:
        """Whether the job has begun: all have joined, and the first weights are sealed."""
        return self.started and self.weights.sealed

    @property
    def frontier(self) -> int:
        """How far the job has come on this shard, in what the rule compares a reader's need with."""
        return self.rule.frontier(self.weights.rounds, self.roll.clocks.slowest())

    def count(self, verdict: ev.Verdict) -> None:
        """Count what a push came to."""
        self.pushes[verdict.outcome.value] += 1
        if verdict.outcome is ev.Outcome.APPLIED:
            self.staleness[verdict.staleness] += 1
