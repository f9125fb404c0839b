"""What starts the programs of a job: one small protocol, for processes, containers, and whatever comes.

To the next editor: a new engine (Kubernetes, Ray, ssh) is one class with one method, `Engine.start`, and one
for what it starts. It knows where servers are reached and how a job's files get there; nobody else does.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Literal, Protocol

Role = Literal["server", "worker", "evaluator"]


class Program(Protocol):
    """A server, a worker or the evaluator that has been started, wherever it runs."""

    @property
    def name(self) -> str:
        """For people, such as ``server 0``."""

    @property
    def code(self) -> int | None:
        """Its exit code, minus the signal that ended it; None while it runs."""

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, but no longer than this, and return `code`."""

    def stop(self) -> None:
        """Ask it to end in order (SIGTERM), and do not wait for that."""

    def logs(self) -> str:
        """Return what it has written to standard output and error."""


class Engine(Protocol):
    """Starts programs in one kind of place."""

    def start(self, role: Role, rank: int, environment: Mapping[str, str]) -> Program:
        """Start a program.

        Args:
            role: what it is.
            rank: its number among those of its role, from 0.
            environment: variables that it gets beside those of the place.

        Raises:
            JobError: it cannot be started.
        """


def start_all(engine: Engine, servers: int, workers: int, environment: Mapping[str, str]) -> list[Program]:
    """Start the programs of a job: servers, the evaluator, workers.

    Args:
        engine: where.
        servers: how many.
        workers: how many.
        environment: variables of all of them.

    Returns:
        Them, server 0 first.

    Raises:
        JobError: one cannot be started.
    """
    ranks: list[tuple[Role, int]] = [("server", rank) for rank in range(servers)]
    ranks += [("evaluator", 0), *(("worker", rank) for rank in range(workers))]
    return [engine.start(role, rank, environment) for role, rank in ranks]


def how_it_ended(code: int | None) -> str:
    """Say how a program ended.

    Args:
        code: its exit code, minus the signal that ended it; None while it runs.

    Example:
        >>> how_it_ended(-9), how_it_ended(1)
        ('was ended by SIGKILL', 'ended with exit code 1')
    """
    if code is None:
        return "is still running"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
