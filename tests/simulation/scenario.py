"""What happens in a small cluster, and how its messages are addressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from marks import STEPS_MAX, job

from paramserver import events as ev

COORDINATOR = -1
LIVES_MAX, NUMBERS_MAX = 16, 64
NOISE = 8
"""Columns whose last bits tell in which order gradients were summed."""


@dataclass(frozen=True)
class Scenario:
    """What happens in a universe; the schedule only decides when.

    Attributes:
        rule: the consistency.
        steps: of each replica; those from `expected` on come late.
        expected: how many replicas the job starts with; None: all.
        on_death: ``drop`` or ``restart``.
        refused: steps (rank, clock) whose gradient is not finite.
        faults: how often each fault may happen.
        returns: a replica that has died comes again.
    """

    rule: str
    steps: tuple[int, ...] = (2, 2)
    shards: int = 2
    expected: int | None = None
    on_death: str = "drop"
    refused: frozenset[tuple[int, int]] = frozenset()
    faults: tuple[tuple[str, int], ...] = ()
    returns: bool = False

    @property
    def replicas(self) -> int:
        """Return how many replicas the job starts with."""
        return len(self.steps) if self.expected is None else self.expected

    @property
    def shape(self) -> tuple[int, int]:
        """Return the shape of the weights: a row for each shard; marks, and in sync some columns of noise."""
        return self.shards, len(self.steps) * STEPS_MAX + NOISE * (self.rule == "sync")

    def spec(self) -> ev.JobSpec:
        """Return what the replicas ask for."""
        limits = {"replicas_max": len(self.steps), "on_death": self.on_death, "restarts_max": 9}
        return job(self.rule, self.replicas, self.shape, **limits)

    def gradient(self, rank: int, clock: int, weights: np.ndarray) -> tuple[np.ndarray, int]:
        """Return a gradient that marks its step, and in sync numbers that depend on all before it."""
        marks = np.zeros(self.shape, np.float32)
        if (rank, clock) in self.refused:
            marks[:] = np.nan
            return marks, 1
        marks[:, rank * STEPS_MAX + clock] = -1
        if self.rule == "sync":
            noise = np.random.default_rng([rank, clock]).normal(size=NOISE).astype(np.float32)
            marks[:, -NOISE:] = np.float32(0.1) * weights[:, -NOISE:] + noise
        return marks, samples_of(rank, clock)


def samples_of(rank: int, clock: int) -> int:
    """Return how many samples a step's gradient is the mean of."""
    return 1 + (rank + clock) % 3


@dataclass(frozen=True)
class Answer:
    """What the server says to a replica, on its way."""

    host: int
    life: int
    shard: int
    request: int
    effect: Any


def number_of(host: int, life: int, serial: int) -> int:
    """Number a request."""
    return (host * LIVES_MAX + life) * NUMBERS_MAX + serial


def answer_to(shard: int, effect: Any) -> Answer:
    """Address an effect that answers a request."""
    sender = effect.request // NUMBERS_MAX
    return Answer(sender // LIVES_MAX, sender % LIVES_MAX, shard, effect.request, effect)
