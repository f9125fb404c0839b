"""A coordinator and shards in one thread: queues instead of networks, a number instead of time.

Orders and reports keep their order on each link, as the real links do. Everything else is up to whoever
drives the cluster: nothing moves along a link before `deliver_order` or `deliver_report` is called.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from paramserver import events as ev
from paramserver.coordinator import Coordinator
from paramserver.rows import Gradient, RowGradient
from paramserver.shard import Shard

Answer = Callable[[ev.ShardEffect | ev.CoordinatorEffect], None]


class Cluster:
    """The coordinator, the shards and the links between them.

    Args:
        shards: how many, all of one server.
        watch: is told of each order and each note of the coordinator.
    """

    def __init__(self, shards: int, watch: Callable[[ev.Ordered | ev.Noted], None]) -> None:
        self.now = 0.0
        self.wake_at: float | None = None
        self.coordinator = Coordinator(servers=1, shards_per_server=shards)
        self.shards = [Shard(index) for index in range(shards)]
        self.orders: list[deque[ev.Order]] = [deque() for _ in self.shards]
        self.reports: list[deque[ev.Report]] = [deque() for _ in self.shards]
        self._watch = watch
        self._requests = count()
        self._answers: dict[int, Answer] = {}
        self.tell_coordinator(ev.ServerRegistered(0, "server-0", shards))

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
        self._route_shard(shard, event)

    def tell_coordinator(self, event: ev.CoordinatorEvent) -> None:
        """Bring an event to the coordinator."""
        for effect in self.coordinator.handle(event, self.now):
            match effect:
                case ev.Ordered(order, shard):
                    self._watch(effect)
                    for index in range(len(self.shards)) if shard is None else [shard]:
                        self.orders[index].append(order)
                case ev.WakeAt(when):
                    self.wake_at = when
                case ev.Noted():
                    self._watch(effect)
                case _:
                    self._answers.pop(effect.request)(effect)

    def deliver_order(self, shard: int) -> None:
        """Bring the oldest order of a shard to it."""
        self._route_shard(shard, self.orders[shard].popleft())

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
                case ev.PullParked():
                    self._answers[effect.request](effect)
                case _:
                    self._answers.pop(effect.request)(effect)


def _copy(gradient: Gradient) -> Gradient:
    if isinstance(gradient, RowGradient):
        return RowGradient(gradient.indices.copy(), gradient.rows.copy(), gradient.shape)
    return gradient.copy()
