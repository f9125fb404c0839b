"""How a job stands, as rows of values: what the live table shows, and what ``status --json`` says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from paramserver.launch.progress import Moment


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica.

    Attributes:
        rank: its number.
        name: such as ``worker0/1``.
        incarnation: how many times it has been started.
        standing: ``live``, ``dead`` or ``left``.
        clock: finished steps.
        steps: those that it means to do in all; 0: not known.
        staleness: of its newest applied push, in versions; None before the first.
        samples: whose gradient it has computed.
        samples_per_second: lately; None where that is not known.
        loss: mean training loss of its latest steps; None before the first.
        does: ``idle``, ``pull``, ``wait``, ``compute``, ``push``, ``done`` or ``dead``. That it waits is a
            shard's word and of now; the others are as old as its newest heartbeat.
        waits_for: ranks of those that it waits for, slowest first; not more than a few.
        waits_for_others: how many more it waits for.
        waits_because: the rule that makes it wait, as a phrase; empty if it does not.
        waits_seconds: how long it has waited; None if it does not.
        heard_seconds: age of its newest heartbeat.
    """

    rank: int
    name: str
    incarnation: int
    standing: str
    clock: int
    steps: int
    staleness: int | None
    samples: int
    samples_per_second: float | None
    loss: float | None
    does: str
    waits_for: tuple[int, ...]
    waits_for_others: int
    waits_because: str
    waits_seconds: float | None
    heard_seconds: float


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server; its bytes are those of messages that carry tensors, None where it does not answer."""

    server: int
    address: str
    shards: int
    received_bytes: int | None
    sent_bytes: int | None


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One shard.

    Attributes:
        shard: its number.
        server: whose it is.
        version: applied updates.
        rounds: closed rounds (synchronous mode).
        bytes: of its weights.
        waiting: parked pulls.
        lock_wait_seconds: total time that callers waited for its lock.
        lock_hold_seconds: total time that it was held.
        pushes: received pushes by their verdict.
        staleness: applied pushes by their staleness here, in versions.
    """

    shard: int
    server: int
    version: int
    rounds: int
    bytes: int
    waiting: int
    lock_wait_seconds: float
    lock_hold_seconds: float
    pushes: Mapping[str, int]
    staleness: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Overview:
    """A job and its parts.

    Attributes:
        state: ``waiting`` (not all servers are up, or nobody has joined), ``joining``, ``initialising``,
            ``training``, ``over`` or ``failed``.
        reason: why it failed, as a sentence; else empty.
        model: its name; empty before the first join, like the next two.
        consistency: ``sync``, ``async`` or ``ssp:N``.
        optimizer: such as ``adam``.
        replicas_expected: how many begin; 0 before the first join.
        servers_expected: how many servers the job has.
        fraction: of all steps, 0 to 1.
        seconds_to_go: at the present speed; None where that is not known.
        samples: whose gradient has been computed.
        samples_per_second: of all replicas together, lately; None where that is not known.
        loss: mean training loss of the latest steps; None before the first.
        accuracy: newest on the validation set; None before the first.
        rounds: closed rounds (synchronous mode).
        servers: by index.
        shards: by number; those of servers that answer.
        replicas: by rank.
        generation: how many times the weights were recovered from a checkpoint.
    """

    state: str
    reason: str
    model: str
    consistency: str
    optimizer: str
    replicas_expected: int
    servers_expected: int
    fraction: float
    seconds_to_go: float | None
    samples: int
    samples_per_second: float | None
    loss: float | None
    accuracy: float | None
    rounds: int
    servers: tuple[ServerRow, ...]
    shards: tuple[ShardRow, ...]
    replicas: tuple[ReplicaRow, ...]
    generation: int = 0

    @property
    def restarts(self) -> int:
        """Return how often replicas were started again, all together."""
        return sum(row.incarnation - 1 for row in self.replicas)

    @property
    def moment(self) -> Moment:
        """Return what progress shows of it."""
        loss = math.nan if self.loss is None else self.loss
        return Moment(self.fraction, self.samples, loss, self.accuracy)
