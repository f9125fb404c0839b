"""One rank: who has it, how it stands, what it has done, and when its time is up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from paramserver.accounting import merge_counters
from paramserver.events import (
    Beat,
    Counters,
    JobSpec,
    MemberRecord,
    MemberStatus,
    Phase,
    Replica,
    Standing,
)

_BUSY = (Phase.COMPUTE, Phase.PUSH)
"""The phases that a step timeout measures: waiting for others is never death."""

_BEFORE = -1
"""Instead of an incarnation: all of those that an earlier coordinator has written down."""


@dataclass(slots=True)
class Rank:
    """What is known of one rank.

    Attributes:
        rank: its number.
        name: who has it.
        attempt: of the newest join.
        incarnation: the newest.
        heard: when it was last heard of; as all times in seconds.
        standing: whether it is live, dead or has left.
        late: it came after the start.
        entered: it counts, if it is live; a newcomer to be dealt samples may have to wait.
        went: it has left before its last step, and does not come back by itself.
        restarts: how often it has come again after a death.
        clock: its finished steps, as it was heard.
        steps: how many it means to do; 0: not known.
        phase: what it does.
        rewound: it went back to a checkpoint, and has not joined again since.
        moved: when its clock or phase last changed.
        died: when it died, if it did.
        counters: what its newest process has done.
        earlier: what the processes before have done, by the incarnation that each had last.
    """

    rank: int
    name: str
    attempt: str
    incarnation: int
    heard: float
    standing: Standing = Standing.LIVE
    late: bool = False
    entered: bool = True
    went: bool = False
    restarts: int = 0
    clock: int = 0
    steps: int = 0
    phase: Phase = Phase.IDLE
    rewound: bool = False
    moved: float = 0.0
    died: float = 0.0
    counters: Counters = field(default_factory=Counters)
    earlier: dict[int, Counters] = field(default_factory=dict)

    @classmethod
    def of(cls, record: MemberRecord, now: float) -> Rank:
        """Return a rank that was written down; all its times begin now."""
        return cls(
            record.rank,
            record.name,
            record.attempt,
            record.incarnation,
            heard=now,
            standing=record.standing,
            late=record.late,
            entered=record.entered,
            went=record.went,
            restarts=record.restarts,
            clock=record.clock,
            steps=record.steps,
            moved=now,
            died=now,
            counters=record.counters,
            earlier={_BEFORE: record.earlier},
        )

    def hear(self, beat: Beat, now: float) -> None:
        """Note a sign of life."""
        if (beat.clock, beat.phase) != (self.clock, self.phase):
            self.moved = now
        self.heard = now
        self.phase = beat.phase
        if not self.rewound:  # else it speaks of steps that are void
            self.clock, self.steps = beat.clock, beat.steps
        self.counters = beat.counters

    def fence(self) -> None:
        """Raise the incarnation, so that nothing of the old one counts any more."""
        self.earlier[self.incarnation] = self.counters
        self.counters = Counters()
        self.incarnation += 1
        self.restarts += self.standing is not Standing.LEFT

    def deadline(self, job: JobSpec) -> float:
        """Return when its time is up, unless it is heard of again, or moves on."""
        lease = self.heard + job.lease_seconds
        if self.phase not in _BUSY:
            return lease
        return min(lease, self.moved + job.step_timeout_seconds)

    def why_dead(self, job: JobSpec, now: float) -> str:
        """Say why its time is up, as a sentence."""
        if now >= self.heard + job.lease_seconds:
            why = f"was not heard of for {now - self.heard:.1f} s (lease {job.lease_seconds:g} s)"
        else:
            why = (
                f"has been in phase {self.phase.value} of clock {self.clock} for {now - self.moved:.1f} s "
                f"(step timeout {job.step_timeout_seconds:g} s)"
            )
        return f"Replica {self.rank} ({self.name}) {why}."

    def record(self) -> MemberRecord:
        """Return it, to be written down."""
        return MemberRecord(
            self.rank,
            self.name,
            self.attempt,
            self.incarnation,
            self.standing,
            self.late,
            self.restarts,
            self.clock,
            self.steps,
            self.counters,
            merge_counters(self.earlier.values()),
            self.entered,
            self.went,
        )

    def status(self, now: float) -> MemberStatus:
        """Return it, for people."""
        return MemberStatus(
            Replica(self.rank, self.incarnation),
            self.name,
            self.standing,
            self.clock,
            self.steps,
            self.phase,
            now - self.heard,
            replace(
                merge_counters([*self.earlier.values(), self.counters]),
                loss=self.counters.loss,
                latest_staleness=self.counters.latest_staleness,
            ),
        )
