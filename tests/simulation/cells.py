"""The parts of a cluster, each with its auditor, each of which can be copied and compared.

A cell takes one message and says what it sends. What it does depends on nothing but its contents and that
message, so whoever has seen it once knows it for ever; `universe` stands on that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from marks import STEPS_MAX, job

from paramserver import events as ev
from paramserver.audit import CoordinatorAudit, Settled, ShardAudit, Violation
from paramserver.coordinator import Coordinator
from paramserver.errors import JobError
from paramserver.session import PullExchange, PushExchange, Session
from paramserver.shard import Shard
from paramserver.tally import Tally
from paramserver.training import Pull, Push, Step, training

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


class ShardCell:
    """A shard and its auditor."""

    NOT_FROZEN = ("scenario",)

    def __init__(self, scenario: Scenario, index: int) -> None:
        self.scenario = scenario
        self.shard, self.audit = Shard(index), ShardAudit(index)

    def copy(self) -> ShardCell:
        """Return another that holds the same."""
        other = copy.copy(self)
        other.shard, other.audit = copy.deepcopy((self.shard, self.audit))
        return other

    def take(self, event: Any, now: float) -> tuple[list[Any], list[Violation]]:
        """Handle an event; return effects and what is wrong with them."""
        try:
            effects = self.shard.handle(event, now)
        except Exception as error:
            return [], [Violation("answer", f"{type(event).__name__} raised {error!r}")]
        found = self.audit.observe(event, effects)
        return effects, found + self._judge_marks()

    def weights(self) -> np.ndarray | None:
        """Return its row of the weights, as an observer would read it."""
        copied = copy.deepcopy(self.shard)
        [granted] = copied.handle(ev.PullReceived(0, None, round=None), 0.0)
        if not isinstance(granted, ev.PullGranted):
            return None
        return next(iter(granted.snapshot.values.values()))[0]

    def _judge_marks(self) -> list[Violation]:
        """What is in the weights is what the auditor has seen being applied, each once, rounds as a mean."""
        kept = self.shard._weights.kept if self.shard._weights else ()
        if not kept:
            return []
        newest = next(iter(kept[-1].values.values()))[0]
        marks = newest[: len(self.scenario.steps) * STEPS_MAX].reshape(-1, STEPS_MAX)
        found = {(int(rank), int(clock)) for rank, clock in np.argwhere(marks)}
        seen = {(rank, clock) for rank, clocks in self.audit.applied.items() for clock in clocks}
        if self.scenario.rule == "sync":
            right = np.allclose(marks, self._shares(seen), rtol=1e-6)
        else:
            right = bool(np.isin(marks, (0, 1)).all())
        if found != seen or not right:
            return [Violation("once", f"the weights show {marks.tolist()}, but applied was {sorted(seen)}")]
        return []

    def _shares(self, seen: set[tuple[int, int]]) -> np.ndarray:
        """Return what each step has in the mean of its round: its share of the samples."""
        shares = np.zeros((len(self.scenario.steps), STEPS_MAX))
        for rank, clock in seen:
            shares[rank, clock] = samples_of(rank, clock)
        return np.divide(shares, shares.sum(axis=0), out=shares, where=shares.sum(axis=0) > 0)


class CoordinatorCell:
    """The coordinator and its auditor."""

    def __init__(self, scenario: Scenario) -> None:
        self.coordinator = Coordinator(servers=1, shards_per_server=scenario.shards)
        self.audit = CoordinatorAudit(scenario.shards)

    def copy(self) -> CoordinatorCell:
        """Return another that holds the same."""
        other = copy.copy(self)
        other.coordinator, other.audit = copy.deepcopy((self.coordinator, self.audit))
        return other

    def take(self, event: Any, now: float) -> tuple[list[Any], list[Violation]]:
        """Handle an event; return effects and what is wrong with them."""
        try:
            effects = self.coordinator.handle(event, now)
        except Exception as error:
            return [], [Violation("answer", f"{type(event).__name__} raised {error!r}")]
        return effects, self.audit.observe(event, effects)


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


def outcomes(cells: Iterable[ReplicaCell]) -> list[Settled]:
    """Return what all replicas have heard of their pushes."""
    return [each for cell in cells for each in cell.settled]
