"""The servers of a virtual world: the deployed shards, and what lies between them and those who ask.

A request first occupies one of its server's handlers, then queues for its shard's lock. Orders and reports
keep their order on each link. What concerns the coordinator costs latency alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from paramserver import events as ev
from paramserver.quantities import NANOSECONDS
from paramserver.sim.calls import COORDINATOR, Call
from paramserver.sim.coordination import Coordination
from paramserver.sim.cores import Cores
from paramserver.sim.heap import EventHeap
from paramserver.sim.links import Fabric, Handlers
from paramserver.sim.outages import Outages
from paramserver.sim.process import Process
from paramserver.sim.shards import VirtualShard
from paramserver.sim.world import Machines, World, loses_servers
from paramserver.tracing import Recorder

HEADER_BYTES = 100
"""What a message weighs besides its tensors: the header of a push with three tensors has 94."""


class Servers:
    """The coordinator, the shards and everything between them.

    Args:
        heap: virtual time.
        world: costs.
        machines: how many of each.
        fabric: the links to the workers.
        sizes: what the weights of each shard weigh, in bytes.
        scale: what they weigh over what they are.
        recorder: of the trace; None for none.
        cores: what servers and replicas run on.
        patience_seconds: how long a server that is lost is waited for; 0 where checkpoints are not made, so
            that the loss of a server ends the job.

    Attributes:
        cores: the same.
        patience_seconds: the same.
        processes: the servers themselves.
        coordination: the coordinator, in the first of them.
        outages: what becomes of those that end.
        shards: of all servers.
        answers: how many requests have been answered; heartbeats do not count.
    """

    def __init__(
        self,
        heap: EventHeap,
        world: World,
        machines: Machines,
        fabric: Fabric,
        sizes: Sequence[int],
        scale: float,
        recorder: Recorder | None,
        cores: Cores,
        patience_seconds: float = 0.0,
    ) -> None:
        self.cores = cores
        self.heap, self.world, self.machines, self.recorder = heap, world, machines, recorder
        self.answers = 0
        self._fabric = fabric
        self.patience_seconds = patience_seconds
        self.may_lose_servers = loses_servers(world)
        self.processes = [Process(heap) for _ in range(machines.servers)]
        self.outages = Outages(self)
        self.coordination = Coordination(self, len(sizes))
        self.shards = [
            VirtualShard(
                index,
                index // machines.shards,
                size,
                scale,
                heap,
                cores,
                world.network,
                self.processes[index // machines.shards],
                recorder,
                self._dispatch,
            )
            for index, size in enumerate(sizes)
        ]
        self.handlers = [Handlers(world.network.handlers, cores, process) for process in self.processes]
        self._calls: dict[int, Call] = {}
        self._requests = 0
        for server in range(machines.servers):
            self.coordination.register(server)

    @property
    def now(self) -> float:
        """The present, in seconds, as the core wants it."""
        return self.heap.now / NANOSECONDS

    @property
    def recovers(self) -> bool:
        """Say whether checkpoints are made, so that a server that is lost may come back."""
        return self.patience_seconds > 0

    def latency(self, worker: int, server: int) -> int:
        """Draw how long it takes until a worker notices that a server is gone, in nanoseconds."""
        return self._fabric.latency(worker, server)

    def ask(self, call: Call) -> None:
        """Send a request on its way."""
        if call.shard == COORDINATOR:
            self._fabric.lane(call.worker, False, self._at_coordinator, call, call.unanswered)
        else:
            server = self.shards[call.shard].server
            size = call.size + HEADER_BYTES
            self._fabric.up(call.worker, server, size, self._at_server, call, call.unanswered)

    def forget(self, call: Call) -> None:
        """Let the servers notice that nobody waits for a pull any more."""
        shard = self.shards[call.shard]
        delay = self._fabric.latency(call.worker, shard.server)
        for number in call.numbers:
            self.heap.at(self.heap.now + delay, self._hear_cancel, (shard, number))

    def answer(self, effect: Any) -> None:
        """Send the coordinator's answer to a request on its way, if anybody still waits for it."""
        call = self._calls.pop(effect.request, None)
        if call is not None:
            self.answers += not isinstance(effect, ev.HeartbeatAnswered)
            self.outages.leave(0, call)
            self._fabric.lane(call.worker, True, _take, (call, effect), _lose)

    def lose(self, server: int) -> None:
        """Forget all that was in a server; if the coordinator was, nothing is decided any more."""
        self.coordination.lose(server)
        for shard in self.shards:
            if shard.server == server:
                shard.end_life()
        self.handlers[server].end_life()
        self._calls = {number: call for number, call in self._calls.items() if self.server_of(call) != server}

    def server_of(self, call: Call) -> int:
        """Return the number of the server that a request is for."""
        return 0 if call.shard == COORDINATOR else self.shards[call.shard].server

    def observe(self) -> list[ev.Snapshot]:
        """Read every shard as an observer, in a synchronous mode at one round; it costs nothing.

        Returns:
            A snapshot of each shard; nothing while there are no weights, or a server is lost.
        """
        found = self._observe(None)
        rounds = {snapshot.rounds for snapshot in found}
        if len(rounds) > 1:
            found = self._observe(max(rounds))
        return found if len(found) == len(self.shards) else []

    def cut(self) -> list[ev.Cut]:
        """Copy out what a checkpoint needs of every shard; nothing where there are no weights."""
        answers = [shard.shard.handle(ev.CutAsked(COORDINATOR), self.now) for shard in self.shards]
        cuts = [effect.cut for [effect] in answers if isinstance(effect, ev.CutTaken)]
        return cuts if len(cuts) == len(self.shards) else []

    def _observe(self, round: int | None) -> list[ev.Snapshot]:
        event = ev.PullReceived(COORDINATOR, None, round=round)
        answers = [shard.shard.handle(event, self.now) for shard in self.shards]
        return [effect.snapshot for [effect] in answers if isinstance(effect, ev.PullGranted)]

    def _dispatch(self, shard: VirtualShard, effects: Sequence[ev.ShardEffect], cause: int) -> None:
        """Send what a shard answers, and bring its reports to the coordinator."""
        for effect in effects:
            if isinstance(effect, ev.Reported):
                self.coordination.report(shard, effect.report)
                continue
            if isinstance(effect, ev.CutMade):
                self.coordination.checkpoints.keep(shard, effect)
                continue
            parks = isinstance(effect, ev.PullParked)
            call = self._calls.get(effect.request) if parks else self._calls.pop(effect.request, None)
            if call is None:
                continue  # a pull whose reader has gone meanwhile
            self.answers += 1
            size = 0
            if isinstance(effect, ev.PullGranted):
                size = shard.weigh(effect.values()) if effect.rows else shard.size
                call.released_by = cause
                call.sees = shard.see()
            duration = round(self.world.network.rpc_per_byte_ns * size)
            self.handlers[shard.server].serve(duration, self._answer, (call, effect, size))

    def _answer(self, answer: tuple[Call, Any, int]) -> None:
        call, effect, size = answer
        server = self.shards[call.shard].server
        if not isinstance(effect, ev.PullParked):
            self.outages.leave(server, call)
        self._fabric.down(call.worker, server, size + HEADER_BYTES, _take, (call, effect), _lose)

    def _at_server(self, call: Call) -> None:
        if self.outages.enter(self.shards[call.shard].server, call):
            self.processes[self.shards[call.shard].server].do(self._serve, call)

    def _serve(self, call: Call) -> None:
        network, handlers = self.world.network, self.handlers[self.shards[call.shard].server]
        duration = network.rpc_ns + round(network.rpc_per_byte_ns * call.size)
        handlers.serve(duration, self._at_shard, call)

    def _at_shard(self, call: Call) -> None:
        shard = self.shards[call.shard]
        if self.processes[shard.server].life and not shard.shard.knows_its_job:
            self.outages.refuse(shard.server, call)  # it has come back, and waits for its weights
        else:
            shard.submit(replace(call.event, request=self._number(call)))

    def _at_coordinator(self, call: Call) -> None:
        if self.outages.enter(0, call):
            self.processes[0].do(self._ask_coordinator, call)

    def _ask_coordinator(self, call: Call) -> None:
        self.coordination.tell(replace(call.event, request=self._number(call)))

    def _number(self, call: Call) -> int:
        self._requests += 1
        self._calls[self._requests] = call
        call.numbers.append(self._requests)
        return self._requests

    def _hear_cancel(self, which: tuple[VirtualShard, int]) -> None:
        self.processes[which[0].server].do(self._cancel, which)

    def _cancel(self, which: tuple[VirtualShard, int]) -> None:
        shard, number = which
        if self._calls.pop(number, None) is not None:
            shard.submit(ev.PullCancelled(number))

    def between(self, server: int) -> int:
        """Return the latency between the coordinator, in the first server, and another server."""
        return 0 if server == 0 else self.world.network.between_servers_ns or 0


def _take(message: tuple[Call, Any]) -> None:
    call, effect = message
    call.answered(call, effect)


def _lose(message: tuple[Call, Any]) -> None:
    call, _ = message
    call.unanswered(call)
