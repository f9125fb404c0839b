"""One server with one replica, which is this process: what its steps take, and what its gradients."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from paramserver.events import JobSpec
from paramserver.rows import Gradients
from paramserver.sim.estimate import Steps
from paramserver.workload import Workload

if TYPE_CHECKING:
    from paramserver.client import Connection, ReplicaClient

WARM_STEPS = 20
"""Steps that are not counted: connections open, caches fill, the interpreter specialises its code."""

TRIPS = 40
"""Small messages that show how far away a server is."""


@dataclass
class _Turn:
    """What some steps of one turn took on average, in nanoseconds."""

    client: float
    server: float
    lock: float


@dataclass
class Side:
    """One server with one replica, which is this process.

    Attributes:
        address: of the server.
        spec: the job.
        plan: whose gradients to compute; None for gradients of zero.
        gradients_ns: how long each gradient took.
    """

    address: str
    spec: JobSpec
    plan: Workload | None
    gradients_ns: list[float] = field(default_factory=list)
    _walls: list[int] = field(default_factory=list)
    _turns: list[_Turn] = field(default_factory=list)
    _clock: int = 0
    _cpu_ns: int = 0
    _cpu_shares: list[float] = field(default_factory=list)

    def __enter__(self) -> Side:
        from paramserver.client import Connection

        self._stack = ExitStack()
        self._connection: Connection = self._stack.enter_context(Connection(self.address))
        self._replica: ReplicaClient = self._connection.join("calibration", self.spec)
        zeros = {tensor.key: np.zeros(tensor.shape, np.float32) for tensor in self.spec.tensors}
        self._replica.initialise(zeros if self.plan is None else self.plan.initial())
        self._gradients: Gradients = zeros
        self._size = sum(value.nbytes for value in zeros.values())
        self._batches = self._make_batches()
        return self

    def __exit__(self, *_: object) -> None:
        self._replica.leave()
        self._stack.close()

    @property
    def cpu(self) -> float:
        """The share of the gradients' time in which a core was needed."""
        # The median: whoever is made to wait for a core by other programs has used less of a longer time.
        return statistics.median(self._cpu_shares) if self._cpu_shares else 1.0

    def warm_up(self) -> None:
        """Do some steps that are not counted."""
        for _ in range(WARM_STEPS):
            self._step(next(self._batches))
        self._walls.clear()
        self.gradients_ns.clear()
        self._cpu_shares.clear()
        self._cpu_ns = 0

    def take_turn(self, seconds: float) -> None:
        """Do as many steps as fit, and note what they took."""
        begin, end = self._account(), time.monotonic() + seconds
        steps, batching, computing = 0, 0, self._cpu_ns
        while time.monotonic() < end or not steps:
            made = time.thread_time_ns()
            batch = next(self._batches)
            batching += time.thread_time_ns() - made
            self._step(batch)
            steps += 1
        client, server, lock = (after - before for before, after in zip(begin, self._account(), strict=True))
        client -= batching + self._cpu_ns - computing
        self._turns.append(_Turn(client / steps, server / steps, lock / steps))

    def steps(self) -> Steps:
        """Return what a step takes: medians."""
        return Steps(
            requests=self._replica.session.shards,
            size=self._size,
            wall_ns=statistics.median(self._walls),
            client_ns=statistics.median(turn.client for turn in self._turns),
            server_ns=statistics.median(turn.server for turn in self._turns),
            lock_ns=statistics.median(turn.lock for turn in self._turns),
        )

    def trip_ns(self) -> float:
        """Return how long a small question and its answer take."""
        times = []
        for _ in range(TRIPS):
            begin = time.perf_counter_ns()
            self._connection.status()
            times.append(time.perf_counter_ns() - begin)
        return statistics.median(times)

    def _step(self, batch: Any) -> None:
        begin = time.perf_counter_ns()
        pulled = self._replica.pull(self._clock)
        pull = time.perf_counter_ns() - begin
        gradients, samples = self._gradients, 1
        if self.plan is not None:
            gradients, samples = self._compute(pulled.values, batch)
        begin = time.perf_counter_ns()
        self._replica.push(self._clock, gradients, samples)
        self._walls.append(pull + time.perf_counter_ns() - begin)
        self._clock += 1

    def _compute(self, values: Mapping[str, Any], batch: Any) -> tuple[Gradients, int]:
        begin, used = time.perf_counter_ns(), time.thread_time_ns()
        _, gradients, samples = self._own_step.gradient(values, batch)
        used = time.thread_time_ns() - used
        wall = time.perf_counter_ns() - begin
        self._cpu_ns += used
        self._cpu_shares.append(used / wall)
        self.gradients_ns.append(wall)
        return gradients, samples

    def _make_batches(self) -> Iterator[Any]:
        """Give batches for ever; workers make them beside their steps, so here they are not counted."""
        if self.plan is None:
            while True:
                yield None
        self._own_step = self.plan.step(0)
        while True:
            for clock in range(self.plan.steps[0]):
                yield self._own_step.batch_at(clock)

    def _account(self) -> tuple[int, float, float]:
        """Return processor time of this process and of the server, and time under locks, in nanoseconds."""
        status = self._connection.status()
        lock = sum(shard.lock_hold_seconds for shard in status.shards)
        return time.process_time_ns(), status.cpu_seconds * 1e9, lock * 1e9
