"""A worker of a virtual world: some replicas, their heartbeat, and what befalls them together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paramserver import events as ev
from paramserver.faults import Happening
from paramserver.quantities import NANOSECONDS
from paramserver.sim.calls import COORDINATOR, Call
from paramserver.sim.heap import Timer
from paramserver.sim.links import Fabric
from paramserver.sim.replica import VirtualReplica
from paramserver.sim.servers import Servers

HEARTBEAT_SECONDS = 1.0
"""From one heartbeat to the next, as servers wish for it; with a short lease a third of that."""


class VirtualWorker:
    """One worker.

    Args:
        index: from 0.
        servers: whom its heartbeats tell.
        fabric: its links.
        lease_seconds: the job's.
        on_gone: called when one of its replicas has ended.

    Attributes:
        replicas: of this worker; filled by whoever makes it.
        alive: it runs, or is paused.
    """

    def __init__(
        self,
        index: int,
        servers: Servers,
        fabric: Fabric,
        lease_seconds: float,
        on_gone: Callable[[], object],
    ) -> None:
        self.index, self.alive = index, False
        self.replicas: list[VirtualReplica] = []
        self._servers, self._fabric, self._heap = servers, fabric, servers.heap
        self._beat_ns = round(min(HEARTBEAT_SECONDS, lease_seconds / 3) * NANOSECONDS)
        self._on_gone = on_gone
        self._resumes_at = 0
        self._life = 0
        self._timer: Timer | None = None

    def start(self, _: None = None) -> None:
        """Begin, or begin anew after a crash."""
        self.alive = True
        self._life += 1
        for replica in self.replicas:
            replica.join()
        self._timer = self._heap.timer(self._heap.now + self._beat_ns, self._beat)

    def befall(self, happening: Happening) -> None:
        """Let something happen to it; a restart, if there is one, is scheduled."""
        now, until = self._heap.now, happening.until
        match happening.kind:
            case "join":
                self.start()
            case "leave":
                for replica in self.replicas:
                    replica.leaves_early = True
            case "partition" if until is not None:
                self._fabric.hold(self.index, until)
            case "pause" if until is not None:
                self._pause(until - now)
            case "crash":
                self._crash()
                if until is not None:
                    self._heap.at(until, self._restart)

    def receive(self, action: Callable[[Any], object], argument: Any) -> None:
        """Call an action, now or when the worker is not paused any more."""
        if self._heap.now < self._resumes_at:
            self._heap.at(self._resumes_at, lambda late: self.receive(action, late), argument)
        else:
            action(argument)

    def gone(self, replica: VirtualReplica) -> None:
        """Be told that a replica has ended."""
        if all(one.state in ("done", "ended", "away") for one in self.replicas):
            self._stop()
        self._on_gone()

    def _stop(self) -> None:
        self.alive = False
        if self._timer is not None:
            self._timer.cancel()

    def _crash(self) -> None:
        self._stop()
        self._life += 1
        self._resumes_at = 0
        for replica in self.replicas:
            replica.die()
        self._on_gone()

    def _restart(self, _: None) -> None:
        if not self.alive and self._servers.coordination.ended is None:
            self.start()

    def _pause(self, duration: int) -> None:
        self._resumes_at = max(self._resumes_at, self._heap.now + duration)
        for replica in self.replicas:
            replica.delay(duration)

    def _beat(self, _: None) -> None:
        self._timer = self._heap.timer(self._heap.now + self._beat_ns, self._beat)
        if self._heap.now < self._resumes_at:
            return
        beats = tuple(beat for replica in self.replicas if (beat := replica.beat()) is not None)
        if beats:
            event = ev.HeartbeatReceived(0, beats)
            self._servers.ask(
                Call(self.index, COORDINATOR, event, 0, self._heard, _let_go, self._life, _let_go_of)
            )

    def _heard(self, call: Call, answer: ev.HeartbeatAnswered) -> None:
        if call.life == self._life:
            self.receive(self._tell, answer)

    def _tell(self, answer: ev.HeartbeatAnswered) -> None:
        for replica in self.replicas:
            replica.heard(answer)


def _let_go(call: Call) -> None:
    """Do nothing about a lost heartbeat: the next one says the same and more."""


def _let_go_of(call: Call, answer: Any) -> None:
    """Do nothing: a worker takes the answers to its heartbeats itself."""
