"""Virtual time: our event heap beside simpy's and beside a bare heap loop, and the whole simulator.

Twice: with handlers that are empty, and with such that do nothing but wish for their next event. Sides run
    in turns in one process, and CPU time is measured, so that what else the machine does falls on all of
    them. The last rows run whole
jobs: real shards, sessions and training loops, gradients of nothing.
"""

from __future__ import annotations

import cProfile
import pstats
import resource
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from multiprocessing import get_context
from typing import Any

from paramserver.data import generator
from paramserver.sim import EventHeap, Machines, parse_problem, simulate, world_from_mapping

EVENTS = 200_000
PROCESSES = (100, 1000, 10_000)
DELAYS = generator(0, "delays").integers(1, 10**9, EVENTS).tolist()
RULES = ("async", "sync", "ssp:2")


@dataclass(frozen=True)
class Row:
    """One line of the first table: events per CPU second, medians over the pairs."""

    handler: str
    ours: float
    simpy: float
    bare: float
    ratio: float


def run(pairs: int = 7) -> list[Row]:
    """Measure empty handlers, and handlers that wish for the next event with each number of processes."""
    import simpy

    rows = [_measure("empty", pairs, _ours_empty, lambda: _simpy_empty(simpy), _bare_empty)]
    for processes in PROCESSES:
        sides = (partial(_ours, processes), partial(_simpy, simpy, processes), partial(_bare, processes))
        rows.append(_measure(f"the next event of one of {processes:,}", pairs, *sides))
    return rows


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| handler | ours, events/s | simpy, events/s | ours / simpy | bare heap loop, events/s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        numbers = f"{row.ours:,.0f} | {row.simpy:,.0f} | {row.ratio:.2f} | {row.bare:,.0f}"
        lines.append(f"| {row.handler} | {numbers} |")
    return "\n".join(lines)


def run_jobs(workers: int, steps: int, shards: int = 1, rules: Sequence[str] = RULES) -> str:
    """Run whole jobs, timing only, each in a fresh process; return a Markdown table of what they cost."""
    lines = [
        f"{workers:,} workers x {steps} steps, timing only, {shards} shard{'s' * (shards > 1)}, ideal "
        "network, exponential times.",
        "",
        "| rule | CPU seconds | events/s | worker steps/s | peak memory, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    # The peak of a process is that of its largest job.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for rule in rules:
            happened, seconds, memory = processes.submit(_cost, rule, workers, steps, shards).result()
            rates = f"{happened / seconds:,.0f} | {workers * steps / seconds:,.0f}"
            lines.append(f"| {rule} | {seconds:.1f} | {rates} | {memory:,.0f} |")
    return "\n".join(lines)


AREAS = {
    "sim/heap.py": "the event heap",
    "paramserver/sim/": "the rest of the simulator: network, lock queues, replicas",
    "paramserver/session.py": "session and training loop",
    "paramserver/training.py": "session and training loop",
    "paramserver/tally.py": "session and training loop",
    "paramserver/": "shard, weights, rules, optimizer, coordinator",
    "dataclasses.py": "copies of events with a request number",
    "~": "built-in functions, NumPy",
}
"""What a function counts as: the first that its place contains."""


def profile(rule: str = "async", workers: int = 1000, steps: int = 10) -> str:
    """Return where the time of a job goes, as a Markdown table of shares."""
    profiler = cProfile.Profile()
    profiler.runcall(_job, rule, workers, steps, 1)
    spent: dict[str, float] = {}
    for (place, _, _), (_, _, own, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        area = next((name for part, name in AREAS.items() if part in place), "everything else")
        spent[area] = spent.get(area, 0.0) + own
    total = sum(spent.values())
    lines = [
        f"Where the time of {workers:,} x {steps} under {rule} goes (cProfile, each function for itself):"
    ]
    lines += ["", "| part | share |", "| --- | ---: |"]
    lines += [
        f"| {area} | {own / total:.0%} |"
        for area, own in sorted(spent.items(), key=lambda item: item[1], reverse=True)
    ]
    return "\n".join(lines)


def _cost(rule: str, workers: int, steps: int, shards: int) -> tuple[int, float, float]:
    """Return events, CPU seconds, and the peak of the memory in MB."""
    begin = time.process_time()
    happened = _job(rule, workers, steps, shards)
    seconds = time.process_time() - begin
    return happened, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _job(rule: str, workers: int, steps: int, shards: int) -> int:
    machines = Machines(shards=shards, workers=workers)
    problem = parse_problem("timing", shards)
    world = world_from_mapping({"compute": "exponential:10ms", "network": "ideal"}, "a benchmark")
    run = simulate(world, machines, problem, steps, keep_steps=False, consistency=rule)
    assert not run.reason
    return run.happened


def _measure(handler: str, pairs: int, *sides: Callable[[], float]) -> Row:
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(pairs):
        for side, times in zip(sides, seconds, strict=True):
            times.append(side())
    ours, theirs, bare = (EVENTS / statistics.median(times) for times in seconds)
    ratio = statistics.median(b / a for a, b in zip(seconds[0], seconds[1], strict=True))
    return Row(handler, ours, theirs, bare, ratio)


def _ours_empty() -> float:
    heap = EventHeap()

    def run() -> None:
        for delay in DELAYS:
            heap.at(delay, _do_nothing)
        heap.run()

    return _timed(run)


def _simpy_empty(simpy: Any) -> float:
    environment = simpy.Environment()

    def run() -> None:
        for delay in DELAYS:
            environment.timeout(delay).callbacks.append(_do_nothing)
        environment.run()

    return _timed(run)


def _bare_empty() -> float:
    def run() -> None:
        heap: list[tuple[int, int]] = []
        for sequence, delay in enumerate(DELAYS):
            heappush(heap, (delay, sequence))
        while heap:
            heappop(heap)
            _do_nothing(None)

    return _timed(run)


def _do_nothing(_: object) -> None:
    """Be an empty handler."""


def _ours(processes: int) -> float:
    heap, delays = EventHeap(), iter(DELAYS)

    def tick(_: None) -> None:
        delay = next(delays, 0)
        if delay:
            heap.at(heap.now + delay, tick)

    for process in range(processes):
        heap.at(process, tick)
    return _timed(heap.run)


def _simpy(simpy: Any, processes: int) -> float:
    environment, delays = simpy.Environment(), iter(DELAYS)

    def process() -> Generator[Any, None, None]:
        for delay in delays:
            yield environment.timeout(delay)

    for _ in range(processes):
        environment.process(process())
    return _timed(environment.run)


def _bare(processes: int) -> float:
    heap, delays = [(process, process) for process in range(processes)], iter(DELAYS)

    def run() -> None:
        sequence = processes
        while heap:
            now, _ = heappop(heap)
            delay = next(delays, 0)
            if delay:
                sequence += 1
                heappush(heap, (now + delay, sequence))

    return _timed(run)


def _timed(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin
