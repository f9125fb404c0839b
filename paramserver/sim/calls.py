"""Requests in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paramserver.events import NOBODY

COORDINATOR = -1
"""Instead of a shard's number: the request is for the coordinator."""


@dataclass(slots=True, eq=False)
class Call:
    """One request on its way, and its answers on theirs.

    Attributes:
        worker: who asks.
        shard: whom, or `COORDINATOR`.
        event: what; its request number is set where it arrives.
        size: bytes of tensors on the way there.
        answered: called with the call and each effect that answers it; more than once if a copy arrives.
        unanswered: called with the call when the connection broke under it.
        life: the asker's, so that it knows the answers to an earlier one.
        take: what the asker does with the call and an effect that answers it.
        attempts: how often it has been sent again.
        done: nobody waits for an answer any more.
        numbers: the request numbers that it has got.
        released_by: the rank whose push let a parked pull go; or `NOBODY`.
        sees: names of the pushes that this pull is the first to see.
    """

    worker: int
    shard: int
    event: Any
    size: int
    answered: Callable[[Call, Any], object]
    unanswered: Callable[[Call], object]
    life: int
    take: Callable[[Call, Any], object]
    attempts: int = 0
    done: bool = False
    numbers: list[int] = field(default_factory=list)
    released_by: int = NOBODY
    sees: tuple[str, ...] = ()
