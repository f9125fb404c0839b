"""A plan of faults, as data: who is killed and paused when, and which calls of which process go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paramserver.errors import RequestError
from paramserver.faults import REAL, Blow, Fates, Faults, Happening, decide, parse_faults
from paramserver.job import Job
from paramserver.quantities import NANOSECONDS, format_number

OF_PROCESSES = ("kill", "pause")
"""What is done to a process by whoever has started it; all else a process does to itself."""

FATES_SHOWN = 2000
"""So many messages of each process are written down in a plan; those after them follow the same seed."""

WORKER, SERVER, LINK = 0, 1, 2
"""Set the fates of the messages of workers apart from those of a server's calls, and of its links."""


def parse_own_faults(text: str) -> Faults:
    """Read the faults that one process does to itself: to its messages and its connections.

    Raises:
        RequestError: it is not of the form, or is something that only others can do to it.
    """
    faults = parse_faults(text, REAL)
    for blow in faults.blows:
        if blow.kind in OF_PROCESSES:
            raise RequestError(
                f"A process cannot {blow.kind} itself, but found '{blow}'. Say it to paramserver train "
                "--chaos, or do it by hand with paramserver chaos."
            )
    return faults


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to go wrong, as a person says it.

    Attributes:
        faults: as ``--chaos`` has them.
        seed: of all chance in them; None: the job's.
    """

    faults: str
    seed: int | None = None

    def plan(self, job: Job) -> Plan:
        """Decide what goes wrong.

        Args:
            job: whose processes they are.

        Raises:
            RequestError: it is not of the form, names somebody who is not there, or there are no processes.
        """
        if job.engine != "local":
            raise RequestError(
                f"--chaos is done to processes of this machine, and the engine '{job.engine}' has none. "
                + ("Say --faults." if job.engine == "sim" else "Leave it out.")
            )
        seed = job.seed if self.seed is None else self.seed
        return decide_plan(self.faults, seed, job.workers, job.servers)


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes wrong in one run, with all chance decided.

    Attributes:
        faults: as they were asked for.
        seed: of all chance in them.
        happenings: what befalls workers and servers, in the order of time, from the moment that training
            begins.
        workers: how many there are.
        servers: how many there are.
    """

    faults: Faults
    seed: int
    happenings: tuple[Happening, ...]
    workers: int
    servers: int

    def of_processes(self) -> list[Happening]:
        """Return what has to be done to processes, in the order of time."""
        return [each for each in self.happenings if each.kind in OF_PROCESSES]

    def options(self, worker: int) -> list[str]:
        """Return what a worker has to be told on its command line; nothing where nothing befalls it."""
        own = [
            f"{each.kind}=w{worker}@{each.at}ns+{(each.until or each.at) - each.at}ns"
            for each in self.happenings
            if each.kind not in OF_PROCESSES and each.worker == worker
        ]
        text = " ".join([*map(str, self.faults.chances), *own])
        return ["--chaos", text, "--chaos-seed", str(self.seed)] if text else []

    def server_options(self) -> list[str]:
        """Return what a server has to be told: what happens to its messages to other servers."""
        text = " ".join(map(str, self.faults.chances))
        return ["--chaos-links", text, "--chaos-seed", str(self.seed)] if text and self._linked() else []

    def sentences(self) -> list[str]:
        """Say what will go wrong."""
        said = [_of_messages(self.faults, self.servers)] if self.faults.chances else []
        return said + [f"{each.at / NANOSECONDS:.3f} s after the start {each}" for each in self.happenings]

    def record(self) -> dict[str, Any]:
        """Return the plan as JSON has it: the same seed gives the same."""
        return {
            "faults": str(self.faults),
            "seed": self.seed,
            "happenings": [
                {
                    "what": each.kind,
                    "whom": each.whom,
                    "at_seconds": each.at / NANOSECONDS,
                    "until_seconds": None if each.until is None else each.until / NANOSECONDS,
                }
                for each in self.happenings
            ],
            "messages": {
                f"{role}{index}": _befallen(Fates(self.faults.chances, self.seed, (kind, index)))
                for role, kind, count in (("worker", WORKER, self.workers), ("server", LINK, self._linked()))
                for index in range(count if self.faults.chances else 0)
            },
        }

    def _linked(self) -> int:
        """Return how many servers have links."""
        return self.servers if self.servers > 1 else 0


def decide_plan(text: str, seed: int, workers: int, servers: int) -> Plan:
    """Read what is to go wrong, and draw what it leaves open.

    Args:
        text: faults, as `paramserver.faults.parse_faults` reads them, of real processes.
        seed: of all chance in them.
        workers: how many there are.
        servers: how many there are.

    Raises:
        RequestError: it is not of the form, or names somebody who is not there.

    Example:
        >>> plan = decide_plan("lose=1% kill=any@1s..9s", seed=7, workers=3, servers=1)
        >>> plan.sentences()[1]
        '4.624 s after the start worker2 is killed.'
    """
    faults = parse_faults(text, REAL)
    for blow in faults.blows:
        _check_there(blow, workers, servers)
    return Plan(faults, seed, tuple(decide(faults, seed, workers)), workers, servers)


def _check_there(blow: Blow, workers: int, servers: int) -> None:
    for number, count, role in ((blow.worker, workers, "worker"), (blow.server, servers, "server")):
        if number is not None and number >= count:
            raise RequestError(
                f"There is no {role} {number}, but found '{blow}' in the faults: there are "
                f"{role}s 0 to {count - 1}."
            )


def _of_messages(faults: Faults, servers: int) -> str:
    shares = ", ".join(f"{each.kind} {format_number(each.share * 100)}%" for each in faults.chances)
    links = " Of those between servers: the same." if servers > 1 else ""
    return f"Of the messages of every worker, requests and replies: {shares}.{links}"


def _befallen(fates: Fates) -> list[dict[str, Any]]:
    """Return what befalls the first messages, leaving out those that nothing befalls."""
    drawn: Sequence[tuple[str, int]] = [fates.next() for _ in range(FATES_SHOWN)]
    return [
        {"message": number, "what": kind, **({"late_seconds": late / NANOSECONDS} if late else {})}
        for number, (kind, late) in enumerate(drawn)
        if kind
    ]
