"""Where pulls wait: one hard thing in one place.

A parked pull needs a shard's frontier to come as far as a number. The lot keeps the pulls by that number, so
that waking looks at the few different needs, not at every pull.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from paramserver.events import PullReceived, Replica

NOT_BEFORE_START = 1 << 62
"""What a pull needs while the job has not begun: a frontier that never comes."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A waiting pull: whose, what it needs, and since when (the host's ``now``)."""

    pull: PullReceived
    replica: Replica
    needs: int
    since: float


class ParkingLot:
    """The parked pulls of one shard."""

    def __init__(self) -> None:
        self._by_request: dict[int, Parked] = {}
        self._by_need: dict[int, dict[int, None]] = {}  # need -> requests, oldest first

    def __len__(self) -> int:
        return len(self._by_request)

    def __iter__(self) -> Iterator[Parked]:
        return iter(list(self._by_request.values()))

    def get(self, request: int) -> Parked | None:
        """Return a parked pull, or None if it waits no more."""
        return self._by_request.get(request)

    def park(self, parked: Parked) -> None:
        """Let a pull wait."""
        self._by_request[parked.pull.request] = parked
        self._by_need.setdefault(parked.needs, {})[parked.pull.request] = None

    def remove(self, request: int) -> None:
        """Forget a pull; nothing happens if it waits no more."""
        parked = self._by_request.pop(request, None)
        if parked is not None:
            requests = self._by_need[parked.needs]
            del requests[request]
            if not requests:
                del self._by_need[parked.needs]

    def wake(self, frontier: int) -> list[Parked]:
        """Take out the pulls that need no more than this, in the order in which they came."""
        ready = [need for need in self._by_need if need <= frontier]
        return self._take(request for need in ready for request in self._by_need[need])

    def empty(self) -> list[Parked]:
        """Take out all pulls, in the order in which they came."""
        return self._take(self._by_request)

    def need_again(self, parked: Parked, needs: int) -> None:
        """Give a parked pull another need."""
        self.remove(parked.pull.request)
        self.park(replace(parked, needs=needs))

    def _take(self, requests: Iterable[int]) -> list[Parked]:
        taken = [self._by_request[request] for request in sorted(requests)]
        for parked in taken:
            self.remove(parked.pull.request)
        return taken
