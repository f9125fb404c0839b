"""A shard of a virtual world: the deployed one, and the queue for its lock.

What a shard answers leaves when the lock is free again, so whoever asks waits for everyone before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from paramserver import events as ev
from paramserver.diaries import Gathered, ShardDiary
from paramserver.quantities import NANOSECONDS
from paramserver.rows import Gradient
from paramserver.shard import Shard
from paramserver.sim.cores import Cores
from paramserver.sim.heap import EventHeap
from paramserver.sim.network import Network
from paramserver.sim.process import Process
from paramserver.tracing import Recorder


class VirtualShard:
    """One shard, its lock, and who queues for it.

    Args:
        index: the shard's number.
        server: the number of its server.
        size: what its weights weigh, in bytes.
        scale: what they weigh over what they are.
        heap: virtual time.
        cores: what it runs on.
        network: what the lock costs.
        process: of its server.
        recorder: of the trace; None for none.
        dispatch: called with the shard, its effects, and the rank on whose account they come (else -1).

    Attributes:
        held_ns: how long the lock was held in all.
        waited_ns: how long requests queued for it in all.
        served: how many events it has handled.
        applied_ns: when it had applied its last round; 0 where it has applied none.
        generation: of its weights.
    """

    def __init__(
        self,
        index: int,
        server: int,
        size: int,
        scale: float,
        heap: EventHeap,
        cores: Cores,
        network: Network,
        process: Process,
        recorder: Recorder | None,
        dispatch: Callable[[VirtualShard, Sequence[ev.ShardEffect], int], object],
    ) -> None:
        self.index, self.server, self.size = index, server, size
        self.shard = Shard(index)
        self._scale = scale
        self.held_ns = self.waited_ns = self.served = self.applied_ns = 0
        self._cores = cores
        self._heap, self._network, self._dispatch = heap, network, dispatch
        self._process, self._life = process, 0
        self.generation = 0
        self._queue: deque[tuple[ev.ShardEvent, int]] = deque()
        self._is_locked = False
        self._closers: dict[int, int] = {}  # order that closes a round -> the rank that completed it
        self._gathered = Gathered()
        self._diary = None if recorder is None else ShardDiary(server, index, recorder)

    def obey(self, order: tuple[ev.Order, int]) -> None:
        """Take an order; with the rank that completed the round, if it closes one."""
        if isinstance(order[0], ev.RoundClosed):
            self._closers[order[0].number] = order[1]
        self.submit(order[0])

    def end_life(self) -> None:
        """Forget everything, since the server has ended."""
        self.shard = Shard(self.index)
        self._life += 1
        self._is_locked = False
        self._queue.clear()
        self._closers.clear()
        self._gathered = Gathered()

    def see(self) -> tuple[str, ...]:
        """Take out the pushes that the pull which is being granted is the first to see."""
        return () if self._diary is None else self._diary.see()

    def weigh(self, values: Mapping[ev.Slice, Gradient]) -> int:
        """Return what tensors weigh on the network and under the lock, in bytes."""
        return round(self._scale * sum(value.nbytes for value in values.values()))

    def submit(self, event: ev.ShardEvent) -> None:
        """Queue for the lock."""
        self._queue.append((event, self._heap.now))
        if not self._is_locked:
            self._serve()

    def _serve(self) -> None:
        """Handle one event after the other, until one takes time."""
        heap = self._heap
        while self._queue:
            event, came = self._queue.popleft()
            self.waited_ns += heap.now - came
            self.served += 1
            if isinstance(event, ev.GenerationBegun):
                self.generation, self._gathered = event.generation, Gathered()
            effects = self.shard.handle(event, heap.now / NANOSECONDS)
            duration, cause = self._cost(event, effects)
            if isinstance(event, ev.RoundClosed):
                self.applied_ns = heap.now + duration
            if duration:
                self.held_ns += duration
                self._is_locked = True
                self._cores.begin(duration, self._served, (self._life, effects, cause))
                return
            self._dispatch(self, effects, cause)

    def _served(self, handled: tuple[int, list[ev.ShardEffect], int]) -> None:
        self._process.do(self._unlock, handled)

    def _unlock(self, handled: tuple[int, list[ev.ShardEffect], int]) -> None:
        life, effects, cause = handled
        if life != self._life:
            return
        self._is_locked = False
        self._dispatch(self, effects, cause)
        self._serve()

    def _cost(self, event: ev.ShardEvent, effects: Sequence[ev.ShardEffect]) -> tuple[int, int]:
        """Return how long an event holds the lock, and the rank on whose account it moves the frontier."""
        cause = ev.NOBODY
        if isinstance(event, ev.PushReceived):
            cause = event.replica.rank
        elif isinstance(event, ev.RoundClosed):
            cause = self._closers.pop(event.number)
        applied = self._gathered.applied(event, effects)
        summed = sum(self.weigh(push.gradients) for push in applied)
        duration = self._network.lock_ns + round(self._network.lock_per_byte_ns * summed)
        if applied and self._diary is not None:
            self._diary.applied(self._heap.now, self._heap.now + duration, applied)
        return duration, cause
