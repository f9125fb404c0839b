"""One training loop in one thread: it drives ``training`` over the client and counts what happens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from paramserver.client import FencedError, ReplicaClient
from paramserver.diaries import ReplicaDiary
from paramserver.errors import Fault, JobError, RequestError
from paramserver.events import NOBODY, Beat, Counters, Dealt, Outcome, Phase, PullParked, Verdict
from paramserver.logs import fields
from paramserver.rows import Gradients
from paramserver.session import Pulled
from paramserver.tally import Tally
from paramserver.training import Pull, Push, Step, training
from paramserver.types import Tensors
from worker.prefetch import Prefetch

log = logging.getLogger("worker")


LONG_WAIT_SECONDS = 10.0
"""A wait that is worth a line: by then whoever is dead has usually lost its lease."""

ASK_SECONDS = 0.25
"""Between two questions of a newcomer whether there is something for it to do."""


class ReplacedError(JobError):
    """Another process has taken a replica's place, so nothing is left for this one to do."""


@dataclass(frozen=True, slots=True)
class Task:
    """What replicas have to do.

    Attributes:
        step: returns how a rank's gradients are made, given what says which part of an epoch it does from a
            clock on; called once for each start of a replica.
        initial: returns the first weights by key.
    """

    step: Callable[[int, Callable[[int], Dealt | None]], Step[Any]]
    initial: Callable[[], Tensors]


class ReplicaLoop:
    """A replica that has joined.

    Args:
        client: its calls.
        task: what to do.
        trace: its row of the trace, and the time, in nanoseconds of the trace; None where none is kept.
    """

    def __init__(
        self,
        client: ReplicaClient,
        task: Task,
        trace: tuple[ReplicaDiary, Callable[[], int]] | None = None,
    ) -> None:
        self.client = client
        self._diary: ReplicaDiary | None
        self._diary, self._now = trace or (None, time.monotonic_ns)
        self._task = task
        self._lock = threading.Lock()
        self._steps = 0  # guarded by _lock; at the end, as far as is known
        self._going = threading.Event()  # it was asked to leave
        self._has_initialised = False
        self._told_of_wait = False
        self._clock = client.clock  # guarded by _lock
        self._tally = Tally(time.monotonic())  # guarded by _lock
        self._batches: Prefetch[Any] | None = None  # guarded by _lock
        self._lives = 1  # how often it has joined

    def beat(self) -> Beat:
        """Return what a heartbeat says of it; any thread may ask."""
        with self._lock:
            counters = self._tally.counters(time.monotonic())
            return Beat(self.client.replica, self._clock, self._steps, self._tally.phase, counters)

    def counters(self) -> Counters:
        """Return what it has done; any thread may ask."""
        return self.beat().counters

    def run(self) -> None:
        """Train from the clock that the join gave to the last step, and wait for what becomes of that.

        A newcomer first waits until there is something for it to do.

        Raises:
            RequestError: data or model are not in order.
            ReplacedError: another process has taken this replica's place.
            JobError: something failed, or it was told to stop.
        """
        try:
            while True:
                try:
                    if self.client.rank == 0 and not self.client.sealed:
                        self.client.initialise(self._task.initial())
                    return self._train()
                except FencedError as error:
                    self.rejoin(error.generation, str(error))
        finally:
            with self._lock:
                self._tally.lost()
                self._tally.enter(Phase.IDLE, time.monotonic())
            if self._diary is not None:
                self._diary.end(self._now())

    def rejoin(self, generation: int, reason: str) -> None:
        """Take part again, at the clock that the coordinator gives.

        Args:
            generation: the newest that was heard of.
            reason: why that has to be, as a sentence.

        Raises:
            ReplacedError: another process has taken this replica's place.
            JobError: nobody answered, or the job is over.
        """
        log.info("Replica %d joins again. %s", self.client.rank, reason)
        with self._lock:
            self._tally.enter(Phase.IDLE, time.monotonic())
        if self._diary is not None:
            self._diary.end(self._now())
        before = self.client.granted.generation
        try:
            self.client.rejoin(generation)
        except RequestError as error:
            if error.fault is Fault.PRECONDITION:
                raise ReplacedError(str(error)) from error
            raise
        self._lives += 1
        rolled_back = self.client.granted.generation > before
        self._has_initialised = self._has_initialised and not rolled_back
        with self._lock:
            self._clock = self.client.clock
            self._tally.begin_anew(self.client.clock, rolled_back=rolled_back)
        replica, clock = self.client.replica, self.client.clock
        log.info("Replica %d, incarnation %d, goes on at clock %d.", replica.rank, replica.incarnation, clock)

    def go(self) -> None:
        """End before the next step, with all gradients accounted for. Any thread may call."""
        self._going.set()

    @property
    def is_going(self) -> bool:
        """Say whether it was asked to leave."""
        return self._going.is_set()

    def stop(self, reason: str) -> None:
        """Wait for no batch any more; the connection has to be stopped beside. Any thread may call."""
        with self._lock:
            batches = self._batches
        if batches is not None:
            batches.stop(reason)

    def _train(self) -> None:
        self._enter(Phase.WAIT)
        first = self._next_part(self.client.clock)
        self._enter(Phase.IDLE)
        if self.is_going:
            return
        if first is None and self._lives > 1:
            return  # it had finished, and the weights that are there now have it all
        start_clock = self.client.clock if first is None else max(self.client.clock, first.clock)
        with self._lock:
            self._clock = start_clock

        def next_part(clock: int) -> Dealt | None:
            return first if clock == start_clock else self._next_part(clock)

        work = self._task.step(self.client.rank, next_part)
        with Prefetch(work.batch_at, start_clock, self.client.job.step_timeout_seconds) as batches:
            with self._lock:
                self._batches = batches
            step = Step(batches.batch_at, self._timed_gradient(work), work.rows)
            generator = training(step, start_clock=start_clock)
            answer: Pulled | Verdict | None = None
            while True:
                try:
                    asked = generator.send(answer)  # type: ignore[arg-type]  # None begins a generator
                except StopIteration:
                    return
                if self.is_going and isinstance(asked, Pull):
                    if asked.clock > start_clock:
                        self._pull(asked)  # which brings what became of the last push
                    return
                answer = self._pull(asked) if isinstance(asked, Pull) else self._push(asked)

    def _next_part(self, clock: int) -> Dealt | None:
        """Ask what to do from a clock on, again and again while there is a reason to wait."""
        told = ""
        while True:
            given = self.client.next_part(clock)
            if not given.waits or self.is_going:
                break
            if given.waits != told:
                log.info("%s", given.waits, extra=fields(rank=self.client.rank))
                told = given.waits
            self.client.connection.pause(ASK_SECONDS)
        with self._lock:
            self._steps = given.steps
        return given.dealt

    def _pull(self, asked: Pull) -> Pulled:
        self._enter(Phase.PULL)
        if self._diary is not None:
            self._diary.begin("pull", asked.clock, self._now())
        pulled = self.client.pull(asked.clock, self._note_wait, asked.rows)
        if self._diary is not None:
            self._diary.pulled(self._now(), pulled.released_by, pulled.sees)
        self._enter(Phase.IDLE)
        with self._lock:
            self._tally.pulled(pulled.clock_gap, pulled.verdict)
        return pulled

    def _push(self, asked: Push) -> Verdict:
        with self._lock:
            self._tally.computed(asked.samples, asked.loss, asked.clock)
        self._enter(Phase.PUSH)
        if self._diary is not None:
            self._diary.begin("push", asked.clock, self._now())
        verdict = self.client.push(asked.clock, asked.gradients, asked.samples)
        if self._diary is not None:
            shards = range(self.client.session.shards)
            self._diary.pushed(self._now(), self.client.replica, verdict, shards)
        self._enter(Phase.IDLE)
        with self._lock:
            self._tally.decided(verdict)
            if verdict.outcome is not Outcome.FENCED:
                self._clock = asked.clock + 1
        if verdict.outcome is Outcome.FENCED:
            raise FencedError(verdict.reason, verdict.generation, verdict.clock)
        return verdict

    def _timed_gradient(
        self, work: Step[Any]
    ) -> Callable[[Mapping[str, Any], Any], tuple[float, Gradients, int]]:
        def gradient(values: Mapping[str, Any], batch: Any) -> tuple[float, Gradients, int]:
            self._enter(Phase.COMPUTE)
            if self._diary is not None:
                self._diary.begin("compute", self._clock, self._now())
            try:
                found = work.gradient(values, batch)
            except (RequestError, JobError):
                raise
            except Exception as error:
                raise JobError(f"A gradient cannot be computed: {type(error).__name__}: {error}.") from error
            finally:
                self._enter(Phase.IDLE)
            if self._diary is not None:
                self._diary.computed(self._now())
            return found

        return gradient

    def _note_wait(self, parked: PullParked | None) -> None:
        if parked is not None and parked.wants_weights:
            self._initialise_for_another(-parked.since)
        self._enter(Phase.PULL if parked is None else Phase.WAIT)
        self._tell_of_a_long_wait(parked)
        if self._diary is None:
            return
        if parked is None:
            self._diary.unpark(self._now())
        else:
            self._diary.park(self._now(), parked.waits_for[0][0] if parked.waits_for else NOBODY)

    def _tell_of_a_long_wait(self, parked: PullParked | None) -> None:
        """Say once for whom a wait is that takes long, and when it is over."""
        rank = self.client.rank
        if parked is None:
            if self._told_of_wait:
                log.info("Replica %d goes on.", rank, extra=fields(rank=rank))
            self._told_of_wait = False
        elif not self._told_of_wait and -parked.since >= LONG_WAIT_SECONDS:
            self._told_of_wait = True
            log.warning("For %.0f s replica %d %s.", -parked.since, rank, parked, extra=fields(rank=rank))

    def _initialise_for_another(self, waited_seconds: float) -> None:
        """Give the first weights in place of rank 0, which should have long ago; the lowest rank first."""
        if self._has_initialised or waited_seconds < self.client.job.lease_seconds + self.client.rank:
            return
        self._has_initialised = True
        who = (self.client.rank, waited_seconds)
        log.info("Replica %d initialises the weights, which nobody has done for %.0f s.", *who)
        self.client.initialise(self._task.initial())

    def _enter(self, phase: Phase) -> None:
        with self._lock:
            self._tally.enter(phase, time.monotonic())
