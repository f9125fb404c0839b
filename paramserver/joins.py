"""Joins that some shards have not heard of yet, and the clocks that those who joined began at."""

from __future__ import annotations

from paramserver.events import OrderHandled, Replica


class Joins:
    """Joins that some shards have not heard of yet, and the clocks that those who joined began at."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._pending: dict[int, _Join] = {}  # by the order that announces it
        self._begins_at: dict[Replica, int] = {}
        self._held: list[tuple[int, Replica]] = []  # until a generation has begun everywhere

    def announce(self, order: int, request: int | None, replica: Replica) -> None:
        """Let a join wait until every shard has handled the order that announces it.

        Args:
            order: its number.
            request: to be answered then; None for a newcomer that has joined before, and enters now.
            replica: who joins.
        """
        self._pending[order] = _Join(replica, request, self._shards)

    def hold(self, request: int, replica: Replica) -> None:
        """Let a join wait until the job goes on everywhere."""
        self._held.append((request, replica))

    def is_pending(self, replica: Replica) -> bool:
        """Say whether a replica's join waits for an order to be handled."""
        return any(join.replica == replica for join in self._pending.values())

    def repeat(self, request: int, replica: Replica) -> int | None:
        """Return the clock of a replica that has joined; None if it now waits with its first request."""
        for join in self._pending.values():
            if join.replica == replica:
                join.requests.append(request)
                return None
        return self._begins_at[replica]

    def begins_at(self, replica: Replica) -> int | None:
        """Return the clock at which a replica begins; None while not every shard has heard of it."""
        return None if self.is_pending(replica) else self._begins_at.get(replica)

    def handled(self, report: OrderHandled) -> tuple[Replica, tuple[int, ...], list[int]] | None:
        """Note that a shard has handled an order.

        Returns:
            When it was the last one to hear of a join: who joined, the clocks of its rank on all shards, and
            the requests to be answered once `begins` is told where it begins.
        """
        join = self._pending.get(report.number)
        if join is None:
            return None
        join.clocks.setdefault(report.shard, report.clocks[join.replica.rank])
        if len(join.clocks) < self._shards:
            return None
        del self._pending[report.number]
        return join.replica, tuple(join.clocks.values()), join.requests

    def begins(self, replica: Replica, clock: int) -> None:
        """Note where a replica begins."""
        self._begins_at[replica] = clock

    def knows(self, replica: Replica) -> bool:
        """Say whether it is known where a replica began."""
        return replica in self._begins_at

    def waits_for(self, shard: int, order: int) -> list[int]:
        """Return the orders up to this one that announce a join, and that a shard has not handled."""
        return sorted(
            each for each, join in self._pending.items() if each <= order and shard not in join.clocks
        )

    def take_held(self) -> list[tuple[int, Replica]]:
        """Take out the requests that were held, and whose each is."""
        held, self._held = self._held, []
        return held

    def take_all(self) -> list[tuple[int, Replica]]:
        """Take out every request that waits, and whose it is."""
        pending = self._pending.values()
        taken = [(request, join.replica) for join in pending for request in join.requests] + self._held
        self._pending.clear()
        self._held = []
        return taken


class _Join:
    def __init__(self, replica: Replica, request: int | None, shards: int) -> None:
        self.replica = replica
        self.requests = [] if request is None else [request]
        self.clocks: dict[int, int] = {}  # of the rank, on the shards that have handled it
