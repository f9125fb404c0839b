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
from paramserver.sim.checkpoints import Checkpoints
from paramserver.sim.cores import Cores
from paramserver.sim.heap import EventHeap, Timer
from paramserver.sim.links import Fabric, Handlers
from paramserver.sim.outages import Outages, Parcel
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
        ended: why the job ended, once that is for good; empty if it finished.
        ended_ns: when it ended.
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
        patience_seconds: float = 0.0,
    ) -> None:
        self.cores = cores
        self.heap, self.world, self.machines, self.recorder = heap, world, machines, recorder
        self.ended: str | None = None
        self.began: int | None = None
        self.ended_ns = self.answers = 0
        self.notes: list[tuple[int, str]] = []
        self.on_end: Callable[[], object] = lambda: None
        self._fabric = fabric
        self.patience_seconds = patience_seconds
        self.may_lose_servers = loses_servers(world)
        self._coordinator = self._new_coordinator()
        self.processes = [Process(heap) for _ in range(machines.servers)]
        self.outages = Outages(self)
        first = self.processes[0]
        self.checkpoints = Checkpoints(
            heap, world.network, len(sizes), self.between, self._tell_kept, first.do
        )
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
        self._wake: Timer | None = None
        self._is_started = self._is_sealed = False
        self._end: ev.JobEnded | None = None
        self._over: set[int] = set()  # shards that know of it
        self._generation = 0
        self._ready_at = [0] * len(sizes)  # of each shard: when it has read its part of a checkpoint
        for server in range(machines.servers):
            self.register(server)

    @property
    def now(self) -> float:
        """The present, in seconds, as the core wants it."""
        return self.heap.now / NANOSECONDS

    @property
    def are_over(self) -> bool:
        """Say whether every shard knows that the job has ended."""
        if self.ended is None:
            return False
        return all(one.index in self._over or not one.shard.knows_its_job for one in self.shards)

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

    def tell(self, event: ev.CoordinatorEvent) -> None:
        """Bring an event to the coordinator, and what it decides on its way."""
        cause = event.rank if isinstance(event, ev.Contributed) else ev.NOBODY
        for effect in self._coordinator.handle(event, self.now):
            match effect:
                case ev.Ordered(order, shard):
                    self._note(order)
                    for one in self.shards if shard is None else [self.shards[shard]]:
                        self._order(one, order, cause)
                case ev.WakeAt(when):
                    self._set_timer(when)
                case ev.Noted(sentence):
                    self.notes.append((self.heap.now, sentence))
                case ev.Remember(record):
                    self.checkpoints.remember(record)
                case _ if effect.request in self._calls:
                    self.answers += not isinstance(effect, ev.HeartbeatAnswered)
                    call = self._calls.pop(effect.request)
                    self.outages.leave(0, call)
                    self._fabric.lane(call.worker, True, _take, (call, effect), _lose)

    def register(self, server: int) -> None:
        """Let the coordinator hear of a server that is there."""
        self.outages.link(server)
        self.tell(ev.ServerRegistered(server, f"server{server}", self.machines.shards))

    def lose(self, server: int) -> None:
        """Forget all that was in a server; if the coordinator was, nothing is decided any more."""
        self.checkpoints.end_epoch()
        self._end = None
        for shard in self.shards:
            if shard.server == server:
                shard.end_life()
                self._ready_at[shard.index] = 0
        self.handlers[server].end_life()
        self._calls = {number: call for number, call in self._calls.items() if self.server_of(call) != server}
        if server == 0 and self._wake is not None:
            self._wake.cancel()

    def restore(self) -> None:
        """Let another coordinator go on with what is written down."""
        self._coordinator = self._new_coordinator()
        record = self.checkpoints.found()
        if record is not None:
            self._coordinator.restore(record, self.now)

    def give_up(self, reason: str) -> None:
        """End the job, since there is no coordinator that could."""
        self.ended, self.ended_ns = reason, self.heap.now
        self.heap.stop()

    def server_of(self, call: Call) -> int:
        """Return the number of the server that a request is for."""
        return 0 if call.shard == COORDINATOR else self.shards[call.shard].server

    def status(self) -> ev.JobStatus:
        """Ask the coordinator how the job stands; it costs nothing."""
        for effect in self._coordinator.handle(ev.StatusReceived(COORDINATOR), self.now):
            if isinstance(effect, ev.StatusAnswered):
                if self.ended is not None and not effect.status.ended:
                    return replace(effect.status, ended=True, reason=self.ended)
                return effect.status
        raise AssertionError("The coordinator did not say how the job stands.")

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

    def score(self, score: ev.Score) -> None:
        """Tell the coordinator how good some weights are, as an evaluator does; it costs nothing."""
        if self.processes[0].is_up:
            self.processes[0].do(self.tell, ev.ScoreReceived(COORDINATOR, score))

    def _observe(self, round: int | None) -> list[ev.Snapshot]:
        event = ev.PullReceived(COORDINATOR, None, round=round)
        answers = [shard.shard.handle(event, self.now) for shard in self.shards]
        return [effect.snapshot for [effect] in answers if isinstance(effect, ev.PullGranted)]

    def _dispatch(self, shard: VirtualShard, effects: Sequence[ev.ShardEffect], cause: int) -> None:
        """Send what a shard answers, and bring its reports to the coordinator."""
        for effect in effects:
            if isinstance(effect, ev.Reported):
                self._note_report(shard, effect.report)
                report = self.outages.carry(shard.server, effect.report)
                self.heap.at(self.heap.now + self.between(shard.server), self._hear_report, report)
                continue
            if isinstance(effect, ev.CutMade):
                self.checkpoints.keep(shard, effect)
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
        self.tell(replace(call.event, request=self._number(call)))

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

    def _note(self, order: ev.Order) -> None:
        match order:
            case ev.JobEnded():
                self._end, self.ended_ns = order, self.heap.now
                self._over.clear()
                if order.reason or not self.recovers:
                    self.ended = order.reason
            case ev.MembershipChanged():
                self._is_started |= order.started
            case ev.Sealed():
                self._is_sealed = True
            case ev.GenerationBegun() if order.generation > self._generation:
                self._end, self._generation = None, order.generation
                self._is_started |= order.started
                self._is_sealed = order.checkpoint is not None
                self.checkpoints.begin_generation()
        if self.began is None and self._is_started and self._is_sealed:
            self.began = self.heap.now

    def _note_report(self, shard: VirtualShard, report: ev.Report) -> None:
        end = self._end
        if end is None or not isinstance(report, ev.OrderHandled) or report.number != end.number:
            return
        self._over.add(shard.index)
        if self.recovers and not end.reason:
            [effect] = shard.shard.handle(ev.CutAsked(COORDINATOR), self.now)
            if isinstance(effect, ev.CutTaken):
                self.checkpoints.keep_final(shard, effect.cut)
        self.on_end()

    def _order(self, shard: VirtualShard, order: ev.Order, cause: int) -> None:
        """Send an order on its way; what a shard has to read first holds back the orders after it."""
        when = max(self.heap.now + self.between(shard.server), self._ready_at[shard.index])
        if isinstance(order, ev.GenerationBegun) and order.checkpoint is not None:
            cut = self.checkpoints.read(shard, order)
            order = replace(order, cut=cut)
            when += self.checkpoints.cost_ns(shard, cut)
            self._ready_at[shard.index] = when
        self.heap.at(when, self._hear_order, (shard, self.outages.carry(shard.server, (order, cause))))

    def _hear_order(self, sent: tuple[VirtualShard, Parcel]) -> None:
        shard, parcel = sent
        if self.outages.arrives(parcel):
            self.processes[shard.server].do(shard.obey, parcel.content)

    def _hear_report(self, parcel: Parcel) -> None:
        if self.outages.arrives(parcel):
            self.processes[0].do(self.tell, parcel.content)

    def _tell_kept(self, news: ev.CheckpointWritten | ev.CheckpointKept, epoch: int) -> None:
        self.processes[0].do(self._hear_kept, (news, epoch))

    def _hear_kept(self, told: tuple[ev.CheckpointWritten | ev.CheckpointKept, int]) -> None:
        news, epoch = told
        if epoch != self.checkpoints.epoch or not self.processes[0].is_up:
            return
        self.tell(news)
        if isinstance(news, ev.CheckpointKept) and news.kept is None:
            self.ended = ""
            self.on_end()

    def _new_coordinator(self) -> Coordinator:
        machines = self.machines
        return Coordinator(machines.servers, machines.shards, recovers=self.recovers)

    def between(self, server: int) -> int:
        """Return the latency between the coordinator, in the first server, and another server."""
        return 0 if server == 0 else self.world.network.between_servers_ns or 0

    def _fire(self, _: None) -> None:
        self.processes[0].do(self.tell, ev.TimerFired())

    def _set_timer(self, when: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        # One more, for the seconds that come of it must not be below those that were asked for.
        wake = max(self.heap.now, math.ceil(when * NANOSECONDS) + 1)
        self._wake = self.heap.timer(wake, self._fire)


def _take(message: tuple[Call, Any]) -> None:
    call, effect = message
    call.answered(call, effect)


def _lose(message: tuple[Call, Any]) -> None:
    call, _ = message
    call.unanswered(call)
