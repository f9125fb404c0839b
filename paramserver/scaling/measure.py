"""Run one number of workers, and see what was busy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paramserver.accounting import merge_counters
from paramserver.consistency import parse_consistency
from paramserver.errors import JobError
from paramserver.events import JobSpec, Score
from paramserver.events.job import NOBODY
from paramserver.placement import bytes_per_shard, place
from paramserver.quantities import NANOSECONDS
from paramserver.scaling.barrier import barrier_ns
from paramserver.scaling.point import Point
from paramserver.sim import Machines, Run, Simulation, Task, Watch, World
from paramserver.sim.servers import HEADER_BYTES
from paramserver.types import Tensors

RESOLUTION = 0.05
"""The time to a target is known to this share of itself, or to a step of each replica if that is more."""


class _EnoughError(Exception):
    """As many gradients as were wanted have been applied."""


@dataclass(frozen=True)
class Exertion:
    """What is to be done with one number of workers.

    Attributes:
        world: costs and faults.
        machines: who takes part.
        spec: the job.
        task: what replicas do.
        enough: gradients after which one stops; 0 for when the job is over. A rule that lets replicas run
            apart ends with the slowest alone, which says nothing about many.
        judge: takes weights, version and closed rounds, as `Watch` has it; None where there is no target.
        check: called every few thousand events; what it raises ends the run.
    """

    world: World
    machines: Machines
    spec: JobSpec
    task: Task
    enough: int = 0
    judge: Callable[[Tensors, int, int], Score | None] | None = None
    check: Callable[[], object] = lambda: None


def measure(exertion: Exertion) -> Point:
    """Run it in virtual time.

    Raises:
        RequestError: the world cannot be with these machines.
        JobError: the job failed, or a replica was believed dead although nothing had befallen it.
    """
    simulation: Simulation
    gathers = parse_consistency(exertion.spec.consistency).gathers
    first_ns = max(1, round(exertion.world.compute.law.mean) or 1000)

    def done(version: int) -> int:
        return version * exertion.machines.replicas if gathers else version

    def look(weights: Tensors, version: int, rounds: int) -> Score | None:
        if exertion.enough and done(version) >= exertion.enough:
            raise _EnoughError
        return exertion.judge(weights, version, rounds) if exertion.judge is not None else None

    def next_look(now: int, version: int) -> int:
        """Return when, at the present speed, it is time: at the end, or where there is a target before."""
        began = simulation.began_ns
        if began is None or not version:
            return now + first_ns
        passed = now - began
        each = passed / done(version)
        if exertion.judge is not None:
            return now + round(max(each * exertion.machines.replicas, passed * RESOLUTION, 1))
        # Not further ahead than it is behind: the first gradients take longest, since all ask at once.
        return now + max(1, round(min(each * (exertion.enough - done(version)), passed)))

    watches = exertion.enough > 0 or exertion.judge is not None
    simulation = Simulation(
        exertion.world,
        exertion.machines,
        exertion.spec,
        exertion.task,
        keep_steps=False,
        watch=Watch(first_ns, look, next_look) if watches else None,
        check=exertion.check,
    )
    try:
        run = simulation.run()
    except _EnoughError:
        run = simulation.result()
    if run.reason:
        raise JobError(run.reason)
    _refuse_deaths(run, exertion)
    return _point(run, exertion, gathers)


def _refuse_deaths(run: Run, exertion: Exertion) -> None:
    # Whoever was believed dead has come back since, as its own next incarnation, or not yet.
    dead = sum(
        member.standing.value == "dead" or member.replica.incarnation > 1 for member in run.status.members
    )
    if dead and not (exertion.world.faults.blows or exertion.world.faults.chances):
        raise JobError(
            f"With {exertion.machines.workers:,} workers {dead:,} replicas were believed dead, since a step "
            f"took longer than {exertion.spec.step_timeout_seconds:g} virtual seconds. Give a larger "
            "--step-timeout, fewer workers, or a faster world."
        )


def _point(run: Run, exertion: Exertion, gathers: bool) -> Point:
    replicas, spec = exertion.machines.replicas, exertion.spec
    total = merge_counters(member.counters for member in run.status.members)
    steps = run.shards[0].version * replicas if gathers else run.shards[0].version
    span = _span(run, gathers)
    at_start = sum(waited for (_, other), waited in run.waits.items() if other == NOBODY)
    waited = total.seconds["wait"] * NANOSECONDS - at_start
    reached = [when for when, score in run.scores if score.accuracy >= spec.target_accuracy > 0]
    staleness = total.staleness
    applied = sum(staleness.values())
    return Point(
        workers=exertion.machines.workers,
        replicas=replicas,
        steps=steps,
        seconds=span / NANOSECONDS,
        shares=_shares(run, exertion, steps, span, total.seconds["compute"] * NANOSECONDS),
        wait=max(0.0, waited / (replicas * span)),
        staleness=sum(value * count for value, count in staleness.items()) / applied if applied else 0.0,
        target_seconds=(reached[0] - run.began_ns) / NANOSECONDS if reached else None,
        events=run.happened,
    )


def _span(run: Run, gathers: bool) -> int:
    """Return how long the steps took: after the last round replicas pull once more, which is no step."""
    return (max(shard.applied_ns for shard in run.shards) if gathers else run.ended_ns) - run.began_ns


def _shares(run: Run, exertion: Exertion, steps: int, span: int, computed_ns: float) -> dict[str, float]:
    """Return the share of the time for which each resource is busy."""
    world, machines, spec = exertion.world, exertion.machines, exertion.spec
    network = world.network
    replicas = machines.replicas
    rule = parse_consistency(spec.consistency)
    bound = 0 if rule.gathers else rule.bound
    ideal_ns, mean_ns = barrier_ns(world, machines, bound, round(steps / replicas))
    shards = machines.shards_in_all
    size = exertion.task.bytes_in_all or sum(
        bytes_per_shard(spec.tensors, place(spec.tensors, shards), shards)
    )
    # A pull and a push, each with a request and an answer from every shard; two of the four carry tensors.
    carried = 2 * size + 4 * shards * HEADER_BYTES
    slow = dict(network.slow_links)
    rates = [slow.get(worker, network.bandwidth) for worker in range(machines.workers)]
    on_link = sum(8e9 * carried / rate for rate in rates) / len(rates)
    client = 2 * (network.client_ns + network.client_per_request_ns * shards) + (
        network.client_per_byte_ns * 2 * size
    )
    each = steps / replicas / span  # turns what a replica's step costs into a share
    shares = {
        "compute": computed_ns / (replicas * span),
        "server link": max(server.link_ns for server in run.servers) / span,
        "lock": max(shard.held_ns for shard in run.shards) / span,
        "handlers": max(server.handlers_ns for server in run.servers) / (network.handlers * span),
        "cores": run.cores_ns / (network.cores * span) if network.cores is not None else 0.0,
        "barrier": (ideal_ns - mean_ns) / span if bound is not None else 0.0,
        "worker link": on_link * each,
        "latency": 4 * network.latency.mean * each,
        "client": client * each,
    }
    # What is carried while the job is set up and wound up is counted, too, so that a share may pass 1.
    return {name: min(1.0, share) for name, share in shares.items() if share > 0}
