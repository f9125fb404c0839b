"""One replica of a virtual world: it drives the deployed `training` and `Session`, and counts what happens.

To the next editor: `asking` brings questions to servers and answers back, `exchanges` makes one pull or push
of the answers of all shards. Here is what a replica does with them, from its first join to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

from paramserver import events as ev
from paramserver.errors import Fault, JobError, RequestError
from paramserver.quantities import NANOSECONDS
from paramserver.session import Pulled, Session
from paramserver.sim.asking import Asking
from paramserver.sim.calls import COORDINATOR, Call
from paramserver.sim.compute import StepTimes
from paramserver.sim.diary import Diary
from paramserver.sim.exchanges import Exchanges
from paramserver.sim.heap import EventHeap, Timer
from paramserver.sim.parts import Parts
from paramserver.sim.problems import Task
from paramserver.sim.servers import Servers
from paramserver.sim.toll import Computation, Toll
from paramserver.tally import Tally
from paramserver.training import Pull, Push, training

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
        self._attempt = ""
        self.clock = 0
        self._compute: Computation | Timer | None = None
        self._parts = Parts()
        self._is_back = False  # it has joined again
        self._held: ev.Verdict | None = None  # while it is not known what to do next
        self._asking = Asking(
            name,
            home,
            servers,
            self._take,
            lambda attempts: self._exchanges.read_again(attempts),
            self._refused,
        )
        self._exchanges = Exchanges(
            self._asking, servers, diary, toll, self._pulled, self._pushed, self._leave
        )

    def __str__(self) -> str:
        return f"{self.name} {self.state}" + (f": {self.failure}" if self.failure else "")

    @property
    def _session(self) -> Session:
        return self._exchanges.session

    @property
    def _tally(self) -> Tally:
        return self._exchanges.tally

    # ------------------------------------------------------------------------------ beginning and ending

    def join(self) -> None:
        """Begin a new life."""
        self._end_life()
        self.state = "joining"
        self._exchanges.tally = Tally(self._servers.now)
        self._attempt = f"{self.name}-{self._asking.life}"
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
            self._attempt = f"{self.name}-{self._asking.life}"
        self._ask_to_join(fenced)

    def _ask_to_join(self, fenced: int = 0) -> None:
        event = ev.JoinReceived(0, self.name, self._attempt, self._spec, incarnation=fenced)
        self._asking.ask(COORDINATOR, event, 0, self._joined)

    def die(self) -> None:
        """End without a word; what it has sent still arrives."""
        self._asking.hang_up()
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
        self._asking.end_life()
        self._held = None
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

    # -------------------------------------------------------------------------------------------- answers

    def _take(self, call: Call, effect: Any) -> None:
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
            case _:
                call.take(call, effect)

    # ------------------------------------------------------------------------------------------- one life

    def _joined(self, call: Call, granted: ev.JoinGranted) -> None:
        assert granted.replica is not None
        is_back = self._is_back = self.state == "rejoining"
        if is_back:
            is_newer = granted.generation > self._session.granted.generation
            self._tally.begin_anew(granted.clock, rolled_back=is_newer)
        self.state, self.replica, self.clock = "training", granted.replica, granted.clock
        self._exchanges.session = Session(granted)
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

        initialiser = f"{self.name}-{self._asking.life}"
        for shard, request in self._session.initialise(initialiser, self._task.initial()).items():
            self._asking.ask(shard, request, self._servers.shards[shard].size, staged)

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
        self._asking.ask(COORDINATOR, event, 0, self._given)

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
            self._heap.at(self._heap.now + pause, self._ask_for_part_again, (self._asking.life, clock))
        else:
            self._take_part(clock, given)

    def _ask_for_part_again(self, question: tuple[int, int]) -> None:
        life, clock = question
        if life == self._asking.life:
            self._ask_for_part(clock)

    def _take_part(self, clock: int, given: ev.PartGiven) -> None:
        assert self.replica is not None
        if self._parts.take(clock, given):
            if given.dealt is None and self._is_back:
                self._leave("")  # it had finished, and the weights that are there now have it all
                return
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
                self._exchanges.push(asked)
            elif self.leaves_early:
                self._leave("", goes=True)
            else:
                self._exchanges.pull(asked)

    def _pulled(self, pulled: Pulled, clock: int) -> None:
        self.clock = clock
        if self._is_over():
            self._go_on(pulled)
            return
        if self._spec.samples and (wanted := self._parts.to_ask(clock)) is not None:
            self._ask_for_part(wanted)
        now = self._heap.now
        self.diary.compute(now, clock)
        self._tally.enter(ev.Phase.COMPUTE, self._servers.now)
        self._compute = self._toll.compute(self._times.nanoseconds(clock, now), self._computed, pulled)

    def _computed(self, pulled: Pulled) -> None:
        self.diary.computed(self._heap.now)
        self._go_on(pulled)

    def _pushed(self, verdict: ev.Verdict) -> None:
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

        self._asking.ask(COORDINATOR, event, 0, left)

    def _await_end(self) -> None:
        """Wait for the next heartbeat to say whether the job is over for good, or begins anew."""
        self._end_life()
        self.state = "waiting"
        self._tally.lost()
        self._tally.enter(ev.Phase.IDLE, self._servers.now)

    # ------------------------------------------------------------------------------------------ accounting

    def _counters(self) -> ev.Counters:
        return self._tally.counters(self._servers.now)
