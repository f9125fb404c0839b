"""What the coordinator tells the shards, and what they report to it.

Orders are numbered without gaps, and every shard handles them in that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paramserver.events.job import JobSpec, Slice


@dataclass(frozen=True, slots=True)
class JobAnnounced:
    """The job is fixed, and these slices are yours."""

    number: int
    job: JobSpec
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One rank as the coordinator sees it.

    Attributes:
        rank: the rank.
        incarnation: its newest incarnation; older ones are fenced.
        live: it counts for rounds and for the slowest clock.
        late: it joined after the start and begins at the slowest live clock (ssp, async) or the next round.
    """

    rank: int
    incarnation: int
    live: bool = True
    late: bool = False


@dataclass(frozen=True, slots=True)
class MembershipChanged:
    """These ranks are new or have changed; ``started`` once every expected replica has joined."""

    number: int
    members: tuple[Member, ...]
    started: bool
    expected: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """The values that this initialiser staged are the job's first weights."""

    number: int
    initialiser: str


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """Exactly these ranks, in order, make the round; apply it."""

    number: int
    round: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job is over; an empty reason means that every replica finished."""

    number: int
    reason: str = ""


Order = JobAnnounced | MembershipChanged | Sealed | RoundClosed | JobEnded


@dataclass(frozen=True, slots=True)
class OrderHandled:
    """A shard has handled an order; with each rank's clock there, which a join needs."""

    shard: int
    number: int
    clocks: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Staged:
    """This initialiser's values for this shard are complete."""

    shard: int
    initialiser: str


@dataclass(frozen=True, slots=True)
class Contributed:
    """A shard has a rank's gradient for a round; a refusal (a sentence) makes it one of no samples."""

    shard: int
    round: int
    rank: int
    samples: int
    refusal: str = ""


Report = OrderHandled | Staged | Contributed
