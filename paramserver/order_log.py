"""The orders that a shard may have to hear again: all since the newest checkpoint that is whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from paramserver.events import CutOrdered, Ordered, RoundClosed


class OrderLog:
    """The newest orders of one job.

    Args:
        orders: to begin with, in order.
        given: how many orders have been given, those that are not kept here included.
    """

    def __init__(self, orders: Iterable[Ordered] = (), given: int = 0) -> None:
        self._orders = deque(orders)
        self._given = self._orders[-1].order.number if self._orders else given

    def add(self, ordered: Ordered) -> None:
        """Keep an order that is being given."""
        self._orders.append(ordered)
        self._given = ordered.order.number

    def trim(self, checkpoint: int) -> None:
        """Forget the orders up to the one that made a checkpoint, which every shard has handled."""
        places = [
            place
            for place, each in enumerate(self._orders)
            if isinstance(each.order, CutOrdered) and each.order.checkpoint == checkpoint
        ]
        for _ in range(places[0] + 1 if places else 0):
            self._orders.popleft()

    def all(self) -> tuple[Ordered, ...]:
        """Return the orders that are kept."""
        return tuple(self._orders)

    def last_reported(self) -> int:
        """Return the last order here of which shards report that they have handled it; 0 if there is none."""
        numbers = (each.order.number for each in self._orders if not isinstance(each.order, RoundClosed))
        return max(numbers, default=0)

    def missing(self, handled: Mapping[int, int]) -> list[Ordered] | None:
        """Return what some shards have to hear again.

        Args:
            handled: of each of these shards the last order that it has.

        Returns:
            Orders for one shard each, in order; None where a shard would need one that is not kept any more.
        """
        first = self._orders[0].order.number if self._orders else self._given + 1
        if any(not first - 1 <= number <= self._given for number in handled.values()):
            return None
        return [
            Ordered(each.order, shard, again=True)
            for each in self._orders
            for shard, number in handled.items()
            if each.order.number > number and each.shard in (None, shard)
        ]
