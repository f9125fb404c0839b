"""Replicas, shards and the coordinator in one thread, with every message delivered when chance says so.

The real `training` generator and the real `Session` drive real shards and the real coordinator. Requests and
replies wait in one bag, from which chance draws; only orders and reports keep their order on each link, as
they do in the real thing. A seed is a schedule: the same seed draws the same messages.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cluster import Cluster
from host import Host

from paramserver import events as ev
from paramserver.session import Pulled

SILENT_ROUNDS_MAX = 60
"""So often the timer may fire in a row without anybody getting on; then someone waits for ever."""


@dataclass(frozen=True)
class Plan:
    """What happens in a world; chance only decides when.

    Attributes:
        steps: of each replica; those from `spec.replicas` on join late.
        gradient: of (rank, clock, weights): mean gradient and samples.
        rows: of (rank, clock): which rows of the weights that step reads; None: all of them, always.
        first: the first weights.
        duplicates: the share of pushes that are sent twice.
        faults: the share of draws that are a fault or let time pass.
    """

    spec: ev.JobSpec
    shards: int
    steps: tuple[int, ...]
    gradient: Callable[[int, int, Any], tuple[Any, int]]
    first: np.ndarray
    duplicates: float = 0.0
    faults: float = 0.0
    rows: Callable[[int, int], np.ndarray] | None = None


@dataclass
class World:
    """A cluster and its replicas; `run` lets everything happen that can.

    Attributes:
        reads: called with each replica's read: the host, its clock, and what it pulled.
        log: what each reply said, in the order of arrival.
        rounds: with whom each round was closed.
        restless: the ranks that have died, come again or come late.
    """

    plan: Plan
    chance: random.Random
    reads: Callable[[Host, int, Pulled], None] = lambda host, clock, pulled: None
    log: list[Any] = field(default_factory=list)
    rounds: list[tuple[int, ...]] = field(default_factory=list)
    restless: set[int] = field(default_factory=set)
    started: bool = False

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.plan.shards, self._watch)
        self.hosts = [Host(self, index, steps) for index, steps in enumerate(self.plan.steps)]
        self.bag: list[Callable[[], None]] = []
        self.ended: str | None = None

    def run(self) -> World:
        """Let everything happen, in an order that chance chooses, until nothing can happen any more.

        Raises:
            AssertionError: somebody waits for ever.
        """
        for host in self.hosts[: self.plan.spec.replicas]:
            host.join()
        silent = 0
        while not self._over():
            moves = self._moves()
            if self.plan.faults and (not moves or self.chance.random() < self.plan.faults):
                silent = 0 if moves else silent + 1
                assert silent < SILENT_ROUNDS_MAX, f"waits for ever: {self.describe()}"
                self._disturb(only_time=not moves)
                continue
            assert moves, f"waits for ever: {self.describe()}"
            silent = 0
            self.chance.choice(moves)()
        return self

    def send(self, deliver: Callable[[], None]) -> None:
        """Put a message into the bag."""
        self.bag.append(deliver)

    def weights(self) -> np.ndarray:
        """Return the weights now, as a late observer would read them."""
        parts = [shard.handle(ev.PullReceived(0, None), self.cluster.now) for shard in self.cluster.shards]
        slices = {part: value for [granted] in parts for part, value in granted.snapshot.values.items()}
        return np.concatenate([slices[part] for part in sorted(slices, key=lambda part: part.row_begin)])

    def describe(self) -> str:
        """Say how everyone stands."""
        hosts = ", ".join(f"{host.name}: {host.state} at clock {host.clock}" for host in self.hosts)
        return f"{hosts}; {[shard.statistics().parked for shard in self.cluster.shards]}"

    def _over(self) -> bool:
        over = all(host.state in ("done", "ended", "away") for host in self.hosts if host.expected)
        return over and (self.ended is not None or not self.plan.faults) and not self._moves()

    def _moves(self) -> list[Callable[[], None]]:
        cluster, moves = self.cluster, list[Callable[[], None]]()
        for shard in range(self.plan.shards):
            if cluster.orders[shard]:
                moves.append(lambda shard=shard: cluster.deliver_order(shard))
            if cluster.reports[shard]:
                moves.append(lambda shard=shard: cluster.deliver_report(shard))
        if self.bag:
            moves += [self._deliver] * min(len(self.bag), 6)
        late = [host for host in self.hosts if host.state == "away" and host.returns and host.may_join()]
        return moves + [host.join for host in late]

    def _deliver(self) -> None:
        self.bag.pop(self.chance.randrange(len(self.bag)))()

    def _disturb(self, only_time: bool) -> None:
        """Let a replica crash or be cut off, or let time pass until the timer fires."""
        running = [host for host in self.hosts if host.state == "training"]
        what = "time" if only_time or not running else self.chance.choice(["crash", "mute", "time"])
        if what == "time":
            self._pass_time()
        elif what == "crash":
            self.chance.choice(running).crash()
        else:
            self.chance.choice(running).mute()

    def _pass_time(self) -> None:
        if self.cluster.wake_at is None:
            return
        self.cluster.now = max(self.cluster.now, self.cluster.wake_at)
        for host in self.hosts:
            host.beat()
        self.cluster.fire()

    def _watch(self, effect: ev.Ordered | ev.Noted) -> None:
        match effect:
            case ev.Ordered(ev.MembershipChanged(members=members, started=started)):
                self.started = started
                self.restless |= {m.rank for m in members if m.incarnation > 1 or m.late}
            case ev.Ordered(ev.RoundClosed(ranks=ranks)):
                self.rounds.append(ranks)
            case ev.Ordered(ev.JobEnded(reason=reason)):
                self.ended = reason
