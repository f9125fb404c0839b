"""What goes into a shard and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paramserver.errors import Fault, RequestError
from paramserver.events.cut import Cut, Snapshot
from paramserver.events.job import NOBODY, Replica, Slice
from paramserver.events.orders import Order, Report
from paramserver.events.replica import Verdict
from paramserver.rows import Gradient, RowIndices
from paramserver.types import Array


@dataclass(frozen=True, slots=True)
class InitialiseReceived:
    """First weights for this shard's slices; ``initialiser`` names one attempt over all shards."""

    request: int
    initialiser: str
    values: Mapping[Slice, Array]


@dataclass(frozen=True, slots=True)
class PullReceived:
    """A read.

    Attributes:
        request: the host's number for it.
        replica: who reads; None for an observer, who is never counted and never parked.
        generation: the generation the reader works for (observers: ignored).
        clock: the reader's clock, which the read rule judges (observers: ignored).
        round: the weights an observer wishes for, after that many rounds; None for the newest that every
            shard has.
        rows: for each slice of which only some rows are wanted these rows, counted from the slice's first;
            slices that are not named are wanted whole.
    """

    request: int
    replica: Replica | None
    generation: int = 0
    clock: int = 0
    round: int | None = None
    rows: Mapping[Slice, RowIndices] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PullCancelled:
    """The reader has gone (cancelled, deadline, connection lost): forget its parked pull."""

    request: int


@dataclass(frozen=True, slots=True)
class PushReceived:
    """One gradient for this shard's slices.

    Attributes:
        request: the host's number for it.
        replica: who pushes.
        generation: the generation the gradient was computed for.
        sequence: the clock of the step, so the first push of a fresh rank is 0.
        version: the shard's version that the step's pull returned.
        samples: how many samples the mean gradient is over, >= 1 (0 with a refusal).
        gradients: of each slice, float32 of its shape; of a table's slice a ``RowGradient`` of that shape
            will do, with its rows counted from the slice's first. Empty with a refusal.
        refusal: why the gradient is a contribution of no samples (a NaN, say), as a sentence; else empty.
    """

    request: int
    replica: Replica
    generation: int
    sequence: int
    version: int
    samples: int
    gradients: Mapping[Slice, Gradient]
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class WaitAsked:
    """For whom does this parked pull wait by now? Answered by PullParked; by nothing if it waits no more."""

    request: int


@dataclass(frozen=True, slots=True)
class CutAsked:
    """Copy out all that a checkpoint needs of this shard, between two updates."""

    request: int


@dataclass(frozen=True, slots=True)
class ReportsAsked:
    """Report all again that the coordinator may not have heard, since the way to it was broken."""


ShardEvent = (
    Order
    | InitialiseReceived
    | PullReceived
    | PullCancelled
    | WaitAsked
    | PushReceived
    | CutAsked
    | ReportsAsked
)


@dataclass(frozen=True, slots=True)
class PullGranted:
    """Answer a pull.

    ``clock_gap`` is the reader's clock minus the slowest live clock here (observers: 0); ``verdict`` is what
    became of that replica's last push, where its round has been decided since (synchronous modes); ``rows``
    repeats the pull's. A host that keeps a trace adds ``released_by``, the rank whose push ended the pull's
    wait, and ``sees``, the names of the pushes that no pull has seen before.
    """

    request: int
    snapshot: Snapshot
    clock_gap: int = 0
    verdict: Verdict | None = None
    rows: Mapping[Slice, RowIndices] = field(default_factory=dict)
    released_by: int = NOBODY
    sees: tuple[str, ...] = ()

    def values(self) -> dict[Slice, Array]:
        """Return what the reader asked for: a slice's array, or a copy of the rows of it that it named.

        The copying is for whoever sends, not for whoever holds the shard's lock: a snapshot never changes.
        """
        return {
            part: value[self.rows[part]] if part in self.rows else value
            for part, value in self.snapshot.values.items()
        }


@dataclass(frozen=True, slots=True)
class PullParked:
    """A pull waits.

    Attributes:
        request: which.
        waits_for: pairs (rank, clock) of those that hold it up, slowest first; not more than a few.
        bound: the rule that makes it wait, as a phrase.
        since: when it came, the host's ``now``.
        others: how many more hold it up.
        wants_weights: all have joined, and nobody has initialised the weights.
    """

    request: int
    waits_for: tuple[tuple[int, int], ...]
    bound: str
    since: float
    others: int = 0
    wants_weights: bool = False

    def __str__(self) -> str:
        """Say for whom it waits, and why.

        Example:
            >>> str(PullParked(0, ((1, 4), (5, 4)), "ssp:0 says so", 0.0, others=3))
            'waits for replica 1 at clock 4 and replica 5 at clock 4 and 3 more: ssp:0 says so'
        """
        names = [f"replica {rank} at clock {clock}" for rank, clock in self.waits_for]
        if self.others:
            names.append(f"{self.others} more")
        return f"waits{' for ' if names else ''}{' and '.join(names)}: {self.bound}"


@dataclass(frozen=True, slots=True)
class PullFenced:
    """The reader works for an old generation or is an old incarnation: begin anew at ``clock``."""

    request: int
    generation: int
    clock: int
    reason: str


@dataclass(frozen=True, slots=True)
class PushAnswered:
    """Answer a push."""

    request: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class InitialiseAnswered:
    """Answer an initialise: ``adopted`` when weights had been sealed before."""

    request: int
    adopted: bool


@dataclass(frozen=True, slots=True)
class CutTaken:
    """Answer a `CutAsked`."""

    request: int
    cut: Cut


@dataclass(frozen=True, slots=True)
class CutMade:
    """Keep this cut as this shard's part of a checkpoint."""

    checkpoint: int
    cut: Cut


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer any request with a refusal: the asker is to blame."""

    request: int
    message: str
    fault: Fault = Fault.INVALID

    @classmethod
    def of(cls, request: int, error: RequestError) -> Refused:
        """Make the effect that carries an error's sentence."""
        return cls(request, str(error), error.fault)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Answer any request with: not now; the same request may succeed later."""

    request: int
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Answer any request with: the job is over; an empty reason means that it finished."""

    request: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reported:
    """Bring this report to the coordinator."""

    report: Report


ShardEffect = (
    PullGranted
    | PullParked
    | PullFenced
    | PushAnswered
    | CutTaken
    | CutMade
    | InitialiseAnswered
    | Refused
    | Unavailable
    | Ended
    | Reported
)


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """How a shard stands, for people.

    Attributes:
        shard: which.
        version: applied updates.
        rounds: closed rounds (synchronous mode).
        bytes: of its weights.
        parked: for each parked pull the rank that waits and for whom.
        pushes: received pushes by the verdict they got first, and ``duplicate``.
        staleness: applied pushes by their staleness here, in versions.
    """

    shard: int
    version: int
    rounds: int
    bytes: int
    parked: tuple[tuple[int, PullParked], ...]
    pushes: Mapping[str, int]
    staleness: Mapping[int, int] = field(default_factory=dict)
