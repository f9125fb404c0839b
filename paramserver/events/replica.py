"""What a replica hears and says of itself: verdicts, phases, counters; and the score of some weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Outcome(Enum):
    """What became of one push."""

    APPLIED = "applied"
    BUFFERED = "buffered"
    DROPPED = "dropped"
    PARTIAL = "partial"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one push, on one shard or (from a session) over all shards.

    Attributes:
        outcome: one of five; ``PARTIAL`` is only ever said by a session.
        version: APPLIED: the shard's version after the update. BUFFERED: the version it was buffered at.
        staleness: APPLIED: version just before the update minus the version the gradient was computed at.
        round: BUFFERED, or decided in a synchronous mode: the round, counted from 0; else -1.
        contributed: BUFFERED: how many gradients of that round are here, this one included.
        expected: BUFFERED: how many the round waits for.
        reason: DROPPED, FENCED and PARTIAL: why, as a sentence.
        duplicate: this push had been received before; the rest repeats the first verdict.
        generation: FENCED: the generation to work for from now on.
        clock: FENCED: the clock to begin at anew.
    """

    outcome: Outcome
    version: int = 0
    staleness: int = 0
    round: int = -1
    contributed: int = 0
    expected: int = 0
    reason: str = ""
    duplicate: bool = False
    generation: int = 0
    clock: int = 0

    def __str__(self) -> str:
        text = {
            Outcome.APPLIED: f"applied at version {self.version}, staleness {self.staleness}",
            Outcome.BUFFERED: f"buffered {self.contributed} of {self.expected} for round {self.round}",
            Outcome.DROPPED: f"dropped: {self.reason}",
            Outcome.PARTIAL: f"partial: {self.reason}",
            Outcome.FENCED: f"fenced: {self.reason}",
        }[self.outcome]
        return f"duplicate ({text})" if self.duplicate else text


class Phase(Enum):
    """What a replica does now, as its heartbeats say it."""

    IDLE = "idle"
    PULL = "pull"
    WAIT = "wait"
    COMPUTE = "compute"
    PUSH = "push"


PHASES = ("compute", "pull", "push", "wait", "rest")
"""Where a replica's seconds go, in the order in which reports show them."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What one replica has done so far; every heartbeat carries it whole, so a lost one loses nothing.

    Attributes:
        gradients: how many pushes were ``computed``, ``applied``, ``dropped``, ``fenced``, ``partial``,
            ``lost`` (no verdict ever came), ``rolled_back`` (applied, but the weights went back to a
            checkpoint without them) and, beside that sum, ``duplicate``.
        samples: the same in training samples, without ``duplicate``.
        staleness: how many applied pushes had each staleness (largest over the shards), in versions.
        clock_gap: how many granted reads had each clock gap (largest over the shards), in clocks.
        seconds: wall seconds by the names in ``PHASES``.
        loss: mean training loss of the most recent steps; NaN before the first.
        latest_staleness: of the newest applied push (largest over the shards), in versions; None before the
            first, and for several replicas together.
    """

    gradients: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    staleness: Mapping[int, int] = field(default_factory=dict)
    clock_gap: Mapping[int, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    loss: float = float("nan")
    latest_staleness: int | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """An observer's judgement of the weights at one version.

    Attributes:
        split: ``validation`` while the job runs, ``test`` once at its end.
        version: the largest shard version among the weights that were scored.
        rounds: finished rounds in those weights (synchronous modes; else -1).
        loss: mean cross-entropy in nats, or where labels are numbers the mean squared error.
        accuracy: share of samples classified rightly, 0 to 1; where labels are numbers R2, at most 1.
        samples: how many samples were scored.
        auc: area under the ROC curve, 0 to 1, of a model that says yes or no; None for others.
    """

    split: str
    version: int
    rounds: int
    loss: float
    accuracy: float
    samples: int
    auc: float | None = None
