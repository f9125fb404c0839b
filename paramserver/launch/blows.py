"""What is done to the processes of a run on purpose, at planned times."""

from __future__ import annotations

import signal

from paramserver.chaos.plan import Plan
from paramserver.launch.children import Child, Children
from paramserver.launch.progress import Reporter
from paramserver.quantities import NANOSECONDS


class Blows:
    """Kills and pauses processes as planned.

    Args:
        plan: of the faults; None: nothing is done.
        children: the processes.
        reporter: is told what has been done.
    """

    def __init__(self, plan: Plan | None, children: Children, reporter: Reporter) -> None:
        happenings = [] if plan is None else plan.of_processes()
        self._due = [(each.at / NANOSECONDS, each) for each in happenings]
        self._paused: list[tuple[float, Child]] = []
        self._children = children
        self._reporter = reporter
        self._began: float | None = None

    def strike(self, now: float, trains: bool) -> None:
        """Do what is due.

        Args:
            now: monotonic seconds.
            trains: training has begun; times are counted from then.
        """
        if not (self._due or self._paused):
            return
        if self._began is None and trains:
            self._began = now
        if self._began is None:
            return
        since = now - self._began
        for until, child in [each for each in self._paused if each[0] <= since]:
            self._paused.remove((until, child))
            child.signal(signal.SIGCONT)
            self._reporter.note(f"On purpose: {child.name} goes on, {since:.1f} s after the start.")
        while self._due and self._due[0][0] <= since:
            _, each = self._due.pop(0)
            found = self._running(each.whom)
            if found is None:
                self._reporter.note(f"On purpose nothing happens to {each.whom}: it does not run.")
                continue
            done = "killed" if each.kind == "kill" else "paused"
            self._reporter.note(f"On purpose: {found.name} is {done}, {since:.1f} s after the start.")
            if each.kind == "kill":
                found.signal(signal.SIGKILL)
            else:
                found.signal(signal.SIGSTOP)
                assert each.until is not None, "the grammar wants it of a pause"
                self._paused.append((each.until / NANOSECONDS, found))

    def end(self) -> None:
        """Let whoever is paused go on."""
        for _, child in self._paused:
            child.signal(signal.SIGCONT)
        self._paused.clear()

    def _running(self, whom: str) -> Child | None:
        names = [child for child in self._children.running() if child.name.replace(" ", "") == whom]
        return names[-1] if names else None
