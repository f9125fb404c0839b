"""What is known of a job before anything is started; whatever is wrong with the input is found here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from paramserver.datasets import NAMES
from paramserver.errors import RequestError
from paramserver.job import CODE, Job
from paramserver.placement import place
from paramserver.user_code import UserCode
from paramserver.workload import Workload, load_workload

PROCESSES_MAX = 256
"""Servers and workers of a job on one machine; each takes some 60 MB and a core's attention."""


def make_plan(job: Job, code: UserCode | None = None) -> Workload:
    """Resolve a job, read its data, build its model.

    Args:
        job: what a person wants.
        code: the user's file, if there is one.

    Raises:
        RequestError: a field, the data or the model is wrong, or they do not fit together.
    """
    job = _with_absolute_paths(job).resolved()
    if job.servers + job.workers > PROCESSES_MAX:
        raise RequestError(
            f"One machine runs at most {PROCESSES_MAX} servers and workers, and {job.servers} servers and "
            f"{job.workers} workers were asked for. Use more shards or threads instead."
        )
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
