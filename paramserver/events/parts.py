"""Which batches a replica works on: how the coordinator deals out the epochs of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from paramserver.events.job import Replica


class Part(NamedTuple):
    """Some batches of one epoch, in order.

    Attributes:
        epoch: from 0.
        place: whose share of the epoch it is, from 0: the rank's position among those who share the epoch.
        places: how many share it.
        begin: the first batch of the share, from 0.
        end: the batch after the last one.
    """

    epoch: int
    place: int
    places: int
    begin: int
    end: int

    @property
    def batches(self) -> int:
        """How many there are."""
        return self.end - self.begin


class Dealt(NamedTuple):
    """A part with the clock at which its replica does its first batch."""

    clock: int
    part: Part

    @property
    def end(self) -> int:
        """The clock after the last batch."""
        return self.clock + self.part.batches


@dataclass(frozen=True, slots=True)
class PartAsked:
    """A replica asks what to do from a clock on; it comes once an epoch, and never for each step."""

    request: int
    replica: Replica
    generation: int
    clock: int


@dataclass(frozen=True, slots=True)
class PartGiven:
    """Answer a replica that asks what to do.

    Attributes:
        request: of the asker.
        dealt: what to do and at which clock to begin it; None if nothing is left, or it has to wait.
        steps: the clock at which the replica will have done all, as far as can be said now.
        waits: why it has to ask again, as a sentence; else empty.
        generation: of the job; if it is not the asker's, nothing else counts.
    """

    request: int
    dealt: Dealt | None
    steps: int = 0
    waits: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Visits:
    """What became of the samples of one epoch.

    Attributes:
        epoch: from 0.
        samples: how many it has.
        seen: of how many the gradient was applied.
        refused: of how many the gradient was dropped, since it was not finite.
        repeated: of how many it had been applied when the weights went back to a checkpoint: once more.
    """

    epoch: int
    samples: int
    seen: int
    refused: int = 0
    repeated: int = 0

    @property
    def unseen(self) -> int:
        """How many had no gradient applied."""
        return self.samples - self.seen
