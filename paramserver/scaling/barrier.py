"""What waiting for each other would cost if nothing else cost anything."""

from __future__ import annotations

from paramserver.sim import Machines, World
from paramserver.sim.compute import StepTimes


def barrier_ns(world: World, machines: Machines, bound: int | None, steps: int) -> tuple[int, float]:
    """Follow the compute times alone through some steps of every replica.

    A step begins when the replica's last one is over and every replica has finished ``bound`` steps less:
    with a free network that is when the rule lets its pull through. Faults are left out.

    Args:
        world: its compute times and its seed.
        machines: how many replicas.
        bound: in clocks, 0 for synchronous modes; None where nobody waits.
        steps: of each replica.

    Returns:
        When the last replica has finished the last step, and for how long a replica computes on average, in
        nanoseconds; their difference is what waiting costs. Where nobody waits there is none.
    """
    times = [
        StepTimes(world.compute, world.seed, number, number // machines.threads)
        for number in range(machines.replicas)
    ]
    finished = [0] * len(times)
    frontier: list[int] = []  # when everyone had finished each clock
    computed = 0
    for clock in range(steps):
        opens = frontier[clock - bound - 1] if bound is not None and clock > bound else 0
        for number, one in enumerate(times):
            begin = max(finished[number], opens)
            duration = one.nanoseconds(clock, begin)
            computed += duration
            finished[number] = begin + duration
        frontier.append(max(finished))
    mean = computed / len(times)
    return (frontier[-1] if bound is not None and frontier else round(mean)), mean
