"""Two errors, split by who is to blame.

``RequestError``: what was asked cannot be done, and asking again gives the same answer; the asker must
change something. ``JobError``: the request was in order, and something else failed (a peer, the network,
the job). A message is one or more whole sentences: what was expected, what was found, what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import Enum


class Fault(Enum):
    """Why a request was refused; on the wire each has a gRPC status of the same meaning."""

    INVALID = "invalid"
    """The request contradicts itself or the job: a wrong shape, a NaN, a broken stream."""

    UNKNOWN = "unknown"
    """It names something that does not exist: a key, a replica, a shard."""

    PRECONDITION = "precondition"
    """It came at the wrong moment, or for another job: a push before initialise."""

    OUT_OF_RANGE = "out_of_range"
    """It names a version or round that is not kept any more, or not there yet."""

    EXHAUSTED = "exhausted"
    """It is larger than a limit allows."""

    DENIED = "denied"
    """Whoever asks may not: no token, a wrong one, or certificates that do not fit."""


class Failure(Enum):
    """Why a request that was in order could not be served."""

    UNAVAILABLE = "unavailable"
    """Nobody answers, or a part is not up yet: the same request may succeed later."""

    DEADLINE = "deadline"
    """The answer did not come in time."""

    BUSY = "busy"
    """The server has reached a limit for now: the same request may succeed later."""

    ENDED = "ended"
    """The job has failed or is over, and the message says why."""


class RequestError(ValueError):
    """The asker is to blame; the same request would be refused again.

    Args:
        message: whole sentences: what was expected, what was found, what to do next.
        fault: the kind of refusal.
    """

    def __init__(self, message: str, fault: Fault = Fault.INVALID) -> None:
        super().__init__(message)
        self.fault = fault


class JobError(RuntimeError):
    """The request was in order, but a peer, the network or the job failed.

    Args:
        message: whole sentences: what happened and what to do next.
        failure: the kind of failure.
    """

    def __init__(self, message: str, failure: Failure = Failure.ENDED) -> None:
        super().__init__(message)
        self.failure = failure


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the known word nearest to a misspelt one.

    Returns:
        ``" Did you mean 'epochs'?"`` with a leading space, or an empty string where nothing is near.

    Example:
        >>> did_you_mean("epoch", ["epochs", "batch"])
        " Did you mean 'epochs'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
