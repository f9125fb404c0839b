"""A world in which servers end and come back, and the coordinator goes on with what it has written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster import Cluster
from host import Host
from world import World

from paramserver import events as ev
from paramserver.session import Session

LOOKS_MAX = 20_000
"""Far more messages than any of these jobs needs."""


class RecoveringHost(Host):
    """A replica that asks again where nobody answers, and stays until the job is over."""

    def join(self) -> None:
        """Ask where to go on; who comes back from an older generation says the same as before."""
        self._join_as(f"{self.name}-{self.lives + 1}")

    def rejoin(self) -> None:
        """Ask where to go on after the weights were recovered."""
        self._join_as(self.attempt)

    def _join_as(self, attempt: str) -> None:
        self.lives += 1
        self.attempt, self.state, self.muted = attempt, "joining", False
        spec = self.world.plan.spec
        self._ask_coordinator(
            lambda request: ev.JoinReceived(request, self.name, attempt, spec), self._joined
        )

    def beat(self) -> None:
        """Send a heartbeat, also after the last step."""
        if self.state not in ("training", "leaving", "done"):
            return
        replica, cluster = self.replica, self.world.cluster

        def answer(effect: ev.HeartbeatAnswered) -> None:
            if effect.ended:
                self.state = "home"
                self.lives += 1
            elif effect.generation > self.session.granted.generation:
                self.rejoin()

        beat = ev.Beat(replica, self.clock, self.steps, ev.Phase.WAIT, ev.Counters())
        cluster.tell_coordinator(ev.HeartbeatReceived(cluster.request(answer), (beat,)))

    def _goes_on(self, effect: Any) -> bool:
        if self.state == "done":
            return False
        if isinstance(effect, ev.PullFenced):
            self.rejoin()
            return False
        if isinstance(effect, ev.Ended):
            self.state = "done"  # the next heartbeat says how it goes on
            return False
        return super()._goes_on(effect)

    def _joined(self, effect: ev.CoordinatorEffect) -> None:
        if isinstance(effect, ev.JoinGranted) and self.lives > 1 and effect.clock >= self.steps:
            self.session, self.replica = Session(effect), effect.replica
            self._leave("")  # it had finished, and the weights that the others went back to have it all
        else:
            super()._joined(effect)

    def _fenced(self) -> None:
        self.rejoin()

    def _left(self, effect: ev.CoordinatorEffect) -> None:
        assert isinstance(effect, ev.Acknowledged), effect
        self.state = "done"

    def _ask_coordinator(self, make: Callable[[int], Any], answer: Callable[[Any], None]) -> None:
        world, life = self.world, self.lives

        def hear(effect: Any) -> None:
            if token not in world.waiting:
                return  # an earlier coordinator has answered already
            if isinstance(effect, ev.Unavailable):
                ask()
                return
            del world.waiting[token]
            answer(effect)

        def ask() -> None:
            if self.lives == life:
                world.waiting[token] = ask
                Host._ask_coordinator(self, make, hear)

        token = object()
        ask()

    def _ask_shard(self, shard: int, request: Any, answer: Callable[[int, Any], None]) -> None:
        life = self.lives

        def bring() -> None:
            if self.lives != life:
                return
            if not self.world.cluster.is_up(shard):
                self.world.send(bring)
                return
            self.world.cluster.ask_shard(shard, request, self._reply(shard, lambda said: answer(shard, said)))

        self.world.send(bring)


@dataclass
class RecoveringWorld(World):
    """A world whose servers may end at any moment.

    Attributes:
        crashes: how many more of them there will be.
        began_anew: how often the job did, as it had no checkpoint.
        waiting: asks again of the coordinator what it has not answered.
    """

    crashes: int = 3
    began_anew: int = 0
    waiting: dict[object, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.plan.shards, self._watch, recovers=True)
        self.cluster.whole = lambda kept: self.send(lambda: self._keep(kept))
        self.cluster.lost = self._lose
        self.hosts = [RecoveringHost(self, index, steps) for index, steps in enumerate(self.plan.steps)]
        self.bag: list[Callable[[], None]] = []
        self.down: set[int] = set()
        self.ended: str | None = None
        self.generations = 0
        self.coordinators = 0
        self._looks = 0

    def _keep(self, kept: ev.Kept) -> None:
        self.cluster.tell_coordinator(ev.CheckpointKept(kept))

    def _lose(self, shard: int, event: Any, answer: Callable[[Any], None]) -> None:
        """Send a request again whose answer died with its server."""

        def again() -> None:
            if self.cluster.is_up(shard):
                self.cluster.ask_shard(shard, event, answer)
            else:
                self.send(again)

        self.send(again)

    def _over(self) -> bool:
        self._looks += 1
        assert self._looks < LOOKS_MAX, f"goes on for ever: {self.describe()}"
        return all(host.state == "home" for host in self.hosts if host.expected)

    def _moves(self) -> list[Callable[[], None]]:
        moves = super()._moves() + [lambda server=server: self._start(server) for server in self.down]
        moves += [host.beat for host in self.hosts if host.state in ("training", "done", "leaving")]
        if self.ended is not None and not self.down and self._all_know_the_end():
            moves.append(self._keep_final)
        return moves

    def _keep_final(self) -> None:
        self.cluster.tell_coordinator(ev.CheckpointKept(None))
        self.crashes = 0  # from here on all there is to know is on disk

    def _all_know_the_end(self) -> bool:
        return not any(self.cluster.orders) and not any(self.cluster.reports)

    def _disturb(self, only_time: bool) -> None:
        cluster = self.cluster
        if only_time:
            self._pass_time()
            return
        if not self.crashes or cluster.record is None or self.down:
            return
        self.crashes -= 1
        if self.chance.random() < 0.3:
            self.coordinators += 1
            self.ended = None
            cluster.restart_coordinator()
            asks, self.waiting = list(self.waiting.values()), {}
            for ask in asks:
                ask()
        else:
            server = self.chance.randrange(self.plan.shards)
            self.down.add(server)
            cluster.crash_server(server)

    def _start(self, server: int) -> None:
        self.down.discard(server)
        self.cluster.start_server(server)

    def _watch(self, effect: ev.Ordered | ev.Noted) -> None:
        if isinstance(effect, ev.Ordered) and isinstance(effect.order, ev.GenerationBegun):
            self.generations = effect.order.generation
            self.began_anew += effect.order.checkpoint is None and not effect.shard
            self.ended = None
        super()._watch(effect)
