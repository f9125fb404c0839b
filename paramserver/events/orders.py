"""What the coordinator tells the shards, and what they report to it.

Orders are numbered without gaps, and every shard handles them in that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paramserver.events.cut import Cut
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


@dataclass(frozen=True, slots=True)
class CutOrdered:
    """Make a cut of what you are, as your part of this checkpoint.

    All shards handle it between the same two rounds, so the cuts of a synchronous job fit together.
    """

    number: int
    checkpoint: int


@dataclass(frozen=True, slots=True)
class GenerationBegun:
    """Forget what you are, and go on from a checkpoint, or anew; what earlier generations computed is void.

    It says everything that a shard needs, so it may be the first order that a restarted one hears.

    Attributes:
        number: of the order; the next one follows it, whatever came before.
        generation: that begins.
        job: the job.
        slices: of this shard.
        members: every rank.
        started: all expected replicas have joined.
        expected: how many those are.
        checkpoint: from which it goes on; None: from nothing, so somebody has to initialise the weights.
        cut: the shard's part of that checkpoint; whoever brings the order to the shard puts it in.
    """

    number: int
    generation: int
    job: JobSpec
    slices: tuple[Slice, ...]
    members: tuple[Member, ...]
    started: bool
    expected: int
    checkpoint: int | None
    cut: Cut | None = None


Order = JobAnnounced | MembershipChanged | Sealed | RoundClosed | JobEnded | CutOrdered | GenerationBegun


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
    """A shard has a rank's gradient for a round; a refusal (a sentence) makes it one of no samples.

    In a mode without rounds only a refusal is reported, with the step's clock as the round.
    """

    shard: int
    round: int
    rank: int
    samples: int
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """A shard that came back has handled all orders up to this one; with every rank's clock there."""

    shard: int
    number: int
    clocks: Mapping[int, int] = field(default_factory=dict)


Report = OrderHandled | Staged | Contributed | CaughtUp
