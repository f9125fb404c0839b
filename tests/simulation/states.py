"""The states of a small cluster, by number."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from frozen import freeze

from paramserver.audit import Violation


class State(NamedTuple):
    """Everything, by number."""

    coordinator: int
    shards: tuple[int, ...]
    hosts: tuple[int, ...]
    orders: tuple[tuple[int, ...], ...]
    reports: tuple[tuple[int, ...], ...]
    bag: tuple[int, ...]  # sorted
    now: float
    wake_at: float | None
    faults: tuple[tuple[str, int], ...]


@dataclass
class Draft:
    """A state in the making."""

    coordinator: int
    shards: list[int]
    hosts: list[int]
    orders: list[list[int]]
    reports: list[list[int]]
    bag: list[int]
    now: float
    wake_at: float | None
    faults: dict[str, int]
    found: list[Violation]
    deaf: int = -1  # the request whose answer gets lost

    def finished(self) -> State:
        return State(
            self.coordinator,
            tuple(self.shards),
            tuple(self.hosts),
            tuple(map(tuple, self.orders)),
            tuple(map(tuple, self.reports)),
            tuple(sorted(self.bag)),
            self.now,
            self.wake_at,
            tuple(self.faults.items()),
        )


class Numbers:
    """Things by number; equal ones share one."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, thing: Any) -> int:
        """Return the number of a thing."""
        number = self._numbers.setdefault(freeze(thing), len(self.things))
        if number == len(self.things):
            self.things.append(thing)
        return number
