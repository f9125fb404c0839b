"""What is known of a job before anything is started; whatever is wrong with the input is found here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from paramserver.data import steps_of_rank
from paramserver.datasets import NAMES, Splits, load
from paramserver.errors import RequestError
from paramserver.events import JobSpec
from paramserver.job import Job
from paramserver.models import Model, build_model
from paramserver.placement import place

PROCESSES_MAX = 256
"""Servers and workers of a job on one machine; each takes some 60 MB and a core's attention."""


@dataclass(frozen=True)
class Plan:
    """A job that can be run.

    Attributes:
        job: resolved; its paths are absolute.
        splits: the data.
        model: fits the data.
        steps: of each replica, in rank order.
        spec: what replicas and servers agree on.
    """

    job: Job
    splits: Splits
    model: Model
    steps: tuple[int, ...]
    spec: JobSpec


def make_plan(job: Job) -> Plan:
    """Resolve a job, read its data, build its model.

    Raises:
        RequestError: a field, the data or the model is wrong, or they do not fit together.
    """
    job = _with_absolute_paths(job).resolved()
    if job.servers + job.workers > PROCESSES_MAX:
        raise RequestError(
            f"One machine runs at most {PROCESSES_MAX} servers and workers, and {job.servers} servers and "
            f"{job.workers} workers were asked for. Use more shards or threads instead."
        )
    splits = load(job.data, job.data_dir or None)
    model = build_model(job.model, splits.train.features, splits.train.classes)
    for part in (splits.train, splits.validation, splits.test):
        model.check_data(part)
    steps = tuple(
        steps_of_rank(len(splits.train), rank, job.replicas, job.batch, job.epochs)
        for rank in range(job.replicas)
    )
    spec = job.spec(model.shapes, steps)
    place(spec.tensors, job.servers * job.shards)
    return Plan(job, splits, model, steps, spec)


def _with_absolute_paths(job: Job) -> Job:
    """Make paths absolute, so that the job file in the run folder works from anywhere."""
    data, data_dir = job.data, job.data_dir
    if data_dir:
        data_dir = str(Path(data_dir).expanduser().absolute())
    if data not in NAMES and Path(data).expanduser().exists():
        data = str(Path(data).expanduser().absolute())
    return replace(job, data=data, data_dir=data_dir)
