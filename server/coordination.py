"""The coordinator on the event loop: events in, effects carried out, one at a time.

The coordinator has no lock because it has only one caller: it is confined to the event loop, and each door of
this class asserts that.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from paramserver.coordinator import Coordinator
from paramserver.errors import JobError
from paramserver.events import (
    NOBODY,
    CheckpointKept,
    CheckpointWritten,
    CoordinatorEffect,
    CoordinatorEvent,
    EndAsked,
    Ended,
    GenerationBegun,
    JobEnded,
    JobRecord,
    JobStatus,
    JoinReceived,
    MembershipChanged,
    MemberStatus,
    Noted,
    Order,
    Ordered,
    Remember,
    Replica,
    Score,
    ScoreReceived,
    Sealed,
    ServerLost,
    Standing,
    StatusAnswered,
    StatusReceived,
    TimerFired,
    WakeAt,
)
from paramserver.logs import fields
from server.decisions import DecisionJournal
from server.requests import Requests

log = logging.getLogger("server")

OrderSink = Callable[[int, Order], None]
"""Takes a shard's number within its server and an order for it."""


class CoordinatorHost:
    """Drives the coordinator.

    Args:
        coordinator: owned by this host from now on.
        requests: where answers go.
        shards_per_server: how many shards each server owns.
        fail: called with a sentence if the coordinator itself breaks.

    Attributes:
        scorer: an observer has asked to join, or is expected, that will send the final score.
        tested: set once the final score is here.
        told: the replicas that have said that they have heard of the job's end.
        scored: called with each score.
        remember: called with what has to be written down before anything else is done.
        began_at: when all replicas had joined and the weights were in place, the loop's seconds; else None.
        ended_at: when the job ended; else None.
        interrupted: the job ended because somebody wanted it to.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        requests: Requests,
        shards_per_server: int,
        fail: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._coordinator = coordinator
        self._requests = requests
        self._shards_per_server = shards_per_server
        self._fail = fail
        self._journal: DecisionJournal | None = None
        self._outbox: deque[tuple[int, CoordinatorEvent, Sequence[CoordinatorEffect]]] = deque()
        self._sinks: dict[int, OrderSink] = {}
        self._inbox: deque[CoordinatorEvent] = deque()
        self._handling = False
        self._timer: asyncio.TimerHandle | None = None
        self.scorer = False
        self.tested = asyncio.Event()
        self.told: set[Replica] = set()
        self.scored: Callable[[Score], None] = lambda _: None
        self.remember: Callable[[JobRecord], None] = lambda _: None
        self.began_at: float | None = None
        self.ended_at: float | None = None
        self.interrupted = False
        self._started = self._sealed = False
        self._unwritten = ""  # why what was dealt before a checkpoint could not be written down
        self._staying: set[str] = set()  # names of replicas that stay after they have left

    def connect(self, server: int, sink: OrderSink) -> None:
        """Send the orders for one server's shards here from now on."""
        self._sinks[server] = sink

    def disconnect(self, server: int) -> None:
        """Send no more orders to a server."""
        self._sinks.pop(server, None)

    def handle(self, event: CoordinatorEvent) -> None:
        """Let the coordinator handle one event, after those that came before it.

        What an effect causes (an order handled at once, a report of it) waits until all effects of the event
        at hand are carried out.
        """
        assert threading.get_ident() == self._thread, "The coordinator is confined to the event loop."
        self._inbox.append(event)
        self.release()

    def release(self) -> None:
        """Carry out what may be carried out by now, and handle what comes of it."""
        if self._handling:
            return
        self._handling = True
        try:
            self._deliver()
            while self._inbox:
                self._handle(self._inbox.popleft())
                self._deliver()
        finally:
            self._handling = False

    def keep_journal(self, journal: DecisionJournal) -> None:
        """Let what the coordinator decides wait until it has been noted, in a job that asks for that."""
        self._journal = journal

    @property
    def has_journal(self) -> bool:
        """Whether the job has a journal, so that a lost server comes back as it was."""
        return self._coordinator.has_journal

    def resume(self) -> None:
        """Take notice of a job that the coordinator goes on with, exactly where it was.

        Nobody joins again, so all are taken for those who stay to the end.
        """
        status = self.status()
        self._started, self._sealed = status.started, status.sealed
        if self._started and self._sealed and self.began_at is None:
            self.began_at = self._loop.time()
        self._staying.update(member.name for member in status.members)
        self.scorer = self.scorer or bool(status.scores)
        if any(score.split == "test" for score in status.scores):
            self.tested.set()
        if status.ended:
            self.ended_at = self._loop.time()

    def heard_end(self, replicas: Iterable[Replica]) -> None:
        """Take note of who says to have heard that the job is over."""
        if self.ended_at is not None:
            self.told.update(replicas)

    def write_down_dealt(self) -> str:
        """Write down what has been dealt, before a checkpoint becomes whole; return why that failed."""
        self._unwritten = ""
        self.handle(CheckpointWritten())
        return self._unwritten

    def interrupt(self, reason: str) -> None:
        """End the job because somebody wants it to end; a job that is over waits for no score any more."""
        self.interrupted = self.interrupted or self.ended_at is None
        self.tested.set()
        self.handle(EndAsked(reason))

    def status(self) -> JobStatus:
        """Return how the job stands."""
        found: JobStatus | None = None
        for effect in self._coordinator.handle(StatusReceived(NOBODY), self._loop.time()):
            if isinstance(effect, StatusAnswered):
                found = effect.status
            else:
                self._carry_out(effect)
        assert found is not None, "a status is answered at once"
        return found

    def everyone_told(self) -> bool:
        """Say whether each replica that is alive, or stays to the end, has heard that the job is over."""
        return all(
            member.replica in self.told
            for member in self.status().members
            if member.standing is Standing.LIVE
            or (member.standing is Standing.LEFT and member.name in self._staying and _has_finished(member))
        )

    def stop(self) -> None:
        """Let no timer fire any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _handle(self, event: CoordinatorEvent) -> None:
        try:
            effects = self._coordinator.handle(event, self._loop.time())
        except Exception as error:
            log.exception("The coordinator failed at %s", type(event).__name__)
            number = getattr(event, "request", None)
            if number is None:
                self._fail(f"The coordinator failed inside at {type(event).__name__}; the log says more.")
            else:
                self._requests.fail(number, error)
            return
        due = 0
        if self._journal is not None and self._coordinator.has_journal:
            due = self._journal.note(effects, self._coordinator)
        if isinstance(event, StatusReceived):  # for people, and no decision
            for effect in effects:
                self._carry_out(effect)
        else:
            self._outbox.append((due, event, effects))

    def _deliver(self) -> None:
        """Carry out the effects that nothing holds up, in order."""
        while self._outbox and (self._journal is None or self._outbox[0][0] <= self._journal.synced):
            _, event, effects = self._outbox.popleft()
            refusal = self._write_down(effects)
            if refusal and isinstance(event, CheckpointWritten | CheckpointKept):
                self._unwritten = refusal  # a checkpoint less to go on from, and the training goes on
            elif refusal and not self.status().ended:  # then what is left to do needs no record
                self._give_up(effects, refusal)
                continue
            for effect in effects:
                self._carry_out(effect)
            self._watch(event)

    def _write_down(self, effects: Sequence[CoordinatorEffect]) -> str:
        """Write down what has to be before anybody hears of the rest; return why that failed, if it did."""
        record = next((effect.record for effect in effects if isinstance(effect, Remember)), None)
        if record is None:
            return ""
        seconds = 0.0 if self.began_at is None else self._loop.time() - self.began_at
        try:
            self.remember(replace(record, seconds=seconds))
        except JobError as error:
            log.error("%s", error)
            return str(error)
        return ""

    def _give_up(self, effects: Sequence[CoordinatorEffect], refusal: str) -> None:
        """End the job, since it cannot write down what it has to; what depends on that is not done."""
        for effect in (*effects, *(effect for _, _, later in self._outbox for effect in later)):
            number = getattr(effect, "request", None)
            if number is not None:
                self._requests.settle(number, Ended(number, refusal))
        self._outbox.clear()
        self._inbox.append(EndAsked(refusal))

    def _carry_out(self, effect: CoordinatorEffect) -> None:
        match effect:
            case Ordered(again=True):
                self._order(effect)
            case Ordered():
                self._watch_order(effect.order)
                self._order(effect)
            case WakeAt():
                self.stop()
                self._timer = self._loop.call_at(effect.when, self.handle, TimerFired())
            case Noted():
                log.info("%s", effect.message, extra=fields(rank=effect.rank))
            case Remember():
                pass  # it has been written down
            case _:
                self._requests.settle(effect.request, effect)

    def _watch(self, event: CoordinatorEvent) -> None:
        """Note what the end of the job will want to know."""
        match event:
            case JoinReceived():
                self.scorer = self.scorer or event.scores
                if event.stays:
                    self._staying.add(event.name)
            case ScoreReceived():
                self.scorer = True
                self.scored(event.score)
                if event.score.split == "test":
                    self.tested.set()
            case ServerLost() if self.ended_at is not None:
                if not self.status().ended:
                    self.ended_at = None
                    self.told.clear()
                elif not self.has_journal:
                    self.tested.set()  # nobody can pull the final weights any more

    def _watch_order(self, order: Order) -> None:
        self._started = self._started or (isinstance(order, MembershipChanged) and order.started)
        self._sealed = self._sealed or isinstance(order, Sealed)
        if self._started and self._sealed and self.began_at is None:
            self.began_at = self._loop.time()
        if isinstance(order, GenerationBegun):
            self._started, self._sealed = order.started, order.checkpoint is not None
            if self._started and self._sealed and self.began_at is None:
                self.began_at = self._loop.time()
        if isinstance(order, JobEnded):
            self.ended_at = self._loop.time()

    def _order(self, ordered: Ordered) -> None:
        if ordered.shard is not None:
            server, local = divmod(ordered.shard, self._shards_per_server)
            if server in self._sinks:
                self._sinks[server](local, ordered.order)
            return
        for sink in list(self._sinks.values()):
            for local in range(self._shards_per_server):
                sink(local, ordered.order)


def _has_finished(member: MemberStatus) -> bool:
    """Say whether a replica that has left did so after its last step; one that went before does not stay."""
    return member.clock >= member.steps
