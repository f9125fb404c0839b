"""Measure this machine by a short real run of a job, so that simulated ones take as long as real ones.

The servers are the deployed program, and the replica is the deployed client in this process: it pulls,
computes the job's own gradients and pushes, with nobody beside it. Wall times are medians, processor times
come from the kernel (the server's through its status), so that what else the machine does counts for little.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from paramserver.calibration.side import Side
from paramserver.errors import RequestError
from paramserver.events import JobSpec, TensorSpec
from paramserver.own_server import serve
from paramserver.sim.estimate import Measured
from paramserver.workload import Workload

SHARDS = 4
"""Of the server that shows what one more request costs."""

SECONDS_LEAST = 2.0
"""Less shows nothing: each of three servers gets some ten turns of a few steps."""

SPIN_SHARE = 0.15
"""Of the time: how fast this machine's cores are together."""

SPIN_ROUNDS = 3
TURNS = 12
"""How often the servers take turns, so that a slow moment of the machine hits all of them."""

LEASE_SECONDS = 600.0
"""Nobody sends heartbeats here."""

_SPIN = """
import sys, time
seconds = float(sys.argv[1])
sys.stdin.readline()
rounds, end = 0, time.perf_counter() + seconds
while time.perf_counter() < end:
    sum(range(2000))
    rounds += 1
print(rounds)
"""


def measure(plan: Workload, seconds: float, connect: str = "") -> Measured:
    """Measure what a job's steps consist of; blocks for about so many seconds.

    Args:
        plan: the job; of its machines, consistency and epochs nothing matters here.
        seconds: how long to measure, >= ``SECONDS_LEAST``.
        connect: address of a server on another machine, which has one shard and no job, to measure the way
            there; empty: servers and workers are on this machine.

    Raises:
        RequestError: the time is too short, or the server refuses the job.
        JobError: a server cannot be started or reached.
    """
    check_seconds(seconds)
    with ExitStack() as stack:
        cores = _measure_cores(seconds * SPIN_SHARE)
        # All processes are started before gRPC is loaded, which does not like to be forked.
        addresses = [stack.enter_context(serve(shards=shards)) for shards in (1, SHARDS, 1)]
        jobs = [(_small(1), None), (_small(SHARDS), None), (_whole(plan), plan)]
        if connect:
            addresses.append(connect)
            jobs.append((_whole(plan), None))
        sides = [
            stack.enter_context(Side(address, spec, own))
            for address, (spec, own) in zip(addresses, jobs, strict=True)
        ]
        for side in sides:
            side.warm_up()
        for _ in range(TURNS):
            for side in sides:
                side.take_turn(seconds * (1 - SPIN_SHARE) / (TURNS * len(sides)))
        single, several, whole, *far = sides
        near = Measured(single.steps(), several.steps(), whole.steps(), whole.gradients_ns, whole.cpu, cores)
        return _with_link(near, whole, far[0]) if far else near


def _with_link(near: Measured, whole: Side, far: Side) -> Measured:
    """Add the way to a server on another machine, where everybody has cores of their own."""
    steps = far.steps()
    if steps.requests != 1:
        raise RequestError(
            f"The server at {far.address} has {steps.requests} shards, but to measure the way to it one is "
            "needed. Start it with --shards 1."
        )
    trip = max(0.0, far.trip_ns() - whole.trip_ns()) / 2
    longer = steps.wall_ns - near.whole.wall_ns - 4 * trip
    byte = max(0.0, longer / (2 * steps.size))
    return replace(near, cores=None, trip_ns=trip, byte_ns=byte)


def busy_elsewhere(seconds: float = 0.5) -> float | None:
    """Return how many cores other programs use, while this one sleeps; None where nobody knows."""
    before = _busy_seconds()
    time.sleep(seconds)
    after = _busy_seconds()
    return None if before is None or after is None else max(0.0, after - before) / seconds


def _busy_seconds() -> float | None:
    """Return the processor time of all programs since the machine was started, on Linux."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, interrupt, soft, *steal = map(int, words)
    return (user + nice + system + interrupt + soft + sum(steal[:1])) / os.sysconf("SC_CLK_TCK")


def check_seconds(seconds: float) -> None:
    """Refuse a time in which nothing can be measured.

    Raises:
        RequestError: it is too short.
    """
    if not (math.isfinite(seconds) and seconds >= SECONDS_LEAST):
        raise RequestError(
            f"It takes at least {SECONDS_LEAST:g} seconds to measure, but {seconds:g} were given."
        )


def cores_here() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _measure_cores(seconds: float) -> float:
    """Return how many times as much as one core alone all cores together do."""
    count = cores_here()
    if count == 1:
        return 1.0
    turn = seconds / (2 * SPIN_ROUNDS)
    # The largest: other programs hold up many more than one.
    ratios = [sum(_spin(count, turn)) / sum(_spin(1, turn)) for _ in range(SPIN_ROUNDS)]
    return round(min(float(count), max(1.0, max(ratios))), 2)


def _spin(processes: int, seconds: float) -> list[int]:
    """Let processes do the same thing for so long, side by side; return how often each has done it."""
    command = [sys.executable, "-I", "-c", _SPIN, str(seconds)]
    with ExitStack() as stack:
        children = []
        for _ in range(processes):
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
            children.append(stack.enter_context(child))
            stack.callback(child.kill)
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"\n")
        return [int(child.stdout.readline()) for child in children if child.stdout is not None]


def _small(shards: int) -> JobSpec:
    """Return a job that weighs next to nothing: a number for each shard."""
    return _alone(JobSpec(tensors=(TensorSpec("w", (shards,)),)))


def _whole(plan: Workload) -> JobSpec:
    """Return a job with the weights and the optimizer of the one that is measured."""
    # No samples: it goes on as long as there is something to measure, and no epoch has to be whole.
    return _alone(replace(plan.spec, target_accuracy=0.0, versions_total=1 << 30, samples=0))


def _alone(spec: JobSpec) -> JobSpec:
    return replace(
        spec,
        consistency="async",
        replicas=1,
        replicas_max=1,
        on_death="drop",
        lease_seconds=LEASE_SECONDS,
        step_timeout_seconds=LEASE_SECONDS,
    )
