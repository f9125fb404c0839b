"""One replica between messages, which can be copied and compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scenario import COORDINATOR, Scenario, number_of

from paramserver import events as ev
from paramserver.audit import Settled, Violation
from paramserver.errors import JobError
from paramserver.session import PullExchange, PushExchange, Session
from paramserver.tally import Tally
from paramserver.training import Pull, Push, Step, training


@dataclass
class ReplicaCell:
    """One replica: the deployed `training`, `Session` and `Tally` between messages.

    Attributes:
        state: away, joining, staging, training, leaving, done, or ended (the job has).
        asked: open requests by (shard, number).
        crashed: it has died and not come again.
        muted: its heartbeats are lost.
        stops: it leaves before its next step.
        settled: what it has heard of its pushes, in all its lives.
        counters: of its earlier lives.
    """

    NOT_FROZEN = ("scenario", "inputs", "found", "sent", "spec")

    scenario: Scenario
    index: int
    state: str = "away"
    life: int = 0
    serial: int = 0
    clock: int = 0
    replica: ev.Replica | None = None
    asked: dict[tuple[int, int], Any] = field(default_factory=dict)
    crashed: bool = False
    muted: bool = False
    stops: bool = False
    settled: list[Settled] = field(default_factory=list)
    counters: list[dict[str, int]] = field(default_factory=list)
    inputs: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spec = self.scenario.spec()
        self.session: Session | None = None
        self.exchange: PullExchange | PushExchange | None = None
        self.generator: Any = None
        self.tally = Tally(0.0)
        self.undecided: int | None = None
        self.found: list[Violation] = []
        self.sent: list[tuple[int, Any]] = []

    def copy(self) -> ReplicaCell:
        """Return another that holds the same: a generator cannot be copied, but led to the same place."""
        other = ReplicaCell(self.scenario, self.index)
        for each in self.inputs:
            other.take(each)
        return other

    def take(self, what: tuple[Any, ...]) -> tuple[list[tuple[int, Any]], list[Violation]]:
        """Do one thing; return what it sends (to which shard or the coordinator) and what is wrong.

        Args:
            what: ``("join",)``, ``("crash",)``, ``("mute",)``, ``("stop",)``, ``("repeat", shard, number)``
                or ``("answer", shard, number, effect)``.
        """
        self.inputs.append(what)
        self.sent, self.found = [], []
        try:
            getattr(self, f"_{what[0]}")(*what[1:])
        except Exception as error:
            self.found.append(Violation("answer", f"a replica raised {error!r}"))
        return self.sent, self.found

    def account(self) -> list[ev.Counters]:
        """Return the counters of all its lives."""
        lives = [ev.Counters(samples=counts) for counts in self.counters]
        return [*lives, self.tally.counters(0.0)]

    # ------------------------------------------------------------------------------------ what it is told

    def _join(self) -> None:
        self._end_life()
        self.state, self.crashed, self.muted = "joining", False, False
        attempt = f"{self.index}-{self.life}"
        self._ask(COORDINATOR, ev.JoinReceived(0, f"worker{self.index}", attempt, self.spec))

    def _crash(self) -> None:
        self._cancel_pulls()
        self._end_life()
        self.state, self.crashed = "away", True

    def _mute(self) -> None:
        self.muted = True

    def _stop(self) -> None:
        self.stops = True

    def _repeat(self, shard: int, number: int) -> None:
        """No answer has come: ask again. A read begins anew on every shard."""
        event = self.asked[shard, number]
        if isinstance(event, ev.PullReceived):
            self._cancel_pulls()
            self.asked.clear()
            self._pull(self.wish)
        else:
            del self.asked[shard, number]
            self._ask(shard, event)

    def _answer(self, shard: int, number: int, effect: Any) -> None:
        event = self.asked.pop((shard, number))
        match effect:
            case ev.Ended():
                self._end_life()
                self.state = "ended"
            case ev.PullFenced():
                self._join()
            case ev.Refused() if self.state == "leaving":  # it was believed dead before it could leave
                self._join()
            case ev.JoinGranted():
                self._joined(effect)
            case ev.InitialiseAnswered():
                if not self.asked:
                    self._begin()
            case ev.PullGranted():
                self._granted(shard, effect)
            case ev.PushAnswered():
                self._pushed(shard, effect)
            case ev.Acknowledged():
                self.state = "done"
            case _:
                self.found.append(Violation("answer", f"{event} was not to be answered by {effect}"))

    # ------------------------------------------------------------------------------------------- one life

    def _joined(self, granted: ev.JoinGranted) -> None:
        self.session, self.replica, self.clock = Session(granted), granted.replica, granted.clock
        if granted.sealed:
            self._begin()
            return
        self.state = "staging"
        first = {"w": np.zeros(self.scenario.shape, np.float32)}
        for shard, request in self.session.initialise(f"{self.index}-{self.life}", first).items():
            self._ask(shard, request)

    def _begin(self) -> None:
        self.state = "training"
        step = Step(batch_at=lambda clock: clock, gradient=self._gradient)
        self.generator = training(step, self.scenario.steps[self.index], self.clock)
        self._go_on(None)

    def _gradient(self, values: Any, clock: int) -> Any:
        assert self.replica is not None
        gradient, samples = self.scenario.gradient(self.replica.rank, clock, values["w"])
        return 0.0, {"w": gradient}, samples

    def _go_on(self, answer: Any) -> None:
        try:
            wish = self.generator.send(answer)
        except StopIteration:
            self._leave()
            return
        if isinstance(wish, Push):
            self.tally.computed(wish.samples, wish.loss)
            self.undecided = wish.clock
            self.exchange = self.session.push(wish.clock, wish.gradients, wish.samples)
            for shard, request in self.exchange.requests.items():
                self._ask(shard, request)
        elif self.stops:
            self._leave()
        else:
            self._pull(wish)

    def _pull(self, wish: Pull) -> None:
        self.wish, self.clock = wish, wish.clock
        self.exchange = self.session.pull(wish.clock, wish.rows)
        for shard, request in self.exchange.requests.items():
            self._ask(shard, request)

    def _granted(self, shard: int, effect: ev.PullGranted) -> None:
        for part, values in effect.values().items():
            self.exchange.destination(part)[...] = values
        try:
            pulled = self.exchange.receive(shard, effect)
        except JobError as error:
            self.found.append(Violation("read", str(error)))
            return
        if pulled is None:
            return
        self.tally.pulled(pulled.clock_gap, pulled.verdict)
        if self.undecided is not None:
            self._settle("lost" if pulled.verdict is None else pulled.verdict.outcome.value)
        if self.scenario.rule == "sync":
            rows = pulled.values["w"]
            if (rows != rows[0]).any() or pulled.rounds != self.clock:
                self.found.append(Violation("read", f"{pulled.rounds} rounds at clock {self.clock}: {rows}"))
        self._go_on(pulled)

    def _pushed(self, shard: int, effect: ev.PushAnswered) -> None:
        verdict = self.exchange.receive(shard, effect.verdict)
        if verdict is None:
            return
        self.tally.decided(verdict)
        if verdict.outcome is not ev.Outcome.BUFFERED:
            self._settle(verdict.outcome.value)
        if verdict.outcome is ev.Outcome.FENCED:
            self._join()
            return
        self.clock += 1
        self._go_on(verdict)

    def _settle(self, outcome: str) -> None:
        assert self.replica is not None
        self.settled.append(Settled(self.replica.rank, self.undecided, outcome))
        self.undecided = None

    def _leave(self) -> None:
        self.tally.lost()
        self.state, self.exchange = "leaving", None
        self._ask(COORDINATOR, ev.LeaveReceived(0, self.replica, ev.Counters()))

    def _end_life(self) -> None:
        self.tally.lost()
        self.counters.append(dict(self.tally.counters(0.0).samples))
        self.tally, self.undecided = Tally(0.0), None
        self.life, self.serial = self.life + 1, 0
        self.asked, self.exchange, self.generator = {}, None, None

    def _cancel_pulls(self) -> None:
        """Its connections break, so the shards forget its reads."""
        for (shard, number), event in self.asked.items():
            if isinstance(event, ev.PullReceived):
                self.sent.append((shard, ev.PullCancelled(number)))

    def _ask(self, shard: int, event: Any) -> None:
        number = number_of(self.index, self.life, self.serial)
        self.serial += 1
        event = _own(replace(event, request=number))
        self.asked[shard, number] = event
        self.sent.append((shard, event))


def _own(event: Any) -> Any:
    """Give an event arrays of its own, as a wire would."""
    if isinstance(event, ev.PushReceived):
        return replace(event, gradients={part: each.copy() for part, each in event.gradients.items()})
    if isinstance(event, ev.InitialiseReceived):
        return replace(event, values={part: each.copy() for part, each in event.values.items()})
    return event
