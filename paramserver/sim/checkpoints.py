"""The checkpoints of a virtual world: what lies on a disk that outlives its servers, and what writing costs.

To the next editor: `epoch` counts the servers that have ended and the generations that have begun. What was
under way then concerns weights that are void, so it is dropped by comparing epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from paramserver import events as ev
from paramserver.recovery import kept
from paramserver.sim.heap import Action, EventHeap
from paramserver.sim.network import Network
from paramserver.sim.shards import VirtualShard
from paramserver.types import Array

Tell = Callable[[ev.CheckpointWritten | ev.CheckpointKept, int], object]


class Checkpoints:
    """What is kept of one job.

    Args:
        heap: virtual time.
        network: what writing and reading cost.
        shards: how many there are.
        between: returns the latency between a server and the coordinator, in nanoseconds.
        tell: tells the coordinator what is written and what is kept; takes the epoch in which it was.
        do: lets the coordinator's process do something, as soon as it can.

    Attributes:
        record: what the coordinator has written down; None before there is anything.
        epoch: how many servers have ended, and generations have begun.
    """

    def __init__(
        self,
        heap: EventHeap,
        network: Network,
        shards: int,
        between: Callable[[int], int],
        tell: Tell,
        do: Callable[[Action, Any], object],
    ) -> None:
        self.record: ev.JobRecord | None = None
        self.epoch = 0
        self._heap, self._network, self._shards = heap, network, shards
        self._between, self._tell, self._do = between, tell, do
        self._cuts: dict[int, dict[int, ev.Cut]] = {}  # of each checkpoint, by shard
        self._manifests: set[int] = set()  # of checkpoints that are whole on disk
        self._finals: set[int] = set()  # shards whose final weights are written

    def found(self) -> ev.JobRecord | None:
        """Return what a coordinator that comes back finds, with the checkpoints; None: no job yet."""
        record = self.record
        if record is None:
            return None
        cuts = max([record.cuts, *(each + 1 for each in self._cuts)])
        if not self._manifests:
            return replace(record, cuts=cuts)
        number = max(self._manifests)
        return replace(record, kept=kept(number, self._cuts[number].values()), cuts=cuts)

    def remember(self, record: ev.JobRecord) -> None:
        """Write down what the coordinator says; what is older than its checkpoint goes."""
        self.record = record
        if record.kept is not None:
            newest = record.kept.checkpoint
            self._cuts = {number: cuts for number, cuts in self._cuts.items() if number >= newest}
            self._manifests.intersection_update(self._cuts)

    def end_epoch(self) -> None:
        """Note that a server has ended."""
        self.epoch += 1
        self._finals.clear()

    def begin_generation(self) -> None:
        """Forget the cuts of a checkpoint that will never be whole: its number may be given again."""
        self.end_epoch()
        kept = self.record.kept if self.record is not None else None
        self._cuts = {} if kept is None else {kept.checkpoint: self._cuts[kept.checkpoint]}
        self._manifests = set(self._cuts)

    def cost_ns(self, shard: VirtualShard, cut: ev.Cut) -> int:
        """Return how long it takes to write or read a cut."""
        size = shard.weigh(cut.snapshot.values) + sum(shard.weigh(state) for state in _by_name(cut))
        network = self._network
        return (network.checkpoint_ns or 0) + round(network.checkpoint_per_byte_ns * size)

    def keep(self, shard: VirtualShard, made: ev.CutMade) -> None:
        """Begin to write a shard's cut."""
        when = self._heap.now + self.cost_ns(shard, made.cut)
        self._heap.at(when, self._written, (shard, made, self.epoch))

    def read(self, shard: VirtualShard, order: ev.GenerationBegun) -> ev.Cut:
        """Return what a shard was at the checkpoint that an order names."""
        assert order.checkpoint is not None, "who begins anew has nothing to read"
        return self._cuts[order.checkpoint][shard.index]

    def keep_final(self, shard: VirtualShard, cut: ev.Cut) -> None:
        """Begin to write a shard's final weights; once all are there, the coordinator hears of it."""
        when = self._heap.now + self.cost_ns(shard, cut) + self._between(shard.server)
        self._heap.at(when, self._final_written, (shard.index, self.epoch))

    def _written(self, written: tuple[VirtualShard, ev.CutMade, int]) -> None:
        shard, made, epoch = written
        if epoch == self.epoch:
            self._cuts.setdefault(made.checkpoint, {})[shard.index] = made.cut
            when = self._heap.now + self._between(shard.server)
            self._heap.at(when, self._hear, (made.checkpoint, epoch))

    def _hear(self, heard: tuple[int, int]) -> None:
        self._do(self._heard, heard)

    def _heard(self, heard: tuple[int, int]) -> None:
        """Write the manifest of a checkpoint once the coordinator has heard of all its cuts."""
        checkpoint, epoch = heard
        cuts = self._cuts.get(checkpoint, {})
        if epoch == self.epoch and len(cuts) == self._shards:
            self._tell(ev.CheckpointWritten(), epoch)
            when = self._heap.now + (self._network.checkpoint_ns or 0)
            self._heap.at(when, self._whole, (checkpoint, epoch))

    def _whole(self, whole: tuple[int, int]) -> None:
        checkpoint, epoch = whole
        cuts = self._cuts.get(checkpoint, {})
        if epoch == self.epoch and len(cuts) == self._shards:
            self._manifests.add(checkpoint)
            when = self._heap.now + (self._network.checkpoint_ns or 0)
            self._heap.at(when, self._noted, (ev.CheckpointKept(kept(checkpoint, cuts.values())), epoch))

    def _noted(self, noted: tuple[ev.CheckpointKept, int]) -> None:
        """Let the coordinator hear that a checkpoint is whole; its own note takes as long as a manifest."""
        news, epoch = noted
        if epoch == self.epoch:
            self._tell(news, epoch)

    def _final_written(self, written: tuple[int, int]) -> None:
        shard, epoch = written
        if epoch != self.epoch:
            return
        self._finals.add(shard)
        if len(self._finals) == self._shards:
            when = self._heap.now + (self._network.checkpoint_ns or 0)
            self._heap.at(when, self._final_whole, epoch)

    def _final_whole(self, epoch: int) -> None:
        if epoch == self.epoch:
            self._tell(ev.CheckpointKept(None), epoch)


def _by_name(cut: ev.Cut) -> list[dict[ev.Slice, Array]]:
    """Return the optimizer's state by name, as slices of it."""
    names = sorted({name for state in cut.state.values() for name in state})
    return [{part: state[name] for part, state in cut.state.items() if name in state} for name in names]
