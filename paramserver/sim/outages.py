"""Servers that end and come back: who notices, and what was on its way to them.

A link that breaks loses what it carried. Whoever has asked a server that ends notices after one latency and
asks again; the coordinator notices that a server is lost after one latency, too.

To the next editor: a link between the coordinator and a server is known by the lives of both, as they were
when the server registered. What was sent over an earlier link never arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramserver import events as ev
from paramserver.faults import Happening
from paramserver.quantities import NANOSECONDS
from paramserver.sim.calls import Call

if TYPE_CHECKING:
    from paramserver.sim.servers import Servers


@dataclass(frozen=True, slots=True)
class Parcel:
    """Something on its way between the coordinator and a server.

    Attributes:
        server: the one that is not the coordinator's, or is.
        link: by which it goes.
        content: what it is.
    """

    server: int
    link: int
    content: Any


class Outages:
    """What becomes of servers and of those who ask them.

    Args:
        servers: all of them.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._links = [-1] * servers.machines.servers  # -1: broken
        self._made = 0
        self._asked: list[dict[Call, None]] = [{} for _ in self._links]  # requests in each server

    # ------------------------------------------------------------------------------------------ requests

    def enter(self, server: int, call: Call) -> bool:
        """Note that a request arrives; return False if nobody is there, which its sender will notice."""
        if not self._servers.processes[server].is_up:
            self.refuse(server, call)
            return False
        if self._servers.may_lose_servers:
            self._asked[server][call] = None
        return True

    def leave(self, server: int, call: Call) -> None:
        """Note that a request has been answered."""
        self._asked[server].pop(call, None)

    def refuse(self, server: int, call: Call) -> None:
        """Let whoever has asked notice that there is no answer."""
        self.leave(server, call)
        delay = self._servers.latency(call.worker, server)
        self._servers.heap.at(self._servers.heap.now + delay, call.unanswered, call)

    # --------------------------------------------------------------------------------------------- links

    def link(self, server: int) -> None:
        """Connect a server with the coordinator."""
        self._made += 1
        self._links[server] = self._made

    def carry(self, server: int, content: Any) -> Parcel:
        """Wrap what goes from one to the other."""
        return Parcel(server, self._links[server], content)

    def arrives(self, parcel: Parcel) -> bool:
        """Say whether it arrives: the link over which it went is still there."""
        return parcel.link == self._links[parcel.server] != -1

    # ----------------------------------------------------------------------------------------- happenings

    def befall(self, happening: Happening) -> None:
        """Let something happen to a server; its return, if there is one, is scheduled."""
        server, until = happening.server, happening.until
        assert server is not None
        process = self._servers.processes[server]
        if self._servers.coordination.ended is not None or not process.is_up:
            return
        self._servers.coordination.notes.append((self._servers.heap.now, str(happening)))
        if happening.kind == "pause":
            assert until is not None
            process.pause(until)
        else:
            self._end(server, until)

    def _end(self, server: int, until: int | None) -> None:
        servers = self._servers
        heap, process = servers.heap, servers.processes[server]
        process.end()
        self._links[server] = -1
        if server == 0:
            self._links = [-1] * len(self._links)
        for call in list(self._asked[server]):
            self.refuse(server, call)
        servers.lose(server)
        if server == 0:
            self._end_coordinator(until)
        else:
            heap.at(heap.now + servers.between(server), self._noticed, (server, self._coordinator_life))
        if until is not None:
            heap.at(until, self._come_back, server)

    def _end_coordinator(self, until: int | None) -> None:
        servers = self._servers
        if not servers.recovers:
            servers.coordination.give_up("Server 0 was lost, and with it the coordinator.")
            return
        patience = servers.patience_seconds
        too_late = servers.heap.now + round(patience * NANOSECONDS)
        if until is None or until > too_late:
            servers.heap.at(too_late, self._give_up, servers.processes[0].life)

    def _give_up(self, life: int) -> None:
        servers = self._servers
        if servers.processes[0].life == life and servers.coordination.ended is None:
            servers.coordination.give_up(
                "The job gave up: server 0, and with it the coordinator, did not come back within "
                f"{servers.patience_seconds:g} s."
            )

    def _noticed(self, noticed: tuple[int, int]) -> None:
        server, life = noticed
        coordinator = self._servers.processes[0]
        if coordinator.is_up and coordinator.life == life:
            coordinator.do(self._servers.coordination.tell, ev.ServerLost(server, "its connection broke."))

    def _come_back(self, server: int) -> None:
        servers = self._servers
        heap = servers.heap
        if servers.coordination.ended is not None:
            return
        servers.processes[server].come_back()
        servers.coordination.notes.append((heap.now, f"server{server} is back."))
        if server == 0:
            servers.coordination.restore()
        if not servers.processes[0].is_up:
            return
        for other, process in enumerate(servers.processes):
            if process.is_up and (server == 0 or other == server):
                lives = process.life, self._coordinator_life
                heap.at(heap.now + servers.between(other), self._register, (other, lives))

    def _register(self, registered: tuple[int, tuple[int, int]]) -> None:
        server, lives = registered
        process, coordinator = self._servers.processes[server], self._servers.processes[0]
        if coordinator.is_up and lives == (process.life, coordinator.life):
            coordinator.do(self._servers.coordination.register, server)

    @property
    def _coordinator_life(self) -> int:
        return self._servers.processes[0].life
