"""What holds one replica in a world: it brings the generator's wishes to the shards, and starts it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from paramserver import events as ev
from paramserver.errors import JobError
from paramserver.rows import Gradient, RowsByKey
from paramserver.session import Pulled, Session
from paramserver.training import Pull, Push, Step, training

if TYPE_CHECKING:
    from world import World


class Host:
    """One replica, which may crash, be cut off, come back and come late.

    Attributes:
        state: away, joining, training, leaving, done, or ended (the job has).
        samples: of each step for which it has computed a gradient, in any of its lives.
        became: how many samples came to each outcome.
    """

    def __init__(self, world: World, index: int, steps: int) -> None:
        self.world, self.name, self.steps = world, f"worker{index}", steps
        self.state = "away"
        self.expected = index < world.plan.spec.replicas
        self.returns = not self.expected
        self.clock = 0
        self.lives = 0
        self.muted = False
        self.samples: dict[int, int] = {}
        self.became: Counter[str] = Counter()
        self.replica: ev.Replica | None = None

    @property
    def rank(self) -> int:
        """Return its rank."""
        assert self.replica is not None
        return self.replica.rank

    def may_join(self) -> bool:
        """Say whether it may come (again) now: newcomers come after the start."""
        return self.world.started

    def join(self) -> None:
        """Begin a new life."""
        self.lives += 1
        self.state, self.muted = "joining", False
        attempt = f"{self.name}-{self.lives}"
        self._ask_coordinator(
            lambda request: ev.JoinReceived(request, self.name, attempt, self.world.plan.spec), self._joined
        )

    def crash(self) -> None:
        """End without a word; what it has sent may still arrive."""
        self.lives += 1
        self.state = "away"
        self.returns = self.world.chance.random() < 0.8

    def mute(self) -> None:
        """Lose all heartbeats, until the coordinator believes it dead."""
        self.muted = True

    def beat(self) -> None:
        """Send a heartbeat, which arrives and is answered at once."""
        if self.state not in ("training", "leaving") or self.muted:
            return
        replica = self.replica

        def answer(effect: ev.HeartbeatAnswered) -> None:
            if replica in effect.fenced:
                self.join()

        beat = ev.Beat(replica, self.clock, self.steps, ev.Phase.WAIT, ev.Counters())
        cluster = self.world.cluster
        cluster.tell_coordinator(ev.HeartbeatReceived(cluster.request(answer), (beat,)))

    # --------------------------------------------------------------------------------------- one life

    def _joined(self, effect: ev.CoordinatorEffect) -> None:
        if not self._goes_on(effect):
            return
        assert isinstance(effect, ev.JoinGranted), effect
        self.session, self.replica = Session(effect), effect.replica
        self._begins_at, self.state = effect.clock, "training"
        if effect.sealed:
            self._begin()
            return
        missing = set(range(self.session.shards))

        def staged(shard: int, effect: ev.ShardEffect) -> None:
            if not self._goes_on(effect):
                return
            assert isinstance(effect, ev.InitialiseAnswered), effect
            missing.discard(shard)
            if not missing:
                self._begin()

        first = {"w": self.world.plan.first}
        for shard, request in self.session.initialise(f"{self.name}-{self.lives}", first).items():
            self._ask_shard(shard, request, staged)

    def _begin(self) -> None:
        step = Step(batch_at=lambda clock: clock, gradient=self._gradient, rows=self._rows)
        self._generator = training(step, self.steps, self._begins_at)
        self._go_on(None)

    def _rows(self, clock: int) -> dict[str, np.ndarray]:
        rows = self.world.plan.rows
        return {} if rows is None else {"w": rows(self.rank, clock)}

    def _gradient(self, values: Any, clock: int) -> tuple[float, dict[str, Gradient], int]:
        gradient, samples = self.world.plan.gradient(self.rank, clock, values["w"])
        self.samples[clock] = samples
        return 0.0, {"w": gradient}, samples

    def _go_on(self, answer: Pulled | ev.Verdict | None) -> None:
        try:
            wish = self._generator.send(answer)
        except StopIteration:
            self._leave("")
        except JobError as error:
            self._leave(str(error))
        else:
            self._pull(wish.clock, wish.rows) if isinstance(wish, Pull) else self._push(wish)

    def _pull(self, clock: int, rows: RowsByKey) -> None:
        self.clock = clock
        exchange = self.session.pull(clock, rows)

        def answer(shard: int, effect: ev.ShardEffect) -> None:
            if isinstance(effect, ev.PullParked) or not self._goes_on(effect):
                return
            assert isinstance(effect, ev.PullGranted), effect
            for part, value in effect.values().items():
                exchange.destination(part)[...] = value
            pulled = exchange.receive(shard, effect)
            if pulled is not None:
                if pulled.verdict is not None and clock - 1 in self.samples:
                    self.became[pulled.verdict.outcome.value] += self.samples[clock - 1]
                self.world.reads(self, clock, pulled)
                self._go_on(pulled)

        for shard, request in exchange.requests.items():
            self._ask_shard(shard, request, answer)

    def _push(self, push: Push) -> None:
        exchange = self.session.push(push.clock, push.gradients, push.samples)
        answered = False

        def answer(shard: int, effect: ev.ShardEffect) -> None:
            nonlocal answered
            if answered or not self._goes_on(effect):
                return
            assert isinstance(effect, ev.PushAnswered), effect
            if effect.verdict.outcome is ev.Outcome.FENCED:
                self._fenced()
                return
            verdict = exchange.receive(shard, effect.verdict)
            if verdict is not None:
                answered = True
                if verdict.round < 0:
                    self.became[verdict.outcome.value] += push.samples
                self._go_on(verdict)

        for shard, request in exchange.requests.items():
            self._ask_shard(shard, request, answer)
            if self.world.chance.random() < self.world.plan.duplicates:
                self._ask_shard(shard, request, answer)

    def _fenced(self) -> None:
        self.join()

    def _leave(self, failure: str) -> None:
        self.state = "leaving"
        replica, generation = self.replica, self.session.granted.generation
        self._ask_coordinator(
            lambda request: ev.LeaveReceived(request, replica, ev.Counters(), failure, generation), self._left
        )

    def _left(self, effect: ev.CoordinatorEffect) -> None:
        if isinstance(effect, ev.Refused):  # it was believed dead before it could leave
            self.join()
            return
        assert isinstance(effect, ev.Acknowledged), effect
        self.state = "done"

    def _goes_on(self, effect: ev.ShardEffect | ev.CoordinatorEffect) -> bool:
        """Say whether this life goes on after an answer, and end it if not."""
        if isinstance(effect, ev.Ended):
            self.state = "ended"
            self.lives += 1
        if isinstance(effect, ev.PullFenced):
            self.join()
        return not isinstance(effect, ev.Ended | ev.PullFenced)

    def _ask_coordinator(self, make: Callable[[int], Any], answer: Callable[[Any], None]) -> None:
        cluster = self.world.cluster
        reply = self._reply("coordinator", answer)
        self.world.send(lambda: cluster.tell_coordinator(make(cluster.request(reply))))

    def _ask_shard(self, shard: int, request: Any, answer: Callable[[int, Any], None]) -> None:
        reply = self._reply(shard, lambda effect: answer(shard, effect))
        self.world.send(lambda: self.world.cluster.ask_shard(shard, request, reply))

    def _reply(self, sender: int | str, answer: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return what takes an answer: it travels, too, and nobody is there to read one of another life."""
        life = self.lives

        def arrive(effect: Any) -> None:
            if self.lives == life:
                self.world.log.append((self.name, sender, _said(effect)))
                answer(effect)

        return lambda effect: self.world.send(lambda: arrive(effect))


def _said(effect: Any) -> Any:
    """Return what an answer says, without the host's number for it and the phrases for people."""
    match effect:
        case ev.PullGranted(snapshot=snapshot, clock_gap=gap, verdict=verdict):
            values = b"".join(value.tobytes() for value in snapshot.values.values())
            return "granted", snapshot.version, snapshot.rounds, gap, verdict, values
        case ev.PullParked(waits_for=waits_for, others=others):
            return "parked", waits_for, others
        case ev.JoinGranted(replica=replica, clock=clock, sealed=sealed):
            return "joined", replica, clock, sealed
        case ev.PushAnswered(verdict=verdict):
            return "pushed", verdict
    return type(effect).__name__
