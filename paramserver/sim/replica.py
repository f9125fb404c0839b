"""One replica of a virtual world: it drives the deployed `training` and `Session`, and counts what happens.

To the next editor: everything here is a reaction, to an answer or to a timer. A replica that has died, or has
begun anew, has another `life`, and what was meant for an earlier one is not for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

from paramserver import events as ev
from paramserver.errors import Fault, JobError, RequestError
from paramserver.quantities import NANOSECONDS
from paramserver.session import Pulled, PullExchange, PushExchange, Session
from paramserver.sim.calls import COORDINATOR, Call
from paramserver.sim.compute import StepTimes
from paramserver.sim.diary import Diary
from paramserver.sim.heap import EventHeap, Timer
from paramserver.sim.parts import Parts
from paramserver.sim.problems import Task
from paramserver.sim.servers import Servers
from paramserver.sim.toll import Computation, Toll
from paramserver.tally import Tally
from paramserver.training import Pull, Push, training

RETRY_SECONDS = (0.05, 0.05, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4, *6 * (0.8,))
"""How long the client waits before it asks again after a lost message; after the last one it gives up."""

PATIENT_RETRY_SECONDS = 1.0
"""The same after all of those, where a server that is lost may come back."""

_BEATING = ("training", "rejoining", "leaving", "left", "waiting")


ASK_SECONDS = 0.25
"""Between two questions of a newcomer whether there is something for it to do."""


class Home(Protocol):
    """What a replica needs of its worker."""

    index: int

    def receive(self, action: Callable[[Any], object], argument: Any) -> None:
        """Call an action, now or when the worker is not paused any more."""

    def gone(self, replica: VirtualReplica) -> None:
        """Be told that a replica has ended."""


class VirtualReplica:
    """One replica.

    Args:
        home: its worker.
        name: such as ``worker0/1``.
        servers: whom it asks.
        spec: the job.
        task: what to do.
        times: how long its steps take.
        diary: where it writes down what happens.
        toll: what its own work costs.

    Attributes:
        state: away, joining, rejoining (after the weights were recovered), training, leaving, left (and stays
            to the end, since what it has done may have to be done again), waiting (for how the job goes on),
            done (all steps, or asked to leave), or ended (by the job, or because it counts no more).
        leaves_early: it leaves after its present step.
        failure: why it gave up, as a sentence; else empty.
        clock: finished steps.
    """

    def __init__(
        self,
        home: Home,
        name: str,
        servers: Servers,
        spec: ev.JobSpec,
        task: Task,
        times: StepTimes,
        diary: Diary,
        toll: Toll,
    ) -> None:
        self.name, self.state, self.leaves_early = name, "away", False
        self.failure = ""
        self.diary, self._toll = diary, toll
        self.replica: ev.Replica | None = None
        self._home, self._servers, self._spec, self._task, self._times = home, servers, spec, task, times
        self._heap: EventHeap = servers.heap
        self._life = 0
        self._attempt = ""
        self._session: Session
        self.clock = 0
        self._loss = math.nan
        self._pulled: Pulled | None = None
        self._compute: Computation | Timer | None = None
        self._received = 0
        self._calls: list[Call] = []
        self._parts = Parts()
        self._held: ev.Verdict | None = None  # while it is not known what to do next
        self._tally = Tally(servers.now)

    def __str__(self) -> str:
        return f"{self.name} {self.state}" + (f": {self.failure}" if self.failure else "")

    # ------------------------------------------------------------------------------ beginning and ending

    def join(self) -> None:
        """Begin a new life."""
        self._end_life()
        self.state = "joining"
        self._tally = Tally(self._servers.now)
        self._attempt = f"{self.name}-{self._life}"
        self._ask_to_join()

    def _rejoin(self, fenced: int = 0) -> None:
        """Ask where to go on, after the weights were recovered.

        Args:
            fenced: the incarnation that was believed dead, if that is why; then the next one takes part.
        """
        self._end_life()
        self.state = "rejoining"
        self._tally.enter(ev.Phase.IDLE, self._servers.now)
        if fenced:
            self._attempt = f"{self.name}-{self._life}"
        self._ask_to_join(fenced)

    def _ask_to_join(self, fenced: int = 0) -> None:
        event = ev.JoinReceived(0, self.name, self._attempt, self._spec, incarnation=fenced)
        self._ask(COORDINATOR, event, 0, self._joined)

    def die(self) -> None:
        """End without a word; what it has sent still arrives."""
        for call in self._calls:
            if isinstance(call.event, ev.PullReceived) and not call.done:
                self._servers.forget(call)
        self._end_life()
        self.state = "away"

    def delay(self, duration: int) -> None:
        """Let the present computation end later, since its worker is paused for so long."""
        if self._compute is not None and self._compute.pending:
            self._compute = self._toll.delay(self._compute, duration)

    def beat(self) -> ev.Beat | None:
        """Return what a heartbeat says of it; None where there is nothing to say."""
        if self.replica is None or self.state not in _BEATING:
            return None
        return ev.Beat(self.replica, self.clock, self._parts.steps, self._tally.phase, self._counters())

    def heard(self, answer: ev.HeartbeatAnswered) -> None:
        """Take what a heartbeat's answer says."""
        if self.state in ("left", "waiting"):
            if answer.ended:
                self._hear_the_end() if self.state == "waiting" else self._stop("done")
            elif answer.generation > self._session.granted.generation:
                self._rejoin()
            return
        if self.state != "training":
            return
        if answer.ended:
            self._hear_the_end()
        elif self.replica in answer.fenced:
            self._fenced()

    def _end_life(self) -> None:
        self.diary.end(self._heap.now)
        self._life += 1
        self._calls, self._held = [], None
        if self._compute is not None:
            self._toll.cancel(self._compute)

    def _stop(self, state: str) -> None:
        self._end_life()
        self.state = state
        self._home.gone(self)

    def _hear_the_end(self) -> None:
        """Leave a job that is over, so that the coordinator has the last counts; if that is known, end."""
        if self.state in ("training", "waiting"):
            self._leave("", "ended")
        else:
            self._stop("ended")

    def _refused(self, sentence: str) -> None:
        self.failure = sentence
        if self.state == "leaving":  # it was believed dead before it could leave, or nobody answers
            self._fenced()
        elif self.state == "training":
            self._leave(sentence)
        else:
            self._stop("ended")

    def _fenced(self, generation: int = 0) -> None:
        """Count no more, and take part again.

        Args:
            generation: that counts. If it is a newer one, that is why; else this replica was believed dead.
        """
        assert self.replica is not None
        is_new = generation > self._session.granted.generation
        self._rejoin(0 if is_new else self.replica.incarnation)

    # ------------------------------------------------------------------------------- asking and answering

    def _ask(self, shard: int, event: Any, size: int, answer: Callable[[Call, Any], object]) -> Call:
        worker, life = self._home.index, self._life
        call = Call(worker, shard, event, size, self._answered, self._unanswered, life, answer)
        self._servers.ask(call)
        return call

    def _answered(self, call: Call, effect: Any) -> None:
        self._home.receive(self._take, (call, effect))

    def _take(self, message: tuple[Call, Any]) -> None:
        call, effect = message
        if call.life != self._life or call.done:
            return
        call.done = not isinstance(effect, ev.PullParked)
        match effect:
            case ev.Ended(reason=reason):
                if self._servers.recovers and not reason and self.state == "training":
                    self._await_end()
                else:
                    self._hear_the_end()
            case ev.PullFenced(generation=generation):
                self._fenced(generation)
            case ev.Refused(fault=Fault.UNKNOWN) if isinstance(call.event, ev.PartAsked):
                self._fenced()
            case ev.Refused(message=sentence):
                self._refused(sentence)
            case ev.Unavailable():
                call.done = False
                self._ask_again(call)
            case _:
                call.take(call, effect)

    def _unanswered(self, call: Call) -> None:
        """Ask again, as the client does, after a pause; a read begins anew on every shard."""
        if call.life != self._life or call.done:
            return
        if isinstance(call.event, ev.PullReceived):
            for other in self._calls:
                other.done = True
                self._servers.forget(other)
        self._ask_again(call)

    def _ask_again(self, call: Call) -> None:
        patient = math.ceil(max(0.0, self._servers.patience_seconds - sum(RETRY_SECONDS)))
        if call.attempts >= len(RETRY_SECONDS) + patient / PATIENT_RETRY_SECONDS:
            self._refused(f"The servers did not answer {self.name} in {call.attempts + 1} attempts.")
            return
        quick = call.attempts < len(RETRY_SECONDS)
        seconds = RETRY_SECONDS[call.attempts] if quick else PATIENT_RETRY_SECONDS
        call.attempts += 1
        self._heap.at(self._heap.now + round(seconds * NANOSECONDS), self._repeat, call)

    def _repeat(self, call: Call) -> None:
        self._home.receive(self._send_again, call)

    def _send_again(self, call: Call) -> None:
        if call.life != self._life:
            return
        if isinstance(call.event, ev.PullReceived):
            self._pull(self._wish, call.attempts)
        elif not call.done:
            self._servers.ask(call)

    # ------------------------------------------------------------------------------------------- one life

    def _joined(self, call: Call, granted: ev.JoinGranted) -> None:
        assert granted.replica is not None
        is_back = self.state == "rejoining"
        if is_back:
            is_newer = granted.generation > self._session.granted.generation
            self._tally.begin_anew(granted.clock, rolled_back=is_newer)
        self.state, self.replica, self.clock = "training", granted.replica, granted.clock
        self._session = Session(granted)
        self._parts = Parts()
        if not self._spec.samples:
            self._parts.steps = self._task.steps_of(granted.replica.rank)
        if is_back and not self._spec.samples and self.clock >= self._parts.steps:
            self._leave("")  # it had finished, and the weights that are there now have it all
            return
        if granted.sealed or granted.replica.rank:
            self._begin()
            return
        missing = set(range(self._session.shards))

        def staged(call: Call, effect: ev.InitialiseAnswered) -> None:
            missing.discard(call.shard)
            if not missing:
                self._begin()

        initialiser = f"{self.name}-{self._life}"
        for shard, request in self._session.initialise(initialiser, self._task.initial()).items():
            self._ask(shard, request, self._servers.shards[shard].size, staged)

    def _begin(self) -> None:
        assert self.replica is not None
        if self._spec.samples:
            self._ask_for_part(self.clock)
            return
        step = self._task.step(self.replica.rank)
        self._generator: Generator[Pull | Push, Any, None] = training(step, self._parts.steps, self.clock)
        self._go_on(None)

    def _ask_for_part(self, clock: int) -> None:
        """Ask the coordinator what to do from a clock on."""
        assert self.replica is not None
        self._parts.asked = True
        event = ev.PartAsked(0, self.replica, self._session.granted.generation, clock)
        self._ask(COORDINATOR, event, 0, self._given)

    def _given(self, call: Call, given: ev.PartGiven) -> None:
        self._parts.asked = False
        clock = call.event.clock
        if given.generation != self._session.granted.generation:
            self._fenced(given.generation)
        elif given.waits and self.leaves_early:
            self._leave("", goes=True)
        elif given.waits:
            self._tally.enter(ev.Phase.WAIT, self._servers.now)
            pause = round(ASK_SECONDS * NANOSECONDS)
            self._heap.at(self._heap.now + pause, self._ask_for_part_again, (self._life, clock))
        else:
            self._take_part(clock, given)

    def _ask_for_part_again(self, question: tuple[int, int]) -> None:
        life, clock = question
        if life == self._life:
            self._ask_for_part(clock)

    def _take_part(self, clock: int, given: ev.PartGiven) -> None:
        assert self.replica is not None
        if self._parts.take(clock, given):
            self._tally.enter(ev.Phase.IDLE, self._servers.now)
            self.clock = max(self.clock, given.dealt.clock) if given.dealt is not None else self.clock
            assert self._task.dealt_step is not None
            step = self._task.dealt_step(self.replica.rank, self._parts.at)
            self._generator = training(step, start_clock=self.clock)
            self._go_on(None)
        elif self._held is not None:
            held, self._held = self._held, None
            self._go_on(held)

    def _is_over(self) -> bool:
        """Say whether no step is left at the present clock."""
        if self._spec.samples:
            return self._parts.is_over(self.clock)
        return self.clock == self._parts.steps

    def _go_on(self, answer: Pulled | ev.Verdict | None) -> None:
        if self._spec.samples and isinstance(answer, ev.Verdict) and not self._parts.knows(self.clock):
            self._held = answer  # until it is known what comes next
            if not self._parts.asked:
                self._ask_for_part(self.clock)
            return
        try:
            asked = self._generator.send(answer)
        except StopIteration:
            self._leave("")
        except (JobError, RequestError) as error:
            self._leave(str(error))
        else:
            if isinstance(asked, Push):
                self._push(asked)
            elif self.leaves_early:
                self._leave("", goes=True)
            else:
                self._pull(asked)

    def _pull(self, pull: Pull, attempts: int = 0) -> None:
        self._wish = pull
        self.diary.pull(self._heap.now, pull.clock, attempts)
        self._tally.enter(ev.Phase.PULL, self._servers.now)
        exchange = self._exchange = self._session.pull(pull.clock, pull.rows)
        self._calls, self._received = [], 0
        named = {
            shard: sum(indices.nbytes for indices in request.rows.values())
            for shard, request in exchange.requests.items()
        }
        self._toll.half(
            len(named), sum(named.values()), self._send_pull, (self._life, exchange, named, attempts)
        )

    def _send_pull(self, pull: tuple[int, PullExchange, Mapping[int, int], int]) -> None:
        life, exchange, named, attempts = pull
        if life != self._life:
            return
        for shard, request in exchange.requests.items():
            call = self._ask(shard, request, named[shard], self._granted)
            call.attempts = attempts
            self._calls.append(call)

    def _granted(self, call: Call, effect: ev.PullParked | ev.PullGranted) -> None:
        tally, shard = self._tally, self._servers.shards[call.shard]
        if isinstance(effect, ev.PullParked):
            if tally.phase is not ev.Phase.WAIT:
                self.diary.park(self._heap.now)
                tally.enter(ev.Phase.WAIT, self._servers.now)
            return
        exchange = self._exchange
        for part, value in effect.values().items():
            exchange.destination(part)[...] = value
        self._received += shard.weigh(effect.values()) if effect.rows else shard.size
        try:
            pulled = exchange.receive(call.shard, effect)
        except JobError as error:
            self._leave(str(error))
            return
        if pulled is None:
            return
        self.diary.granted(self._heap.now)
        if self._toll.is_free:
            self._take_pulled((self._life, pulled, call))
        else:
            tally.enter(ev.Phase.PULL, self._servers.now)
            taken = (self._life, pulled, call)
            self._toll.half(len(self._calls), self._received, self._take_pulled, taken)

    def _take_pulled(self, taken: tuple[int, Pulled, Call]) -> None:
        life, pulled, call = taken
        if life != self._life:
            return
        heap, tally = self._heap, self._tally
        self._pulled, self.clock = pulled, call.event.clock
        self.diary.pulled(heap.now, pulled, self._calls, call)
        tally.pulled(pulled.clock_gap, pulled.verdict)
        if self._is_over():
            self._go_on(pulled)
            return
        if self._spec.samples and (wanted := self._parts.to_ask(self.clock)) is not None:
            self._ask_for_part(wanted)
        self.diary.compute(heap.now, self.clock)
        tally.enter(ev.Phase.COMPUTE, self._servers.now)
        duration = self._times.nanoseconds(self.clock, heap.now)
        self._compute = self._toll.compute(duration, self._computed, pulled)

    def _computed(self, pulled: Pulled) -> None:
        self.diary.computed(self._heap.now)
        self._go_on(pulled)

    def _push(self, push: Push) -> None:
        self.diary.push(self._heap.now, push.clock)
        self._tally.computed(push.samples, push.loss, push.clock)
        self._tally.enter(ev.Phase.PUSH, self._servers.now)
        self._loss = push.loss
        exchange = self._push_exchange = self._session.push(push.clock, push.gradients, push.samples)
        shards = self._servers.shards
        sizes = {
            shard: shards[shard].weigh(request.gradients) for shard, request in exchange.requests.items()
        }
        self._calls = []
        self._toll.half(len(sizes), sum(sizes.values()), self._send_push, (self._life, exchange, sizes))

    def _send_push(self, push: tuple[int, PushExchange, Mapping[int, int]]) -> None:
        life, exchange, sizes = push
        if life == self._life:
            self._calls = [
                self._ask(shard, request, sizes[shard], self._pushed)
                for shard, request in exchange.requests.items()
            ]

    def _pushed(self, call: Call, effect: ev.PushAnswered) -> None:
        verdict = self._push_exchange.receive(call.shard, effect.verdict)
        if verdict is not None:
            self._toll.half(len(self._calls), 0, self._take_verdict, (self._life, call, verdict))

    def _take_verdict(self, taken: tuple[int, Call, ev.Verdict]) -> None:
        life, call, verdict = taken
        if life != self._life:
            return
        self._tally.decided(verdict)
        self._tally.enter(ev.Phase.IDLE, self._servers.now)
        replica = call.event.replica
        self.diary.pushed(self._heap.now, replica, self.clock, verdict, self._loss, self._calls)
        if verdict.outcome is ev.Outcome.FENCED:
            self._fenced(verdict.generation)
            return
        self.clock += 1
        self._go_on(verdict)

    def _leave(self, failure: str, state: str = "done", goes: bool = False) -> None:
        assert self.replica is not None
        self.failure = failure
        self._end_life()
        self.state = "leaving"
        self._tally.lost()
        self._tally.enter(ev.Phase.IDLE, self._servers.now)
        generation = self._session.granted.generation
        event = ev.LeaveReceived(0, self.replica, self._counters(), failure, generation, goes, self.clock)

        def left(call: Call, effect: Any) -> None:
            if self._servers.recovers and not failure and not goes and state == "done":
                self.state = "left"
            else:
                self._stop(state)

        self._ask(COORDINATOR, event, 0, left)

    def _await_end(self) -> None:
        """Wait for the next heartbeat to say whether the job is over for good, or begins anew."""
        self._end_life()
        self.state = "waiting"
        self._tally.lost()
        self._tally.enter(ev.Phase.IDLE, self._servers.now)

    # ------------------------------------------------------------------------------------------ accounting

    def _counters(self) -> ev.Counters:
        return self._tally.counters(self._servers.now)
