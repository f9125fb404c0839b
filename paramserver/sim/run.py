"""What came of a simulated run, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paramserver.events import Cut, JobStatus, Score
from paramserver.quantities import NANOSECONDS
from paramserver.sim.diary import StepRecord
from paramserver.tracing import Record, Row, chrome_trace, counted_from, place
from paramserver.types import Array, tensors_sha256


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What one shard and its lock did.

    Attributes:
        version: applied updates.
        served: events handled.
        held_ns: how long its lock was held.
        waited_ns: how long requests queued for it, added up.
        applied_ns: when it had applied its last round; 0 where it has applied none.
    """

    version: int
    served: int
    held_ns: int
    waited_ns: int
    applied_ns: int


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """How busy one server was, in nanoseconds.

    Attributes:
        handlers_ns: its handlers, added up.
        link_in_ns: its link in.
        link_out_ns: its link out.
        link_ns: either of them.
    """

    handlers_ns: int
    link_in_ns: int
    link_out_ns: int
    link_ns: int


@dataclass(frozen=True)
class Run:
    """A simulated run.

    Attributes:
        status: how the job stood at its end, with every replica's counters; `summarise` takes it.
        began_ns: when every replica had joined and the weights were there.
        ended_ns: when the job was over.
        weights: final weights by key.
        cuts: all that a checkpoint needs of each shard; none where there never were any weights.
        steps: every step, in the order in which they ended; empty where they were not wanted.
        waits: nanoseconds that pulls were parked, by (the rank that waited, the rank whose push ended it or
            -1).
        shards: in order.
        servers: in order.
        cores_ns: what the cores that all share have computed, in nanoseconds of one core; 0 where nobody
            shares.
        notes: what the coordinator said and what befell workers, with times in nanoseconds.
        scores: how good the weights were found, with times in nanoseconds.
        trace: spans and arrows; empty where they were not wanted.
        forgotten: records of the trace that are no longer there.
        rows: of the trace, in order.
        happened: events of virtual time.
    """

    status: JobStatus
    began_ns: int
    ended_ns: int
    weights: Mapping[str, Array]
    cuts: Sequence[Cut]
    steps: Sequence[StepRecord]
    waits: Mapping[tuple[int, int], int]
    shards: Sequence[ShardRecord]
    servers: Sequence[ServerRecord]
    cores_ns: int
    notes: Sequence[tuple[int, str]]
    scores: Sequence[tuple[int, Score]]
    trace: Sequence[Record]
    forgotten: int
    rows: Sequence[Row]
    happened: int

    @property
    def reason(self) -> str:
        """Why the job failed, as a sentence; empty if it finished."""
        return self.status.reason

    @property
    def seconds(self) -> float:
        """Virtual seconds from the beginning of training to the end of the job."""
        return (self.ended_ns - self.began_ns) / NANOSECONDS

    @property
    def versions(self) -> tuple[int, ...]:
        """Applied updates of each shard."""
        return tuple(shard.version for shard in self.shards)

    @property
    def weights_sha256(self) -> str:
        """Hash of the final weights, as a real run has it."""
        return tensors_sha256(self.weights)

    def chrome_trace(self) -> bytes:
        """Return the trace as a file that Perfetto opens; the same bytes for the same world and seeds.

        Its time counts from the beginning of training.
        """
        records = counted_from(self.began_ns, sorted(self.trace, key=place))
        return chrome_trace(records, self.rows, {"time": "virtual", "forgotten": self.forgotten})
