"""What the coordinator remembers over its own end, as a file."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from paramserver.accounting import merge_counters
from paramserver.errors import RequestError
from paramserver.events import (
    Counters,
    DealtRecord,
    JobRecord,
    JobSpec,
    Kept,
    MemberRecord,
    Score,
    Standing,
    TensorSpec,
)
from paramserver.storage.atomic import write_json
from paramserver.storage.metrics import read_metrics

COORDINATOR = "coordinator.json"
FORMAT_VERSION = 1


def write_job_record(run: Path, record: JobRecord) -> None:
    """Write what a coordinator needs to go on; blocks until the disk has it.

    Raises:
        JobError: the disk refuses.
    """
    write_json(run / COORDINATOR, {"format_version": FORMAT_VERSION, **plain_job_record(record)})


def plain_job_record(record: JobRecord) -> dict[str, Any]:
    """Return a record as JSON has it."""
    value = asdict(record)
    for member in value["members"]:
        member["standing"] = member["standing"].value
    return value


def job_record_of(value: Mapping[str, Any]) -> JobRecord:
    """Return the record of `plain_job_record`'s value.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not one.
    """
    fields = dict(value)
    return JobRecord(
        job_spec_of(fields.pop("job")),
        members=tuple(_member(member) for member in fields.pop("members")),
        kept=_kept(fields.pop("kept")),
        begins={int(rank): first for rank, first in fields.pop("begins").items()},
        leavers=tuple((rank, order) for rank, order in fields.pop("leavers")),
        gone=tuple((rank, order) for rank, order in fields.pop("gone")),
        scores=tuple(_score(score) for score in fields.pop("scores")),
        dealt=_dealt(fields.pop("dealt")),
        **fields,
    )


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
        return job_record_of(value)
    except OSError as error:
        raise RequestError(
            f"There is no job to go on with: {path} cannot be read: {error.strerror}."
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(f"{path} is not what a coordinator has written ({error!r}).") from None


def seconds_trained(run: Path, record: JobRecord, *, goes_on: bool) -> float:
    """Return how long a job has been trained when another coordinator takes over.

    Args:
        run: the run folder.
        record: of the job, as it was read there.
        goes_on: the job went on in between, so the time since the record was written counts, too; else that
            until the last line of its metrics.

    Returns:
        Seconds; 0 if it had not begun.
    """
    if not record.seconds:
        return 0.0
    if goes_on:
        return record.seconds + max(0.0, time.time() - (run / COORDINATOR).stat().st_mtime)
    with suppress(RequestError):
        told = [float(line["seconds"]) for line in read_metrics(run / "metrics.jsonl")[-1:]]
        return max([record.seconds, *told])
    return record.seconds


def resumed(record: JobRecord, *, exactly: bool = False) -> JobRecord:
    """Return the record for replicas that all start anew, which are no restarts.

    What they had done after the checkpoint is void. Nobody is left who counted it sample by sample, so the
    samples of a void gradient are taken for those of a usual one.

    Args:
        record: as it was written down.
        exactly: the job goes on from its journal, so nothing is void.
    """
    clocks = record.kept.clocks if record.kept is not None else {}
    members = []
    for member in record.members:
        void = 0 if exactly else max(0, member.clock - clocks.get(member.rank, 0))
        earlier = _roll_back(merge_counters([member.earlier, member.counters]), void)
        members.append(replace(member, restarts=-1, counters=Counters(), earlier=earlier))
    return replace(record, members=tuple(members))


def _roll_back(counters: Counters, void: int) -> Counters:
    """Return counters after so many of the applied gradients, or all, were found void."""
    applied = counters.gradients.get("applied", 0)
    void = min(void, applied)
    if not void:
        return counters
    samples = round(counters.samples.get("applied", 0) * void / applied)
    return replace(
        counters,
        gradients=_move(counters.gradients, void),
        samples=_move(counters.samples, samples),
    )


def _move(counts: Mapping[str, int], void: int) -> Mapping[str, int]:
    rolled_back = counts.get("rolled_back", 0) + void
    return {**counts, "applied": counts["applied"] - void, "rolled_back": rolled_back}


def job_spec_of(value: Mapping[str, Any]) -> JobSpec:
    """Return the job of its plain value."""
    tensors = tuple(TensorSpec(**(tensor | {"shape": tuple(tensor["shape"])})) for tensor in value["tensors"])
    return JobSpec(**{**value, "tensors": tensors, "shares": tuple(value["shares"])})


def _member(value: Mapping[str, Any]) -> MemberRecord:
    counters, earlier = (_counters(value[name]) for name in ("counters", "earlier"))
    standing = Standing(value["standing"])
    return MemberRecord(**{**value, "standing": standing, "counters": counters, "earlier": earlier})


def _counters(value: Mapping[str, Any]) -> Counters:
    histograms = {
        name: {int(key): count for key, count in value[name].items()} for name in ("staleness", "clock_gap")
    }
    if value["loss"] is None:
        value = {name: each for name, each in value.items() if name != "loss"}
    return Counters(**{**value, **histograms})


def _score(value: Mapping[str, Any]) -> Score:
    return Score(**{**value, "loss": _number(value["loss"]), "accuracy": _number(value["accuracy"])})


def _number(value: float | None) -> float:
    """Read a number that JSON has no word for if it is not finite."""
    return math.nan if value is None else float(value)


def _kept(value: Mapping[str, Any] | None) -> Kept | None:
    if value is None:
        return None
    return Kept(value["checkpoint"], value["rounds"], {int(r): c for r, c in value["clocks"].items()})


def _dealt(value: Mapping[str, Any]) -> DealtRecord:
    rows = {name: tuple(map(tuple, found)) for name, found in value.items() if name != "opened"}
    return DealtRecord(value["opened"], **rows)
