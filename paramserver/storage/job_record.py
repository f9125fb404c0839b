"""What the coordinator remembers over its own end, as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from paramserver.errors import RequestError
from paramserver.events import JobRecord, JobSpec, Kept, MemberRecord, Standing, TensorSpec
from paramserver.storage.atomic import write_json

COORDINATOR = "coordinator.json"
FORMAT_VERSION = 1


def write_job_record(run: Path, record: JobRecord) -> None:
    """Write what a coordinator needs to go on; blocks until the disk has it.

    Raises:
        JobError: the disk refuses.
    """
    value = asdict(record)
    for member in value["members"]:
        member["standing"] = member["standing"].value
    write_json(run / COORDINATOR, {"format_version": FORMAT_VERSION, **value})


def has_job_record(run: Path) -> bool:
    """Say whether a coordinator has written down a job there."""
    return (run / COORDINATOR).exists()


def read_job_record(run: Path) -> JobRecord:
    """Read what `write_job_record` wrote.

    Raises:
        RequestError: there is none, or it is not sound.
    """
    path = run / COORDINATOR
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another format_version")
        return JobRecord(
            _job(value.pop("job")),
            members=tuple(_member(member) for member in value.pop("members")),
            kept=_kept(value.pop("kept")),
            **value,
        )
    except OSError as error:
        raise RequestError(
            f"There is no job to go on with: {path} cannot be read: {error.strerror}."
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(f"{path} is not what a coordinator has written ({error!r}).") from None


def resumed(record: JobRecord) -> JobRecord:
    """Return the record for replicas that all start anew, which are no restarts."""
    members = tuple(replace(member, restarts=-1) for member in record.members)
    return replace(record, members=members)


def _job(value: Mapping[str, Any]) -> JobSpec:
    tensors = tuple(TensorSpec(**(tensor | {"shape": tuple(tensor["shape"])})) for tensor in value["tensors"])
    return JobSpec(**{**value, "tensors": tensors})


def _member(value: Mapping[str, Any]) -> MemberRecord:
    return MemberRecord(**{**value, "standing": Standing(value["standing"])})


def _kept(value: Mapping[str, Any] | None) -> Kept | None:
    if value is None:
        return None
    return Kept(value["checkpoint"], value["rounds"], {int(r): c for r, c in value["clocks"].items()})
