"""One call from a world and a problem to what came of them."""

from __future__ import annotations

from typing import Any

from paramserver.sim.engine import Simulation, Watch
from paramserver.sim.problems import Problem
from paramserver.sim.run import Run
from paramserver.sim.world import Machines, World


def simulate(
    world: World,
    machines: Machines,
    problem: Problem,
    steps: int,
    *,
    bytes_in_all: int | None = None,
    trace_max: int = 0,
    keep_steps: bool = True,
    watch: Watch | None = None,
    **changes: Any,
) -> Run:
    """Train a problem in virtual time.

    Args:
        world: costs and faults.
        machines: who takes part.
        problem: what is trained; its chance is its own.
        steps: of each replica.
        bytes_in_all: what the weights weigh on the network and under the locks; None for what they are.
        trace_max: newest records of the trace to keep; 0 for no trace.
        keep_steps: whether to keep a record of every step.
        watch: looks at the weights while they are trained; None for nobody.
        **changes: fields of `JobSpec`, such as ``consistency`` and ``learning_rate``.

    Raises:
        RequestError: the world cannot be with these machines.
        JobError: nothing can happen any more, and the job is not over.
    """
    return Simulation(
        world,
        machines,
        problem.spec(steps, machines, **changes),
        problem.task(steps, machines, bytes_in_all),
        trace_max=trace_max,
        keep_steps=keep_steps,
        watch=watch,
    ).run()
