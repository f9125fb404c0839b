"""Orders, jobs and records of shards as plain values for JSON, and back. For what is rare enough for that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from paramserver.events import (
    Cut,
    CutOrdered,
    GenerationBegun,
    JobAnnounced,
    JobEnded,
    JobSpec,
    Member,
    MembershipChanged,
    Order,
    Outcome,
    PullReceived,
    Replica,
    RoundClosed,
    Sealed,
    ShardRecord,
    Slice,
    Snapshot,
    Verdict,
)
from paramserver.storage.job_record import job_spec_of

_ORDERS: dict[str, type[Order]] = {
    kind.__name__: kind
    for kind in (
        JobAnnounced,
        MembershipChanged,
        Sealed,
        RoundClosed,
        JobEnded,
        CutOrdered,
        GenerationBegun,
    )
}


def plain_order(order: Order) -> dict[str, Any]:
    """Return an order as JSON has it; of a generation's cut what is no tensor."""
    fields = {name: getattr(order, name) for name in order.__slots__}
    if "job" in fields:
        fields["job"] = plain_job(fields["job"])
        fields["slices"] = plain_slices(fields["slices"])
    if "members" in fields:
        fields["members"] = plain_members(fields["members"])
    if isinstance(order, GenerationBegun):
        fields["cut"] = None if order.cut is None else plain_cut(order.cut)
    return {"kind": type(order).__name__, **fields}


def order_of(value: Mapping[str, Any]) -> Order:
    """Return the order of `plain_order`'s value; a generation's cut has no tensors.

    Raises:
        KeyError, TypeError, ValueError: it is not one.
    """
    fields = dict(value)
    kind = _ORDERS[fields.pop("kind")]
    if "job" in fields:
        fields["job"] = job_spec_of(fields["job"])
        fields["slices"] = slices_of(fields["slices"])
    if "members" in fields:
        fields["members"] = members_of(fields["members"])
    if "ranks" in fields:
        fields["ranks"] = tuple(fields["ranks"])
    if fields.get("cut") is not None:
        fields["cut"] = cut_of(fields["cut"])
    return kind(**fields)


def plain_cut(cut: Cut) -> dict[str, Any]:
    """Return what a cut says beside its tensors."""
    return {
        "shard": cut.shard,
        "version": cut.snapshot.version,
        "rounds": cut.snapshot.rounds,
        "clocks": dict(cut.clocks),
        "verdicts": plain_verdicts(cut.verdicts),
    }


def cut_of(value: Mapping[str, Any]) -> Cut:
    """Return a cut without tensors."""
    snapshot = Snapshot(value["version"], value["rounds"], {})
    return Cut(value["shard"], snapshot, {}, numbers_of(value["clocks"]), verdicts_of(value["verdicts"]))


def plain_record(record: ShardRecord) -> dict[str, Any]:
    """Return a shard's record but for what it has gathered."""
    return {
        "job": plain_job(record.job),
        "slices": plain_slices(record.slices),
        "generation": record.generation,
        "orders": record.orders,
        "started": record.started,
        "expected": record.expected,
        "ended": record.ended,
        "version": record.version,
        "rounds": record.rounds,
        "members": plain_members(record.members),
        "clocks": dict(record.clocks),
        "begun": dict(record.begun),
        "verdicts": plain_verdicts(record.verdicts),
        "waiting": [
            [pull.request, pull.replica.rank, pull.replica.incarnation, pull.generation, pull.clock, since]
            for pull, since in record.waiting
            if pull.replica is not None
        ],
        "pushes": dict(record.pushes),
        "staleness": dict(record.staleness),
    }


def record_of(value: Mapping[str, Any]) -> ShardRecord:
    """Return the record of `plain_record`'s value, with nothing gathered."""
    waiting = tuple(
        (PullReceived(request, Replica(rank, incarnation), generation, clock), since)
        for request, rank, incarnation, generation, clock, since in value["waiting"]
    )
    return ShardRecord(
        **{
            **value,
            "job": job_spec_of(value["job"]),
            "slices": slices_of(value["slices"]),
            "members": members_of(value["members"]),
            "clocks": numbers_of(value["clocks"]),
            "begun": numbers_of(value["begun"]),
            "verdicts": verdicts_of(value["verdicts"]),
            "waiting": waiting,
            "staleness": numbers_of(value["staleness"]),
        }
    )


def plain_job(job: JobSpec) -> dict[str, Any]:
    """Return a job as JSON has it."""
    return asdict(job)


def plain_slices(slices: Iterable[Slice]) -> list[list[Any]]:
    """Return slices as JSON has them."""
    return [[part.key, part.row_begin, part.row_end, part.shard] for part in slices]


def slices_of(values: Iterable[Iterable[Any]]) -> tuple[Slice, ...]:
    """Return the slices of `plain_slices`' value."""
    return tuple(Slice(*value) for value in values)


def plain_members(members: Iterable[Member]) -> list[list[Any]]:
    """Return members as JSON has them."""
    return [[member.rank, member.incarnation, member.live, member.late] for member in members]


def members_of(values: Iterable[Iterable[Any]]) -> tuple[Member, ...]:
    """Return the members of `plain_members`' value."""
    return tuple(Member(*value) for value in values)


def plain_verdicts(verdicts: Mapping[int, tuple[int, Verdict]]) -> dict[int, list[Any]]:
    """Return verdicts by rank as JSON has them."""
    return {
        rank: [sequence, asdict(verdict) | {"outcome": verdict.outcome.value}]
        for rank, (sequence, verdict) in verdicts.items()
    }


def verdicts_of(values: Mapping[str, Any]) -> dict[int, tuple[int, Verdict]]:
    """Return the verdicts of `plain_verdicts`' value."""
    return {
        int(rank): (sequence, Verdict(**(told | {"outcome": Outcome(told["outcome"])})))
        for rank, (sequence, told) in values.items()
    }


def numbers_of(values: Mapping[str, int]) -> dict[int, int]:
    """Return a table of numbers by number, whose keys JSON has made texts."""
    return {int(key): value for key, value in values.items()}


def dump(value: Any) -> bytes:
    """Return a value as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()
