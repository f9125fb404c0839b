"""Processes that end before their time, or hang, are started again; so often and no more."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from paramserver.events import JobStatus, MemberStatus, Standing
from paramserver.job import Job
from paramserver.launch.progress import count

PAUSE_SECONDS = 1.0
"""Least time between two starts of one process: what fails at once had better not fail in a rush."""

GRACE_SECONDS = 1.0
"""How long a worker that is believed dead may still come back by itself, before it is replaced."""

BAD_INPUT = 2
"""The exit code of a process that cannot use its input; starting it again would not help."""


class Mortal(Protocol):
    """A process or a container, as far as its end is looked at.

    Attributes:
        name: for people, such as ``server 0``.
        started_at: by ``time.monotonic``.
    """

    name: str
    started_at: float

    @property
    def code(self) -> int | None:
        """Its exit code, minus the signal that ended it; None while it runs."""

    def ending(self) -> str:
        """Say in a sentence how it ended."""

    def epitaph(self) -> str:
        """Say in a sentence or two how it ended, and what it said last."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""


P = TypeVar("P", bound=Mortal)


class Fleet(Protocol[P]):
    """All processes or containers of a job.

    Attributes:
        all: the newest of each name.
    """

    all: list[P]

    def failed(self) -> list[P]:
        """Return those that ended badly, those ended by a signal first."""


class Restarts(Generic[P]):
    """Starts the processes of one job again.

    A worker whose replicas are dead to the coordinator although it runs (it hangs, or is stopped) is killed
    and replaced, if the others wait for it.

    Args:
        job: says how often.
        children: the processes.
        restart: starts one that has ended again.
        note: told in a sentence what is done.

    Attributes:
        counts: how often each process was started again, by name.
    """

    def __init__(
        self, job: Job, children: Fleet[P], restart: Callable[[P], object], note: Callable[[str], None]
    ) -> None:
        self._job = job
        self._children = children
        self._restart = restart
        self._note = note
        self._seen_ended: set[P] = set()
        self._left_alone: set[str] = set()  # names of those that the job goes on without
        self._before: dict[str, dict[str, MemberStatus]] = {}  # replicas of a worker when it was started
        self._dead_since: dict[str, float] = {}
        self._epitaphs: dict[str, str] = {}  # of the newest that had last words, by name
        self.counts: Counter[str] = Counter()

    def look(self, status: JobStatus | None, now: float) -> None:
        """Start again what has ended; to be called again and again while the job is not over.

        What has ended is looked at twice: in between its coordinator is asked whether the job has failed.

        Args:
            status: the newest that the coordinator gave.
            now: by ``time.monotonic``.
        """
        for child in list(self._children.all):
            if child.code is None:
                self._look_at_living(child, status, now)
            elif child not in self._seen_ended:
                self._seen_ended.add(child)
            elif self._is_missed(child, status) and self._may_restart(child):
                if now >= child.started_at + PAUSE_SECONDS:
                    self._begin_again(child, status)
            elif child.code and self._is_dispensable(child):
                self._leave_alone(child)

    def final(self) -> list[P]:
        """Return the processes that ended badly and are not started again, those ended by a signal first."""
        return [
            child
            for child in self._children.failed()
            if not self._may_restart(child) and not self._is_dispensable(child)
        ]

    def epitaph(self, child: P) -> str:
        """Say how a process ended for good."""
        again = self.counts[child.name]
        times = "once" if again == 1 else f"{again} times"
        more = f" It had been started again {times}; --max-restarts allows no more." if again else ""
        if child.epitaph() == child.ending() and (before := self._epitaphs.get(child.name)):
            more += f" The one before it said more: {before}"
        return child.epitaph() + more

    def _is_missed(self, child: P, status: JobStatus | None) -> bool:
        """Say whether a process that has ended still has something to do."""
        if child.code:
            return True
        # A worker may have ended well before a server was lost, and with it what the worker had done.
        return (
            status is not None
            and not status.ended
            and any(member.standing is not Standing.LEFT for member in _replicas(child, status).values())
        )

    def _may_restart(self, child: P) -> bool:
        again = self.counts[child.name]
        if again >= self._job.max_restarts or (child.code == BAD_INPUT and not again):
            return False
        return self._job.durability != "none" or not child.name.startswith("server")

    def _is_dispensable(self, child: P) -> bool:
        """Say whether the job can go on without a process: that is what ``drop`` means."""
        is_worker = child.name.startswith("worker")
        return is_worker and self._job.on_death == "drop" and child.code != BAD_INPUT

    def _leave_alone(self, child: P) -> None:
        if child.name not in self._left_alone:
            self._left_alone.add(child.name)
            self._note(f"{self.epitaph(child)} The job goes on without it.")

    def _begin_again(self, child: P, status: JobStatus | None) -> None:
        self.counts[child.name] += 1
        self._seen_ended.discard(child)
        self._dead_since.pop(child.name, None)
        self._before[child.name] = {} if status is None else _replicas(child, status)
        if (epitaph := child.epitaph()) != child.ending():
            self._epitaphs[child.name] = epitaph
        ending = child.ending() if (child.code or 0) < 0 else epitaph
        self._note(f"{ending} It is started again ({self.counts[child.name]} of {self._job.max_restarts}).")
        self._restart(child)

    def _look_at_living(self, child: P, status: JobStatus | None, now: float) -> None:
        """Kill a worker that hangs, so that it is replaced."""
        if status is None or status.ended or self._job.on_death != "restart":
            return
        replicas = _replicas(child, status)
        dead = [member for member in replicas.values() if member.standing is Standing.DEAD]
        has_joined = self._has_joined(child.name, replicas)
        if not dead or not has_joined:
            self._dead_since.pop(child.name, None)
            return
        if now < self._dead_since.setdefault(child.name, now) + GRACE_SECONDS:
            return
        self._note(
            f"The process of {child.name} runs, but {count(len(dead), 'replica')} of it "
            f"{'is' if len(dead) == 1 else 'are'} dead to the coordinator. It is killed, to be replaced."
        )
        child.signal(signal.SIGKILL)

    def _has_joined(self, name: str, replicas: dict[str, MemberStatus]) -> bool:
        """Say whether a worker has joined since it was started: what is dead may be its predecessor's."""
        before = self._before.get(name)
        if before is None:
            return True
        for member in replicas.values():
            old = before.get(member.name)
            was_dead = old is not None and old.standing is Standing.DEAD
            if member.standing is not Standing.LIVE:
                return False
            if old is not None and not was_dead and member.replica.incarnation == old.replica.incarnation:
                return False
        del self._before[name]
        return True


def _replicas(child: Mortal, status: JobStatus) -> dict[str, MemberStatus]:
    """Return the replicas of a worker, by name."""
    worker = child.name.replace(" ", "")
    return {member.name: member for member in status.members if member.name.partition("/")[0] == worker}
