"""Messages on their way, in virtual time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from paramserver.data import generator
from paramserver.faults import Fates
from paramserver.sim.cores import Cores
from paramserver.sim.heap import Action, EventHeap
from paramserver.sim.laws import Law
from paramserver.sim.process import Process
from paramserver.sim.world import World

BLOCK_DRAWS = 64
"""Latencies that are drawn at once."""


class Link:
    """One direction of a cable: it carries one message after the other.

    Args:
        bits_per_second: infinite for a cable on which no message waits.
        other: the other direction, if somebody asks for how long either of them is busy.
    """

    __slots__ = ("_began", "_both_ns", "_busy_ns", "_free_at", "_ns_per_byte", "_other")

    def __init__(self, bits_per_second: float, other: Link | None = None) -> None:
        self._ns_per_byte = 8e9 / bits_per_second
        self._began = self._free_at = 0  # the newest span without a gap: everything before it is over
        self._busy_ns = self._both_ns = 0
        self._other = other
        if other is not None:
            other._other = self

    @property
    def is_unlimited(self) -> bool:
        """Say whether bytes cost no time here."""
        return self._ns_per_byte == 0

    def carry(self, now: int, size: int) -> tuple[int, int]:
        """Carry a message of so many bytes; return when its first byte enters and when its last has left."""
        duration = round(size * self._ns_per_byte)
        begin = max(now, self._free_at)
        if begin > self._free_at:
            self._began = begin
        self._free_at = end = begin + duration
        self._busy_ns += duration
        other = self._other
        if other is not None and begin < other._free_at:
            # What the other carried before its newest span was over before now, and cannot overlap.
            self._both_ns += max(0, min(end, other._free_at) - max(begin, other._began))
        return begin, end

    def busy_ns(self, now: int) -> int:
        """Return for how long it has carried something, up to now."""
        return self._busy_ns - max(0, self._free_at - now)

    def either_busy_ns(self, now: int) -> int:
        """Return for how long it or the other direction has carried something, up to now."""
        other = self._other
        assert other is not None, "only a link that was made with its other direction knows"
        both = self._both_ns + other._both_ns
        both -= max(0, min(self._free_at, other._free_at) - max(self._began, other._began, now))
        return self.busy_ns(now) + other.busy_ns(now) - both


class Handlers:
    """What serves a few requests at a time, first come first served.

    Args:
        count: how many at a time.
        cores: what they run on.
        process: whose they are.
    """

    __slots__ = ("_cores", "_count", "_free", "_life", "_process", "_queue", "busy_ns")

    def __init__(self, count: int, cores: Cores, process: Process) -> None:
        self._count = self._free = count
        self._cores, self._process = cores, process
        self._life = 0
        self._queue: deque[tuple[int, Action, Any]] = deque()
        self.busy_ns = 0

    def serve(self, duration: int, action: Action, argument: Any) -> None:
        """Serve a request that comes now and takes so long; call the action with the argument at its end."""
        if not duration:
            action(argument)
        elif self._free:
            self._free -= 1
            self.busy_ns += duration
            self._cores.begin(duration, self._served, (self._life, action, argument))
        else:
            self._queue.append((duration, action, argument))

    def end_life(self) -> None:
        """Forget everything, since the server has ended."""
        self._life += 1
        self._free = self._count
        self._queue.clear()

    def _served(self, served: tuple[int, Action, Any]) -> None:
        self._process.do(self._done, served)

    def _done(self, served: tuple[int, Action, Any]) -> None:
        life, action, argument = served
        if life != self._life:
            return
        if self._queue:
            duration, waits, whose = self._queue.popleft()
            self.busy_ns += duration
            self._cores.begin(duration, self._served, (life, waits, whose))
        else:
            self._free += 1
        action(argument)


class Wire:
    """One direction of one connection: nothing on it overtakes, but what a fault lets overtake.

    Args:
        heap: virtual time.
        out: the sender's link.
        into: the receiver's link.
        latency: draws how long a first byte travels, in nanoseconds.
    """

    __slots__ = ("_heap", "_into", "_is_free", "_last_arrival", "_last_entry", "_out", "latency")

    def __init__(self, heap: EventHeap, out: Link, into: Link, latency: Callable[[], int]) -> None:
        self._heap, self._out, self._into, self.latency = heap, out, into, latency
        self._last_entry = self._last_arrival = 0
        self._is_free = out.is_unlimited and into.is_unlimited

    def send(self, size: int, deliver: Action, argument: Any, late: int = 0, overtakes: bool = False) -> None:
        """Send a message of so many bytes; `deliver` is called with the argument when all of it is there."""
        if self._is_free:
            self._arrive(self._heap.now + self.latency() + late, deliver, argument, overtakes)
            return
        begin, end = self._out.carry(self._heap.now, size)
        delay = self.latency() + late
        first, last = begin + delay, end + delay
        if not overtakes:
            self._last_entry = first = max(first, self._last_entry)
        if self._into.is_unlimited:
            self._arrive(max(first, last), deliver, argument, overtakes)
        else:
            self._heap.at(first, self._enter, (size, last, deliver, argument, overtakes))

    def _enter(self, message: tuple[int, int, Action, Any, bool]) -> None:
        size, last, deliver, argument, overtakes = message
        _, end = self._into.carry(self._heap.now, size)
        self._arrive(max(end, last), deliver, argument, overtakes)

    def _arrive(self, when: int, deliver: Action, argument: Any, overtakes: bool) -> None:
        if not overtakes:
            self._last_arrival = when = max(when, self._last_arrival)
        self._heap.at(when, deliver, argument)


class Fabric:
    """All links of a world, and what goes wrong on them.

    Args:
        heap: virtual time.
        world: costs and faults.
        servers: how many.
        workers: how many, late ones included.

    Attributes:
        server_links: of each server the link in and the link out.
    """

    def __init__(self, heap: EventHeap, world: World, servers: int, workers: int) -> None:
        network = world.network
        self._heap, self._seed, self._latency = heap, world.seed, network.latency
        slow = dict(network.slow_links)
        rates = [slow.get(worker, network.bandwidth) for worker in range(workers)]
        self._worker_links = [(Link(rate), Link(rate)) for rate in rates]
        links_in = [Link(network.server) for _ in range(servers)]
        self.server_links = [(into, Link(network.server, into)) for into in links_in]
        self._fates = Fates(world.faults.chances, world.seed) if world.faults.chances else None
        self._held: dict[int, int] = {}  # worker -> when its partition ends
        self._up: dict[tuple[int, int], Wire] = {}
        self._down: dict[tuple[int, int], Wire] = {}
        self._lanes: dict[tuple[int, bool], Wire] = {}

    def up(self, worker: int, server: int, size: int, deliver: Action, argument: Any, lost: Action) -> None:
        """Send a request; if it is lost, `lost` is called with the argument instead of `deliver`."""
        wire = self._up.get((worker, server))
        if wire is None:
            out, into = self._worker_links[worker][1], self.server_links[server][0]
            wire = self._up[worker, server] = Wire(self._heap, out, into, self._draws(worker, server, 0))
        self._send(wire, worker, size, deliver, argument, lost, True)

    def down(self, worker: int, server: int, size: int, deliver: Action, argument: Any, lost: Action) -> None:
        """Send a reply."""
        wire = self._down.get((worker, server))
        if wire is None:
            out, into = self.server_links[server][1], self._worker_links[worker][0]
            wire = self._down[worker, server] = Wire(self._heap, out, into, self._draws(worker, server, 1))
        self._send(wire, worker, size, deliver, argument, lost, False)

    def lane(self, worker: int, back: bool, deliver: Action, argument: Any, lost: Action) -> None:
        """Send something small to the coordinator, or back, on a lane of its own: only latency counts."""
        wire = self._lanes.get((worker, back))
        if wire is None:
            free = Link(math.inf)
            wire = Wire(self._heap, free, free, self._draws(worker, 0, 2 + back))
            self._lanes[worker, back] = wire
        self._send(wire, worker, 0, deliver, argument, lost, not back)

    def hold(self, worker: int, until: int) -> None:
        """Cut a worker off: what it and the servers send each other from now on leaves at that time."""
        self._held[worker] = max(until, self._held.get(worker, 0))

    def latency(self, worker: int, server: int) -> int:
        """Draw how long it takes until one end notices that the other has gone."""
        wire = self._up.get((worker, server))
        return wire.latency() if wire is not None else 0

    def _send(
        self,
        wire: Wire,
        worker: int,
        size: int,
        deliver: Action,
        argument: Any,
        lost: Action,
        may_repeat: bool,
    ) -> None:
        if self._held and self._held.get(worker, 0) > self._heap.now:
            message = (wire, worker, size, deliver, argument, lost, may_repeat)
            self._heap.at(self._held[worker], lambda held: self._send(*held), message)
            return
        if self._fates is None:
            wire.send(size, deliver, argument)
            return
        kind, late = self._fates.next()
        if kind == "lose":
            self._heap.at(self._heap.now + wire.latency(), lost, argument)
            return
        wire.send(size, deliver, argument, late, overtakes=kind == "reorder")
        if kind == "duplicate" and may_repeat:
            wire.send(size, deliver, argument)

    def _draws(self, *position: int) -> Callable[[], int]:
        return draws(self._latency, self._seed, "latency", *position)


def draws(law: Law, seed: int, purpose: str, *position: int) -> Callable[[], int]:
    """Return a function that draws from a law, one duration at a time."""
    if law.is_constant:
        always = round(law.mean)
        return lambda: always
    rng = generator(seed, purpose, *position)
    drawn: list[int] = []

    def draw() -> int:
        if not drawn:
            drawn.extend(reversed(law.draw(rng, BLOCK_DRAWS).tolist()))
        return drawn.pop()

    return draw
