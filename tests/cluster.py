"""A coordinator and shards in one thread: queues instead of networks, a number instead of time.

Orders and reports keep their order on each link, as the real links do. Everything else is up to whoever
drives the cluster: nothing moves along a link before `deliver_order` or `deliver_report` is called.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import count

from paramserver import events as ev
from paramserver.coordinator import Coordinator
from paramserver.recovery import kept
from paramserver.rows import Gradient, RowGradient
from paramserver.shard import Shard

Answer = Callable[[ev.ShardEffect | ev.CoordinatorEffect], None]


class Cluster:
    """The coordinator, the shards and the links between them.

    Args:
        shards: how many, all of one server; or if it recovers, each of a server of its own.
        watch: is told of each order and each note of the coordinator.
        recovers: checkpoints are kept.

    Attributes:
        record: what the coordinator has asked to remember.
        cuts: of each checkpoint, by shard.
        whole: told of each checkpoint once all its cuts are made; by default the coordinator is.
        lost: given each request, and who waits for its answer, that a crash leaves without one.
    """

    def __init__(
        self, shards: int, watch: Callable[[ev.Ordered | ev.Noted], None], recovers: bool = False
    ) -> None:
        self.now = 0.0
        self.wake_at: float | None = None
        self.record: ev.JobRecord | None = None
        self.log: tuple[ev.Ordered, ...] = ()
        self._has_journal = False
        self.cuts: dict[int, dict[int, ev.Cut]] = {}
        self.whole: Callable[[ev.Kept], None] = lambda kept: self.tell_coordinator(ev.CheckpointKept(kept))
        self.lost: Callable[[int, ev.ShardEvent, Answer], None] = lambda shard, event, answer: None
        self._asked: dict[int, tuple[int, ev.ShardEvent]] = {}  # by request: of which shard, and what
        self._servers = shards if recovers else 1
        self._down: set[int] = set()  # servers that have ended
        self._returning: set[int] = set()  # servers that know what they were
        self._recovers = recovers
        self.coordinator = Coordinator(self._servers, shards // self._servers, recovers=recovers)
        self.shards = [Shard(index) for index in range(shards)]
        self.orders: list[deque[ev.Order]] = [deque() for _ in self.shards]
        self.reports: list[deque[ev.Report]] = [deque() for _ in self.shards]
        self._watch = watch
        self._requests = count()
        self._answers: dict[int, Answer] = {}
        for server in range(self._servers):
            self.start_server(server)

    @property
    def unanswered(self) -> int:
        """Return how many requests have no final answer yet."""
        return len(self._answers)

    def request(self, answer: Answer) -> int:
        """Number a request; `answer` is called with each effect that answers it."""
        number = next(self._requests)
        self._answers[number] = answer
        return number

    def ask_shard(self, shard: int, event: ev.ShardEvent, answer: Answer) -> None:
        """Bring a request to a shard, with a number of its own and, as a wire would, arrays of its own."""
        event = replace(event, request=self.request(answer))  # type: ignore[call-arg]
        if isinstance(event, ev.PushReceived):
            event = replace(event, gradients={part: _copy(each) for part, each in event.gradients.items()})
        if isinstance(event, ev.InitialiseReceived):
            event = replace(event, values={part: array.copy() for part, array in event.values.items()})
        self._asked[event.request] = (shard, event)  # type: ignore[union-attr]
        self._route_shard(shard, event)

    def is_up(self, shard: int) -> bool:
        """Say whether a shard knows its job."""
        return self.shards[shard].knows_its_job

    def tell_coordinator(self, event: ev.CoordinatorEvent) -> None:
        """Bring an event to the coordinator."""
        if isinstance(event, ev.JoinReceived) and event.job is not None:
            self._has_journal = event.job.has_journal
        effects = self.coordinator.handle(event, self.now)
        self.log = self.coordinator.log
        for effect in effects:
            match effect:
                case ev.Ordered(order, shard):
                    self._watch(effect)
                    for index in range(len(self.shards)) if shard is None else [shard]:
                        if index not in self._down:
                            self.orders[index].append(order)
                case ev.WakeAt(when):
                    self.wake_at = when
                case ev.Noted():
                    self._watch(effect)
                case ev.Remember(record):
                    self.record = record
                case _:
                    self._answers.pop(effect.request)(effect)

    def start_server(self, server: int) -> None:
        """Let a server register."""
        shards = len(self.shards) // self._servers
        self._down.discard(server)
        known = {server: self.shards[server].record().orders} if server in self._returning else None
        self.tell_coordinator(ev.ServerRegistered(server, f"server-{server}", shards, known))
        if server in self._returning:
            self._returning.discard(server)
            self._route_shard(server, ev.ReportsAsked())

    def crash_server(self, server: int) -> None:
        """Let a server of one shard end, with all that it knew and what was on its links."""
        if self._has_journal:
            self._recover(server)
        else:
            self.shards[server] = Shard(server)
        self._down.add(server)
        for request, (shard, event) in list(self._asked.items()):
            if shard == server and request in self._answers:
                self.lost(shard, event, self._answers.pop(request))
        self.orders[server].clear()
        self.reports[server].clear()
        self.tell_coordinator(ev.ServerLost(server, "its connection broke."))

    def restart_coordinator(self, without: Collection[int] = ()) -> None:
        """Let the coordinator end, and another one go on with what was written down.

        Args:
            without: servers that are down.
        """
        self.coordinator = Coordinator(self._servers, len(self.shards) // self._servers, recovers=True)
        assert self.record is not None
        self.coordinator.restore(self.record, self.now, self.log)
        for link in (*self.orders, *self.reports):
            link.clear()
        if self._has_journal:
            self._returning.update(range(self._servers))
        for server in set(range(self._servers)).difference(without):
            self.start_server(server)

    def deliver_order(self, shard: int) -> None:
        """Bring the oldest order of a shard to it."""
        order = self.orders[shard].popleft()
        if isinstance(order, ev.GenerationBegun) and order.checkpoint is not None:
            order = replace(order, cut=self.cuts[order.checkpoint][shard])
        self._route_shard(shard, order)

    def deliver_report(self, shard: int) -> None:
        """Bring the oldest report of a shard to the coordinator."""
        self.tell_coordinator(self.reports[shard].popleft())

    def fire(self) -> None:
        """Fire the timer, at the present time."""
        self.wake_at = None
        self.tell_coordinator(ev.TimerFired())

    def _route_shard(self, shard: int, event: ev.ShardEvent) -> None:
        for effect in self.shards[shard].handle(event, self.now):
            match effect:
                case ev.Reported(report):
                    self.reports[shard].append(report)
                case ev.CutMade(checkpoint, cut):
                    self._keep(checkpoint, cut)
                case ev.PullParked():
                    self._answers[effect.request](effect)
                case _:
                    self._answers.pop(effect.request)(effect)

    def _recover(self, shard: int) -> None:
        """Let a shard be made anew from its journal; whoever waited there has lost the connection."""
        before, self.shards[shard] = self.shards[shard], Shard(shard)
        self._returning.add(shard)
        record = before.record()
        (taken,) = before.handle(ev.CutAsked(0), self.now)
        self.shards[shard].resume(record, taken.cut)
        for pull, _ in record.waiting:
            self.shards[shard].handle(ev.PullCancelled(pull.request), self.now)
            del self._answers[pull.request]

    def _keep(self, checkpoint: int, cut: ev.Cut) -> None:
        cuts = self.cuts.setdefault(checkpoint, {})
        cuts[cut.shard] = cut
        if len(cuts) == len(self.shards):
            self.whole(kept(checkpoint, cuts.values()))


def _copy(gradient: Gradient) -> Gradient:
    if isinstance(gradient, RowGradient):
        return RowGradient(gradient.indices.copy(), gradient.rows.copy(), gradient.shape)
    return gradient.copy()
