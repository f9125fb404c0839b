"""What a shard is made of at one moment, so that it can be put on disk and made anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paramserver.events.job import Slice
from paramserver.events.replica import Verdict
from paramserver.types import Array


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One shard's weights at one version; the arrays are read-only and never change again."""

    version: int
    rounds: int
    values: Mapping[Slice, Array]


@dataclass(frozen=True, slots=True)
class Cut:
    """All that a checkpoint needs of a shard, between two updates.

    What is gathered of a round that is still open is no part of it: whoever goes on from here does that
    round again.

    Attributes:
        shard: whose.
        snapshot: the weights.
        state: the optimizer's state of each slice by name, copied; float32 of the slice's shape.
        clocks: every rank's clock here.
        verdicts: of every rank the sequence of its last push and what became of it.
    """

    shard: int
    snapshot: Snapshot
    state: Mapping[Slice, Mapping[str, Array]]
    clocks: Mapping[int, int]
    verdicts: Mapping[int, tuple[int, Verdict]]
