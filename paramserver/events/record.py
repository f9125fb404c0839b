"""What the coordinator has to remember over its own end, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from paramserver.events.job import JobSpec
from paramserver.events.replica import Counters, Score


class Standing(Enum):
    """How a rank stands with the coordinator."""

    LIVE = "live"
    DEAD = "dead"
    """Its lease or step time ran out; under ``restart`` the others wait for its next incarnation."""

    LEFT = "left"
    """It has finished."""


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """One rank.

    Attributes:
        rank: the rank.
        name: who has it.
        attempt: of its newest join.
        incarnation: the newest.
        standing: how it stands.
        late: it joined after the start.
        restarts: how often it had to be restarted.
        clock: that it was heard to have reached.
        steps: that it means to do in all; 0: not known.
        counters: of the process that has it now, as heard last.
        earlier: of the processes that had it before, together.
        entered: it takes part, or did; a newcomer does not before it is dealt something.
        went: it has left before its last step, and does not come back by itself.
    """

    rank: int
    name: str
    attempt: str
    incarnation: int
    standing: Standing
    late: bool
    restarts: int
    clock: int
    steps: int
    counters: Counters = field(default_factory=Counters)
    earlier: Counters = field(default_factory=Counters)
    entered: bool = True
    went: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint that is whole and safe.

    Attributes:
        checkpoint: its number, from 0.
        rounds: closed rounds in it (synchronous modes).
        clocks: every rank's clock in it, the smallest over the shards.
    """

    checkpoint: int
    rounds: int = 0
    clocks: Mapping[int, int] = field(default_factory=dict)


Row = tuple[int, ...]
"""Numbers that belong together."""


@dataclass(frozen=True, slots=True)
class DealtRecord:
    """What the replicas have been dealt.

    Attributes:
        opened: how many epochs have been divided.
        todo: rows (rank, epoch, place, places, first batch, batch after the last).
        laid: rows (rank, clock, epoch, place, places, first batch, batch after the last, how many epochs).
        free: rows as in `todo`, without a rank.
        places: rows (rank, place), where shares have fixed places.
        refused: rows as in `todo` with a clock after the rank, of single batches.
        repeated: rows (epoch, samples).
    """

    opened: int = 0
    todo: tuple[Row, ...] = ()
    laid: tuple[Row, ...] = ()
    free: tuple[Row, ...] = ()
    places: tuple[Row, ...] = ()
    refused: tuple[Row, ...] = ()
    repeated: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job, for a coordinator that has to go on with it.

    Attributes:
        job: what is trained.
        generation: how many times its weights have been recovered.
        orders: how many have been given.
        sealed: there are weights.
        members: every rank.
        kept: the newest checkpoint that is whole; None before there is one.
        cuts: how many checkpoints have been ordered.
        over: it has ended well, and its final checkpoint is kept.
        scores: the newest.
        seconds: since all had joined and the weights were in place; whoever writes the record down knows.
        dealt: what the replicas have been dealt.
        rounds: closed (synchronous modes).
        begins: latecomers, and the first round that each is part of.
        leavers: ranks that have left a round, each with the order that says so.
        gone: ranks that do not go on, each with the order that says so.
        ended: why the job is over, empty if it finished; None while it is not.
    """

    job: JobSpec
    generation: int
    orders: int
    sealed: bool
    members: tuple[MemberRecord, ...]
    kept: Kept | None
    cuts: int
    over: bool = False
    scores: tuple[Score, ...] = ()
    seconds: float = 0.0
    dealt: DealtRecord = field(default_factory=DealtRecord)
    rounds: int = 0
    begins: Mapping[int, int] = field(default_factory=dict)
    leavers: tuple[tuple[int, int], ...] = ()
    gone: tuple[tuple[int, int], ...] = ()
    ended: str | None = None
