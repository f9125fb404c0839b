"""What a pull or a push costs the replica that makes it, and what a gradient costs it: time of a core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paramserver.sim.cores import Cores, Work
from paramserver.sim.heap import Action, EventHeap, Timer
from paramserver.sim.network import Network


@dataclass(slots=True, eq=False)
class Computation:
    """One gradient on its way: first without a core (on an accelerator), then with one.

    Attributes:
        under_way: what it waits for now.
        with_core: nanoseconds of a core that are still to come after that.
        action: called with the argument at the end.
        argument: any one thing.
    """

    under_way: Timer | Work
    with_core: int
    action: Action
    argument: Any

    @property
    def pending(self) -> bool:
        """Say whether it is still going on."""
        return self.under_way.pending


class Toll:
    """Lets a replica's own work take its time.

    Args:
        heap: virtual time.
        network: what requests cost.
        cores: what it runs on.
        cpu: the share of a gradient's time that needs a core.

    Attributes:
        is_free: pulls and pushes cost a replica nothing.
    """

    def __init__(self, heap: EventHeap, network: Network, cores: Cores, cpu: float) -> None:
        self._heap, self._cores, self._cpu = heap, cores, cpu
        self._each, self._request = network.client_ns / 2, network.client_per_request_ns / 2
        self._byte = network.client_per_byte_ns
        self.is_free = not (self._each or self._request or self._byte)

    def half(self, requests: int, size: int, action: Action, argument: Any) -> None:
        """Do what comes before the requests of a pull or push, or after their answers; then call the action.

        Args:
            requests: how many.
            size: bytes of tensors that go or have come with them.
            action: called with the argument at the end.
            argument: any one thing.
        """
        if self.is_free:
            action(argument)
            return
        duration = round(self._each + self._request * requests + self._byte * size)
        self._cores.begin(duration, action, argument)

    def compute(self, duration: int, action: Action, argument: Any) -> Computation | Timer:
        """Compute a gradient that takes so long; then call the action with the argument."""
        if not self._cores.shared:
            return self._heap.timer(self._heap.now + duration, action, argument)
        with_core = round(self._cpu * duration)
        computation = Computation(Timer(0, None, None), with_core, action, argument)
        self._wait(computation, duration - with_core)
        return computation

    def cancel(self, computation: Computation | Timer) -> None:
        """Let it not go on."""
        under_way = computation if isinstance(computation, Timer) else computation.under_way
        if isinstance(under_way, Timer):
            under_way.cancel()
        else:
            self._cores.cancel(under_way)

    def delay(self, computation: Computation | Timer, duration: int) -> Computation | Timer:
        """Let it rest for so long, and then go on; return what is under way then."""
        if isinstance(computation, Timer):
            return computation.later(self._heap, duration)
        under_way = computation.under_way
        if isinstance(under_way, Timer):
            computation.under_way = under_way.later(self._heap, duration)
        else:
            computation.with_core = self._cores.cancel(under_way)
            self._wait(computation, duration)
        return computation

    def _wait(self, computation: Computation, duration: int) -> None:
        when = self._heap.now + duration
        if computation.with_core:
            computation.under_way = self._heap.timer(when, self._take_core, computation)
        else:
            computation.under_way = self._heap.timer(when, computation.action, computation.argument)

    def _take_core(self, computation: Computation) -> None:
        duration, computation.with_core = computation.with_core, 0
        computation.under_way = self._cores.begin(duration, computation.action, computation.argument)
