"""The coordinator of a virtual world, in the first server: what it hears, and what comes of its decisions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from paramserver import events as ev
from paramserver.coordinator import Coordinator
from paramserver.quantities import NANOSECONDS
from paramserver.sim.calls import COORDINATOR
from paramserver.sim.checkpoints import Checkpoints
from paramserver.sim.heap import Timer
from paramserver.sim.outages import Parcel
from paramserver.sim.shards import VirtualShard

if TYPE_CHECKING:
    from paramserver.sim.servers import Servers


class Coordination:
    """Drives the coordinator.

    Args:
        servers: all of them; the first is where it is.
        shards: how many there are.

    Attributes:
        checkpoints: what is on disk.
        ended: why the job ended, once that is for good; empty if it finished.
        ended_ns: when it ended.
        began: when every replica had joined and the weights were there.
        notes: what the coordinator said and what befell workers, with times.
        on_end: called when one more part of the world knows of the end.
    """

    def __init__(self, servers: Servers, shards: int) -> None:
        self._servers, self._heap = servers, servers.heap
        self._process = servers.processes[0]
        self._coordinator = self._new_coordinator()
        self.checkpoints = Checkpoints(
            servers.heap, servers.world.network, shards, servers.between, self._tell_kept, self._process.do
        )
        self.ended: str | None = None
        self.began: int | None = None
        self.ended_ns = 0
        self.notes: list[tuple[int, str]] = []
        self.on_end: Callable[[], object] = lambda: None
        self._wake: Timer | None = None
        self._is_started = self._is_sealed = False
        self._end: ev.JobEnded | None = None
        self._over: set[int] = set()  # shards that know of it
        self._generation = 0
        self._ready_at = [0] * shards  # of each shard: when it has read its part of a checkpoint

    # --------------------------------------------------------------------------------------- what it hears

    def tell(self, event: ev.CoordinatorEvent) -> None:
        """Bring an event to the coordinator, and what it decides on its way."""
        servers = self._servers
        cause = event.rank if isinstance(event, ev.Contributed) else ev.NOBODY
        for effect in self._coordinator.handle(event, servers.now):
            match effect:
                case ev.Ordered(order, shard):
                    self._note(order)
                    for one in servers.shards if shard is None else [servers.shards[shard]]:
                        self._order(one, order, cause)
                case ev.WakeAt(when):
                    self._set_timer(when)
                case ev.Noted(sentence):
                    self.notes.append((self._heap.now, sentence))
                case ev.Remember(record):
                    self.checkpoints.remember(record)
                case _:
                    servers.answer(effect)

    def register(self, server: int) -> None:
        """Let the coordinator hear of a server that is there."""
        self._servers.outages.link(server)
        self.tell(ev.ServerRegistered(server, f"server{server}", self._servers.machines.shards))

    def report(self, shard: VirtualShard, report: ev.Report) -> None:
        """Send a shard's report on its way."""
        self._note_report(shard, report)
        parcel = self._servers.outages.carry(shard.server, report)
        self._heap.at(self._heap.now + self._servers.between(shard.server), self._hear_report, parcel)

    def score(self, score: ev.Score) -> None:
        """Tell the coordinator how good some weights are, as an evaluator does; it costs nothing."""
        if self._process.is_up:
            self._process.do(self.tell, ev.ScoreReceived(COORDINATOR, score))

    def status(self) -> ev.JobStatus:
        """Ask the coordinator how the job stands; it costs nothing."""
        for effect in self._coordinator.handle(ev.StatusReceived(COORDINATOR), self._servers.now):
            if isinstance(effect, ev.StatusAnswered):
                if self.ended is not None and not effect.status.ended:
                    return replace(effect.status, ended=True, reason=self.ended)
                return effect.status
        raise AssertionError("The coordinator did not say how the job stands.")

    # ------------------------------------------------------------------------------------ its end and return

    def lose(self, server: int) -> None:
        """Forget what was under way when a server ended; if it was the first, nothing is decided any more."""
        self.checkpoints.end_epoch()
        self._end = None
        for shard in self._servers.shards:
            if shard.server == server:
                self._ready_at[shard.index] = 0
        if server == 0 and self._wake is not None:
            self._wake.cancel()

    def restore(self) -> None:
        """Let another coordinator go on with what is written down."""
        self._coordinator = self._new_coordinator()
        record = self.checkpoints.found()
        if record is not None:
            self._coordinator.restore(record, self._servers.now)

    def give_up(self, reason: str) -> None:
        """End the job, since there is no coordinator that could."""
        self.ended, self.ended_ns = reason, self._heap.now
        self._heap.stop()

    @property
    def is_over(self) -> bool:
        """Say whether every shard knows that the job has ended."""
        if self.ended is None:
            return False
        return all(one.index in self._over or not one.shard.knows_its_job for one in self._servers.shards)

    # ------------------------------------------------------------------------------- orders and checkpoints

    def _note(self, order: ev.Order) -> None:
        match order:
            case ev.JobEnded():
                self._end, self.ended_ns = order, self._heap.now
                self._over.clear()
                if order.reason or not self._servers.recovers:
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
            self.began = self._heap.now

    def _note_report(self, shard: VirtualShard, report: ev.Report) -> None:
        end = self._end
        if end is None or not isinstance(report, ev.OrderHandled) or report.number != end.number:
            return
        self._over.add(shard.index)
        if self._servers.recovers and not end.reason:
            [effect] = shard.shard.handle(ev.CutAsked(COORDINATOR), self._servers.now)
            if isinstance(effect, ev.CutTaken):
                self.checkpoints.keep_final(shard, effect.cut)
        self.on_end()

    def _order(self, shard: VirtualShard, order: ev.Order, cause: int) -> None:
        """Send an order on its way; what a shard has to read first holds back the orders after it."""
        when = max(self._heap.now + self._servers.between(shard.server), self._ready_at[shard.index])
        if isinstance(order, ev.GenerationBegun) and order.checkpoint is not None:
            cut = self.checkpoints.read(shard, order)
            order = replace(order, cut=cut)
            when += self.checkpoints.cost_ns(shard, cut)
            self._ready_at[shard.index] = when
        parcel = self._servers.outages.carry(shard.server, (order, cause))
        self._heap.at(when, self._hear_order, (shard, parcel))

    def _hear_order(self, sent: tuple[VirtualShard, Parcel]) -> None:
        shard, parcel = sent
        if self._servers.outages.arrives(parcel):
            self._servers.processes[shard.server].do(shard.obey, parcel.content)

    def _hear_report(self, parcel: Parcel) -> None:
        if self._servers.outages.arrives(parcel):
            self._process.do(self.tell, parcel.content)

    def _tell_kept(self, news: ev.CheckpointWritten | ev.CheckpointKept, epoch: int) -> None:
        self._process.do(self._hear_kept, (news, epoch))

    def _hear_kept(self, told: tuple[ev.CheckpointWritten | ev.CheckpointKept, int]) -> None:
        news, epoch = told
        if epoch != self.checkpoints.epoch or not self._process.is_up:
            return
        self.tell(news)
        if isinstance(news, ev.CheckpointKept) and news.kept is None:
            self.ended = ""
            self.on_end()

    def _new_coordinator(self) -> Coordinator:
        machines = self._servers.machines
        return Coordinator(machines.servers, machines.shards, recovers=self._servers.recovers)

    def _fire(self, _: None) -> None:
        self._process.do(self.tell, ev.TimerFired())

    def _set_timer(self, when: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        # One more, for the seconds that come of it must not be below those that were asked for.
        wake = max(self._heap.now, math.ceil(when * NANOSECONDS) + 1)
        self._wake = self._heap.timer(wake, self._fire)
