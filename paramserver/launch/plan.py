"""What is known of a job before anything is started; whatever is wrong with the input is found here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from paramserver.datasets import NAMES
from paramserver.errors import RequestError
from paramserver.events import JobSpec
from paramserver.job import CODE, Job
from paramserver.placement import place
from paramserver.sim import Machines, Problem, World, check_world, parse_problem
from paramserver.user_code import UserCode
from paramserver.workload import Workload, load_workload

PROCESSES_MAX = 256
"""Servers and workers of a job on one machine; each takes some 60 MB and a core's attention."""


@dataclass(frozen=True)
class Exercise:
    """A job that trains a problem in place of data and a model; in virtual time only.

    Attributes:
        job: resolved.
        problem: what is trained.
    """

    job: Job
    problem: Problem

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of each replica, in rank order."""
        return (self.job.steps,) * self.job.replicas

    @property
    def spec(self) -> JobSpec:
        """What the replicas agree on with the servers."""
        return replace(self.job.spec(self.problem.shapes, self.steps), model=self.problem.name)


Plan = Workload | Exercise


def machines_of(job: Job) -> Machines:
    """Return who takes part in a job."""
    return Machines(job.servers, job.shards, job.workers, job.threads)


def make_plan(job: Job, code: UserCode | None = None, world: World | None = None) -> Plan:
    """Resolve a job, read its data, build its model.

    Args:
        job: what a person wants.
        code: the user's file, if there is one.
        world: in which it runs, if it runs in virtual time.

    Raises:
        RequestError: a field, the data or the model is wrong, or they do not fit together; or it cannot run
            in this world.
    """
    job = _with_absolute_paths(job).resolved()
    if (world is not None) != (job.engine == "sim"):
        raise RequestError(
            "A job in virtual time needs a world, and no other job has one, but the engine is "
            f"'{job.engine}' and a world was {'not ' if world is None else ''}given."
        )
    if world is not None:
        check_world(world, machines_of(job))
    if job.engine == "local" and job.servers + job.workers > PROCESSES_MAX:
        raise RequestError(
            f"One machine runs at most {PROCESSES_MAX} servers and workers, and {job.servers} servers and "
            f"{job.workers} workers were asked for. Use more shards or threads instead."
        )
    plan: Plan
    if job.problem:
        plan = Exercise(job, parse_problem(job.problem, machines_of(job).shards_in_all, job.seed))
    else:
        plan = load_workload(job, code)
    place(plan.spec.tensors, job.servers * job.shards)
    return plan


def _with_absolute_paths(job: Job) -> Job:
    """Make paths absolute, so that the job file in the run folder works from anywhere."""
    data, data_dir = job.data, job.data_dir
    if data_dir:
        data_dir = str(Path(data_dir).expanduser().absolute())
    if data != CODE and data not in NAMES and Path(data).expanduser().exists():
        data = str(Path(data).expanduser().absolute())
    return replace(job, data=data, data_dir=data_dir)
