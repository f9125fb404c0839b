"""Run a job in virtual time: the deployed protocol on machines that exist only as costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from paramserver.diaries import ReplicaDiary, replica_row, shard_row
from paramserver.errors import Failure, JobError, RequestError
from paramserver.events import JobSpec, JobStatus, Score, Snapshot
from paramserver.faults import Happening, decide
from paramserver.placement import bytes_per_shard, join, place
from paramserver.quantities import NANOSECONDS
from paramserver.sim.compute import StepTimes
from paramserver.sim.cores import Cores
from paramserver.sim.diary import Diary, StepRecord
from paramserver.sim.heap import EventHeap
from paramserver.sim.links import Fabric
from paramserver.sim.problems import Task
from paramserver.sim.replica import VirtualReplica
from paramserver.sim.run import Run, ServerRecord, ShardRecord
from paramserver.sim.servers import Servers
from paramserver.sim.toll import Toll
from paramserver.sim.worker import VirtualWorker
from paramserver.sim.world import Machines, World, check_world, loses_servers, newcomers
from paramserver.tracing import Recorder
from paramserver.types import Array, Tensors

REPLICAS_NAMED_MAX = 8
"""How many replicas a message names."""


EVENTS_BETWEEN_CHECKS = 4096
"""Some ten milliseconds of real time, where no gradient is computed."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Somebody who looks at the weights while they are trained, at no cost.

    Attributes:
        every_ns: until the first look, and from one look to the next.
        score: judges weights; takes them by key, the largest shard version, and the closed rounds. The
            coordinator is told, so that a job with a target accuracy ends when it is reached. None is no
            judgement.
        next_ns: takes the present in nanoseconds and the largest shard version, 0 while there are no weights,
            and returns when to look next, instead of ``every_ns``.
    """

    every_ns: int
    score: Callable[[Tensors, int, int], Score | None]
    next_ns: Callable[[int, int], int] | None = None


class Simulation:
    """One run in virtual time.

    Args:
        world: costs and faults.
        machines: who takes part.
        spec: the job. Late workers of the world are let in beside its own replicas.
        task: what replicas do, with real gradients or without.
        trace_max: newest records of the trace to keep; 0 for no trace.
        keep_steps: whether to keep a record of every step.
        watch: looks at the weights while they are trained; None for nobody.
        keeps: servers that are lost come back with a checkpoint; if not, the loss of one ends the job.
        check: called every few thousand events; what it raises ends the run.

    Raises:
        RequestError: the world cannot be with these machines, or the job is for others.

    Example:
        >>> from paramserver.sim import parse_problem, world_from_mapping
        >>> machines = Machines(workers=4)
        >>> problem = parse_problem("quadratic:1")
        >>> world = world_from_mapping({"compute": "constant:10ms", "network": "ideal"}, "an example")
        >>> run = Simulation(world, machines, problem.spec(50, machines), problem.task(50, machines)).run()
        >>> run.seconds, run.versions
        (0.5, (50,))
    """

    def __init__(
        self,
        world: World,
        machines: Machines,
        spec: JobSpec,
        task: Task,
        *,
        trace_max: int = 0,
        keep_steps: bool = True,
        watch: Watch | None = None,
        keeps: bool = True,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        check_world(world, machines)
        if spec.replicas != machines.replicas:
            raise RequestError(
                f"The job is for {spec.replicas} replicas, but {machines.workers} workers of "
                f"{machines.threads} threads are {machines.replicas}. Make them the same."
            )
        workers = machines.workers + newcomers(world, machines)
        self._world, self._machines = world, machines
        most = max(spec.replicas_max, workers * machines.threads)
        self._spec = replace(spec, replicas_max=most)
        if task.dealt_step is None:
            self._spec = replace(self._spec, samples=0, shares=())
        self._heap = EventHeap()
        self._recorder = Recorder(trace_max) if trace_max else None
        self._steps: list[StepRecord] | None = [] if keep_steps else None
        self._fabric = Fabric(self._heap, world, machines.servers, workers)
        sizes = bytes_per_shard(
            spec.tensors, place(spec.tensors, machines.shards_in_all), machines.shards_in_all
        )
        scale = 1.0 if task.bytes_in_all is None else task.bytes_in_all / sum(sizes)
        weights = [round(scale * size) for size in sizes]
        cores = Cores(self._heap, world.network.cores)
        self._servers = Servers(
            self._heap,
            world,
            machines,
            self._fabric,
            weights,
            scale,
            self._recorder,
            cores,
            _patience(world, spec) if keeps else 0.0,
        )
        self._servers.coordination.on_end = self._stop_if_over
        self._workers = [self._worker(index, task) for index in range(workers)]
        self._watch, self._check = watch, check
        self._scores: list[tuple[int, Score]] = []
        # Whoever waits is waited for by a time that ends sooner, so silence for so long is a mistake.
        silence = _longest_wait(spec) + 2 * self._servers.patience_seconds
        self._patience_ns = round(silence * NANOSECONDS)

    @property
    def now_ns(self) -> int:
        """The present, in nanoseconds from the beginning of the world."""
        return self._heap.now

    @property
    def began_ns(self) -> int | None:
        """When every replica had joined and the weights were there; None before."""
        return self._servers.coordination.began

    def status(self) -> JobStatus:
        """Return how the job stands, with what each replica would say of itself now; it costs nothing."""
        selves = {one.replica: one for one in self._replicas() if one.replica is not None}
        status = self._servers.coordination.status()
        members = []
        for member in status.members:
            if (one := selves.get(member.replica)) is not None:
                member = replace(member, clock=one.clock)
                # What an earlier life has counted only the coordinator knows.
                if member.replica.incarnation == 1 and (beat := one.beat()) is not None:
                    member = replace(member, phase=beat.phase, counters=beat.counters)
            members.append(member)
        return replace(status, members=tuple(members))

    def run(self) -> Run:
        """Let everything happen until the job is over.

        Raises:
            JobError: nothing can happen any more, and the job is not over.
        """
        for worker in self._workers[: self._machines.workers]:
            self._heap.at(0, worker.start)
        for happening in decide(self._world.faults, self._world.seed, self._machines.workers):
            self._heap.at(happening.at, self._befall, happening)
        self._heap.at(self._patience_ns, self._look_for_progress, 0)
        if self._watch is not None:
            self._heap.at(self._watch.every_ns, self._look, self._watch)
        while self._heap.run(EVENTS_BETWEEN_CHECKS):
            self._check()
        coordination = self._servers.coordination
        if coordination.ended is None and coordination.status().job is None:
            seconds = self._spec.start_timeout_seconds
            coordination.give_up(f"No replica could join within {seconds:g} s: the servers were not up.")
        if coordination.ended is None:
            states = ", ".join(str(replica) for replica in self._replicas()[:REPLICAS_NAMED_MAX])
            raise JobError(
                f"Nothing can happen any more, but the job is not over: {states}.", Failure.DEADLINE
            )
        return self.result()

    def _worker(self, index: int, task: Task) -> VirtualWorker:
        lease = self._spec.lease_seconds
        worker = VirtualWorker(index, self._servers, self._fabric, lease, self._stop_if_over)
        world = self._world
        toll = Toll(self._heap, world.network, self._servers.cores, world.compute.cpu)
        for thread in range(self._machines.threads):
            number = index * self._machines.threads + thread
            name = f"worker{index}/{thread}"
            times = StepTimes(self._world.compute, self._world.seed, number, index)
            row = None if self._recorder is None else ReplicaDiary(replica_row(name), self._recorder)
            diary = Diary(self._steps, row)
            replica = VirtualReplica(worker, name, self._servers, self._spec, task, times, diary, toll)
            worker.replicas.append(replica)
        return worker

    def _befall(self, happening: Happening) -> None:
        if happening.server is not None:
            self._servers.outages.befall(happening)
            return
        worker = self._workers[happening.worker]
        if happening.kind == "join" or worker.alive:
            self._servers.coordination.notes.append((self._heap.now, str(happening)))
            worker.befall(happening)

    def _look(self, watch: Watch) -> None:
        """Score the weights as they are, and look again later."""
        if self._servers.coordination.ended is not None:
            return
        now, version = self._heap.now, 0
        snapshots = self._servers.observe()
        if snapshots:
            version, rounds = max(one.version for one in snapshots), snapshots[0].rounds
            score = watch.score(self._weights(snapshots), version, rounds)
            if score is not None:
                self._scores.append((now, score))
                self._servers.coordination.score(score)
        again = now + watch.every_ns if watch.next_ns is None else watch.next_ns(now, version)
        self._heap.at(again, self._look, watch)

    def _look_for_progress(self, answers: int) -> None:
        """Give up where heartbeats alone keep virtual time going."""
        if self._servers.answers == answers:
            self._heap.stop()
        else:
            again = self._heap.now + self._patience_ns
            self._heap.at(again, self._look_for_progress, self._servers.answers)

    def _weights(self, snapshots: Sequence[Snapshot]) -> dict[str, Array]:
        shapes = {tensor.key: tensor.shape for tensor in self._spec.tensors}
        values = {part: value for snapshot in snapshots for part, value in snapshot.values.items()}
        return join(shapes, values) if values else {}

    def _stop_if_over(self) -> None:
        if self._servers.coordination.is_over and not any(worker.alive for worker in self._workers):
            self._heap.stop()

    def _replicas(self) -> list[VirtualReplica]:
        return [replica for worker in self._workers for replica in worker.replicas]

    def result(self) -> Run:
        """Return what has come of it: at the end of `run`, or so far where that ended with an error."""
        servers, status, now = self._servers, self.status(), self._heap.now
        coordination = servers.coordination
        snapshots = servers.observe()
        waits = {
            (replica.replica.rank, other): waited
            for replica in self._replicas()
            if replica.replica is not None
            for other, waited in sorted(replica.diary.waits.items())
        }
        versions = [snapshot.version for snapshot in snapshots] or [0] * len(servers.shards)
        rows = [shard_row(shard.server, shard.index) for shard in servers.shards]
        rows += [replica_row(replica.name) for worker in self._workers for replica in worker.replicas]
        return Run(
            status=status,
            began_ns=coordination.began if coordination.began is not None else now,
            ended_ns=coordination.ended_ns if coordination.ended is not None else now,
            weights=self._weights(snapshots),
            cuts=tuple(servers.cut()),
            steps=tuple(self._steps or ()),
            waits=waits,
            shards=tuple(
                ShardRecord(version, shard.served, shard.held_ns, shard.waited_ns, shard.applied_ns)
                for version, shard in zip(versions, servers.shards, strict=True)
            ),
            servers=tuple(
                ServerRecord(handlers.busy_ns, into.busy_ns(now), out.busy_ns(now), out.either_busy_ns(now))
                for handlers, (into, out) in zip(servers.handlers, self._fabric.server_links, strict=True)
            ),
            cores_ns=servers.cores.busy_ns,
            notes=tuple(coordination.notes),
            scores=tuple(self._scores),
            trace=self._recorder.records() if self._recorder else (),
            forgotten=self._recorder.forgotten if self._recorder else 0,
            rows=tuple(rows) if self._recorder else (),
            happened=self._heap.happened,
        )


def _patience(world: World, spec: JobSpec) -> float:
    """Return, in seconds, how long a lost server is waited for; 0 where checkpoints are not made.

    What costs nothing and is never read changes nothing, so it is left out.
    """
    makes = spec.checkpoint_updates or spec.checkpoint_seconds
    if loses_servers(world) or (makes and world.network.has_costly_checkpoints):
        return spec.lease_seconds + spec.restart_timeout_seconds
    return 0.0


def _longest_wait(spec: JobSpec) -> float:
    """Return, in seconds, how long it may be silent in a job that goes on."""
    death = max(spec.lease_seconds, spec.step_timeout_seconds) + spec.restart_timeout_seconds
    return spec.start_timeout_seconds + 2 * death
