"""What a shard is, beside its weights, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paramserver.events.job import JobSpec, Slice
from paramserver.events.orders import Member
from paramserver.events.replica import Verdict
from paramserver.events.shard import PullReceived, PushReceived


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """All that makes a shard, but for weights and optimizer state: with those of a cut it can go on exactly.

    Attributes:
        job: what is trained.
        slices: that the shard owns.
        generation: of the weights.
        orders: how many have been handled.
        started: all expected replicas have joined.
        expected: how many those are.
        ended: why the job is over, empty if it finished; None while it is not.
        version: applied updates.
        rounds: closed rounds (synchronous mode).
        members: every rank.
        clocks: every rank's clock here.
        begun: of each rank the incarnation whose first pull has been seen.
        verdicts: of every rank the sequence of its last push and what became of it.
        gathered: the gradients of the open round, in the order in which they came.
        waiting: the parked pulls and since when each waits, in the order in which they came.
        pushes: received pushes by the verdict they got, as in ``ShardStatistics``.
        staleness: applied pushes by their staleness, in versions.
    """

    job: JobSpec
    slices: tuple[Slice, ...]
    generation: int
    orders: int
    started: bool
    expected: int
    ended: str | None
    version: int
    rounds: int
    members: tuple[Member, ...] = ()
    clocks: Mapping[int, int] = field(default_factory=dict)
    begun: Mapping[int, int] = field(default_factory=dict)
    verdicts: Mapping[int, tuple[int, Verdict]] = field(default_factory=dict)
    gathered: tuple[PushReceived, ...] = ()
    waiting: tuple[tuple[PullReceived, float], ...] = ()
    pushes: Mapping[str, int] = field(default_factory=dict)
    staleness: Mapping[int, int] = field(default_factory=dict)
