"""What a summary says beside the figures of the training: the job, the data, the software, the machine."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from paramserver.events import JobStatus
from paramserver.launch.plan import Exercise, Plan
from paramserver.workload import Workload

PACKAGES = ("paramserver", "numpy", "grpcio", "protobuf")


def describe(plan: Plan, started_at: float) -> dict[str, Any]:
    """Return what a reader needs to judge a run, or to repeat it.

    Args:
        plan: what was run.
        started_at: seconds since 1970.

    Returns:
        Keys for the summary, as JSON values.
    """
    return {
        **(_problem(plan) if isinstance(plan, Exercise) else _data(plan)),
        "servers": plan.job.servers if plan.job.engine != "sequential" else 0,
        "job": asdict(plan.job),
        "started_at": datetime.fromtimestamp(started_at, UTC).isoformat(timespec="seconds"),
        "software": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": {"system": platform.platform(terse=True), "cores": os.cpu_count()},
    }


def checkpoint_details(status: JobStatus) -> dict[str, Any]:
    """Return what a checkpoint's manifest says beside what it holds."""
    job = status.job
    assert job is not None
    return {
        "model": job.model,
        "consistency": job.consistency,
        "learning_rate": job.learning_rate,
        "schedule": job.schedule,
        "seed": job.seed,
        "rounds": status.rounds,
        "fingerprint": job.fingerprint(),
    }


def _data(plan: Workload) -> dict[str, Any]:
    splits = plan.splits
    return {
        "data": plan.job.data,
        "data_samples": {
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        "task": plan.model.task,
        "features": splits.train.features,
        "classes": splits.train.classes,
        "class_names": splits.train.class_names,
        "dealing": plan.dealing,
    }


def _problem(plan: Exercise) -> dict[str, Any]:
    """Say the same of a problem, which has neither data nor classes."""
    return {
        "data": "",
        "data_samples": {"train": 0, "validation": 0, "test": 0},
        "task": "problem",
        "features": 0,
        "classes": 0,
        "class_names": [],
        "dealing": f"Each replica does {plan.job.steps:,} steps of the problem {plan.problem.name}.",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # run from a source tree
