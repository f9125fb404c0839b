"""The servers of a virtual world: the deployed coordinator and shards, and what lies between them.

A request first occupies one of its server's handlers, then queues for its shard's lock. Orders and reports
keep their order on each link. What concerns the coordinator costs latency alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from paramserver import events as ev
from paramserver.coordinator import Coordinator
from paramserver.quantities import NANOSECONDS
from paramserver.sim.calls import COORDINATOR, Call
from paramserver.sim.cores import Cores
from paramserver.sim.heap import EventHeap, Timer
from paramserver.sim.links import Fabric, Handlers
from paramserver.sim.shards import VirtualShard
from paramserver.sim.world import Machines, World
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

    Attributes:
        cores: the same.
        ended: why the job ended, once it has; empty if it finished.
        ended_ns: when that was.
        began: when every replica had joined and the weights were there.
        notes: what the coordinator said and what befell workers, with times.
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
    ) -> None:
        self.cores = cores
        self.heap, self.world, self.machines, self.recorder = heap, world, machines, recorder
        self.ended: str | None = None
        self.began: int | None = None
        self.ended_ns = self.answers = 0
        self.notes: list[tuple[int, str]] = []
        self.on_end: Callable[[], object] = lambda: None
        self._fabric = fabric
        self._coordinator = Coordinator(machines.servers, machines.shards)
        self.shards = [
            VirtualShard(
                index,
                index // machines.shards,
                size,
                scale,
                heap,
                cores,
                world.network,
                recorder,
                self._dispatch,
            )
            for index, size in enumerate(sizes)
        ]
        self.handlers = [Handlers(world.network.handlers, cores) for _ in range(machines.servers)]
        self._calls: dict[int, Call] = {}
        self._requests = 0
        self._wake: Timer | None = None
        self._is_started = self._is_sealed = False
        self._last_order = self._shards_over = 0
        for server in range(machines.servers):
            self.tell(ev.ServerRegistered(server, f"server{server}", machines.shards))

    @property
    def now(self) -> float:
        """The present, in seconds, as the core wants it."""
        return self.heap.now / NANOSECONDS

    @property
    def are_over(self) -> bool:
        """Say whether every shard knows that the job has ended."""
        return self._shards_over == len(self.shards)

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
            self.heap.at(self.heap.now + delay, self._cancel, (shard, number))

    def tell(self, event: ev.CoordinatorEvent) -> None:
        """Bring an event to the coordinator, and what it decides on its way."""
        cause = event.rank if isinstance(event, ev.Contributed) else ev.NOBODY
        for effect in self._coordinator.handle(event, self.now):
            match effect:
                case ev.Ordered(order, shard):
                    self._note(order)
                    for one in self.shards if shard is None else [self.shards[shard]]:
                        self.heap.at(self.heap.now + self._between(one.server), one.obey, (order, cause))
                case ev.WakeAt(when):
                    self._set_timer(when)
                case ev.Noted(sentence):
                    self.notes.append((self.heap.now, sentence))
                case ev.Remember():
                    pass  # nothing here outlives its own end
                case _ if effect.request in self._calls:
                    self.answers += not isinstance(effect, ev.HeartbeatAnswered)
                    call = self._calls.pop(effect.request)
                    self._fabric.lane(call.worker, True, _take, (call, effect), _lose)

    def status(self) -> ev.JobStatus:
        """Ask the coordinator how the job stands; it costs nothing."""
        for effect in self._coordinator.handle(ev.StatusReceived(COORDINATOR), self.now):
            if isinstance(effect, ev.StatusAnswered):
                return effect.status
        raise AssertionError("The coordinator did not say how the job stands.")

    def observe(self) -> list[ev.Snapshot]:
        """Read every shard as an observer, in a synchronous mode at one round; it costs nothing.

        Returns:
            A snapshot of each shard; nothing while there are no weights.
        """
        newest = self._observe(None)
        rounds = {snapshot.rounds for snapshot in newest}
        return newest if len(rounds) < 2 else self._observe(max(rounds))

    def cut(self) -> list[ev.Cut]:
        """Copy out what a checkpoint needs of every shard; nothing where there are no weights."""
        answers = [shard.shard.handle(ev.CutAsked(COORDINATOR), self.now) for shard in self.shards]
        cuts = [effect.cut for [effect] in answers if isinstance(effect, ev.CutTaken)]
        return cuts if len(cuts) == len(self.shards) else []

    def score(self, score: ev.Score) -> None:
        """Tell the coordinator how good some weights are, as an evaluator does; it costs nothing."""
        self.tell(ev.ScoreReceived(COORDINATOR, score))

    def _observe(self, round: int | None) -> list[ev.Snapshot]:
        event = ev.PullReceived(COORDINATOR, None, round=round)
        answers = [shard.shard.handle(event, self.now) for shard in self.shards]
        return [effect.snapshot for [effect] in answers if isinstance(effect, ev.PullGranted)]

    def _dispatch(self, shard: VirtualShard, effects: Sequence[ev.ShardEffect], cause: int) -> None:
        """Send what a shard answers, and bring its reports to the coordinator."""
        for effect in effects:
            if isinstance(effect, ev.Reported):
                self._note_report(effect.report)
                self.heap.at(self.heap.now + self._between(shard.server), self.tell, effect.report)
                continue
            if isinstance(effect, ev.CutMade):
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
        self._fabric.down(call.worker, server, size + HEADER_BYTES, _take, (call, effect), _lose)

    def _at_server(self, call: Call) -> None:
        network, handlers = self.world.network, self.handlers[self.shards[call.shard].server]
        duration = network.rpc_ns + round(network.rpc_per_byte_ns * call.size)
        handlers.serve(duration, self._at_shard, call)

    def _at_shard(self, call: Call) -> None:
        self.shards[call.shard].submit(replace(call.event, request=self._number(call)))

    def _at_coordinator(self, call: Call) -> None:
        self.tell(replace(call.event, request=self._number(call)))

    def _number(self, call: Call) -> int:
        self._requests += 1
        self._calls[self._requests] = call
        call.numbers.append(self._requests)
        return self._requests

    def _cancel(self, which: tuple[VirtualShard, int]) -> None:
        shard, number = which
        if self._calls.pop(number, None) is not None:
            shard.submit(ev.PullCancelled(number))

    def _note(self, order: ev.Order) -> None:
        if isinstance(order, ev.JobEnded):
            self.ended, self.ended_ns = order.reason, self.heap.now
            self._last_order = order.number
        self._is_started |= isinstance(order, ev.MembershipChanged) and order.started
        self._is_sealed |= isinstance(order, ev.Sealed)
        if self.began is None and self._is_started and self._is_sealed:
            self.began = self.heap.now

    def _note_report(self, report: ev.Report) -> None:
        if isinstance(report, ev.OrderHandled) and report.number == self._last_order:
            self._shards_over += 1
            self.on_end()

    def _between(self, server: int) -> int:
        """Return the latency between the coordinator, in the first server, and another server."""
        return 0 if server == 0 else self.world.network.between_servers_ns or 0

    def _set_timer(self, when: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        # One more, for the seconds that come of it must not be below those that were asked for.
        wake = max(self.heap.now, math.ceil(when * NANOSECONDS) + 1)
        self._wake = self.heap.timer(wake, lambda _: self.tell(ev.TimerFired()))


def _take(message: tuple[Call, Any]) -> None:
    call, effect = message
    call.answered(call, effect)


def _lose(message: tuple[Call, Any]) -> None:
    call, _ = message
    call.unanswered(call)
