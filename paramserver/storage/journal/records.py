"""What a shard was told and what it answered, as the payloads of frames, and back.

Pulls and pushes are packed by hand, since there are many of them: some 2 microseconds each. All else is JSON.
A record is light or full: a full one has the bytes of the tensors, too. What a shard does never depends on
their values, so a light one is enough to see whether it did right.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from paramserver.errors import Fault
from paramserver.events import (
    CutAsked,
    Ended,
    InitialiseAnswered,
    InitialiseReceived,
    Order,
    Outcome,
    PullCancelled,
    PullFenced,
    PullGranted,
    PullParked,
    PullReceived,
    PushAnswered,
    PushReceived,
    Refused,
    Replica,
    ReportsAsked,
    ShardEffect,
    ShardEvent,
    Slice,
    Snapshot,
    Verdict,
    WaitAsked,
)
from paramserver.rows import Gradient, RowGradient
from paramserver.storage.journal.frames import Piece
from paramserver.storage.journal.plain import dump, order_of, plain_order
from paramserver.storage.tensor_file import value_bytes
from paramserver.types import Array

PULL, PUSH, OTHER, GATHERED = 2, 3, 4, 5
"""Kinds of frames; 1 is a segment's header. GATHERED is a push that came before the segment began."""

_PULL = struct.Struct("<dqIIqq")  # now, request, rank, incarnation, generation, clock
_PUSH = struct.Struct("<dqIIqqqqI")  # … sequence, version, samples, length of the refusal
_COUNT = struct.Struct("<I")
_NUMBER = struct.Struct("<Bq")
_GRANTED = struct.Struct("<BqqqqB")  # request, version, rounds, clock gap, whether a verdict follows
_FENCED = struct.Struct("<Bqqq")  # request, generation, clock
_SMALL = struct.Struct("<BqB")
_VERDICT = struct.Struct("<BqqqIIBqqI")  # outcome … clock, length of the reason
_TENSOR = struct.Struct("<IBB")  # which slice, whether single rows, dimensions

_GRANT, _PARK, _FENCE, _ANSWER, _INITIALISED, _REFUSE, _END = range(1, 8)
_OUTCOMES = {outcome: index for index, outcome in enumerate(Outcome)}
_OUTCOME_OF = list(Outcome)
_FAULTS = {fault: index for index, fault in enumerate(Fault)}
_FAULT_OF = list(Fault)

_RECORDED = (PushReceived, InitialiseReceived, PullCancelled, *get_args(Order))

Slices = Mapping[Slice, int]
"""The place of each slice among those of its shard."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event that reached a shard and what it led to.

    Attributes:
        now: seconds, as the shard was told.
        event: with its tensors where the record is a full one; else with none.
        effects: the answers, as `light` makes them.
    """

    now: float
    event: ShardEvent
    effects: tuple[ShardEffect, ...]


def is_recorded(event: ShardEvent) -> bool:
    """Say whether an event can change what a shard is; an observer's read, say, cannot."""
    if isinstance(event, PullReceived):
        return event.replica is not None
    return isinstance(event, _RECORDED)


def encode(
    now: float, event: ShardEvent, effects: Sequence[ShardEffect], slices: Slices, *, full: bool
) -> tuple[int, list[Piece]]:
    """Return the kind and the payload of a record's frame.

    Args:
        now: seconds, as the shard was told.
        event: for which `is_recorded` holds.
        effects: what it led to.
        slices: of the shard.
        full: with the bytes of the tensors; they must not change before the frame is written.
    """
    if isinstance(event, PushReceived):
        head = _pack_push(now, event)
        kind = PUSH
        tensors: Mapping[Slice, Gradient] = event.gradients
    elif isinstance(event, PullReceived):
        replica = event.replica
        assert replica is not None
        head = _PULL.pack(
            now, event.request, replica.rank, replica.incarnation, event.generation, event.clock
        )
        return PULL, [head + _pack_effects(effects)]
    else:
        text = dump({"now": now, **_plain(event)})
        head = _COUNT.pack(len(text)) + text
        kind = OTHER
        tensors = event.values if isinstance(event, InitialiseReceived) else {}
    pieces: list[Piece] = [head + _pack_effects(effects)]
    if full and tensors:
        pieces += _pack_tensors(tensors, slices)
    return kind, pieces


def decode(kind: int, payload: memoryview, slices: Sequence[Slice]) -> Record:
    """Return the record of a frame.

    Args:
        kind: of the frame.
        payload: of the frame.
        slices: of the shard, in order.

    Raises:
        ValueError, KeyError, TypeError, struct.error: the payload is none of this release's.
    """
    if kind == PULL:
        now, request, rank, incarnation, generation, clock = _PULL.unpack_from(payload)
        effects, _ = _unpack_effects(payload, _PULL.size)
        return Record(now, PullReceived(request, Replica(rank, incarnation), generation, clock), effects)
    if kind in (PUSH, GATHERED):
        return _unpack_push(payload, slices)
    if kind != OTHER:
        raise ValueError(f"a frame of kind {kind}")
    (length,) = _COUNT.unpack_from(payload)
    at = _COUNT.size + length
    value = json.loads(bytes(payload[_COUNT.size : at]))
    effects, at = _unpack_effects(payload, at)
    now, name = value.pop("now"), value["kind"]
    if name == "PullCancelled":
        return Record(now, PullCancelled(value["request"]), effects)
    if name == "InitialiseReceived":
        values: dict[Slice, Any] = _unpack_tensors(payload, at, slices)
        return Record(now, InitialiseReceived(value["request"], value["initialiser"], values), effects)
    return Record(now, order_of(value), effects)


def light(effect: ShardEffect) -> ShardEffect | None:
    """Return an answer as a journal keeps it; None for what is no answer.

    A grant keeps version, rounds, gap and verdict of it; a wait, that there is one; a refusal, its kind.
    """
    match effect:
        case PullGranted():
            snapshot = Snapshot(effect.snapshot.version, effect.snapshot.rounds, {})
            return PullGranted(effect.request, snapshot, effect.clock_gap, effect.verdict)
        case PullParked():
            return PullParked(effect.request, (), "", 0.0)
        case PullFenced():
            return PullFenced(effect.request, effect.generation, effect.clock, "")
        case PushAnswered() | InitialiseAnswered():
            return effect
        case Refused():
            return Refused(effect.request, "", effect.fault)
        case Ended():
            return Ended(effect.request, "")
        case _:
            return None


def pack_gathered(push: PushReceived, slices: Slices, *, full: bool) -> list[Piece]:
    """Return the payload of a push that is part of the open round when a segment begins."""
    pieces: list[Piece] = [_pack_push(0.0, push) + _pack_effects(())]
    return pieces + (_pack_tensors(push.gradients, slices) if full and push.gradients else [])


def _plain(event: ShardEvent) -> dict[str, Any]:
    match event:
        case PullCancelled():
            return {"kind": "PullCancelled", "request": event.request}
        case InitialiseReceived():
            return {
                "kind": "InitialiseReceived",
                "request": event.request,
                "initialiser": event.initialiser,
            }
        case PullReceived() | PushReceived() | WaitAsked() | CutAsked() | ReportsAsked():
            raise AssertionError(f"{type(event).__name__} is not written as JSON.")
        case _:
            return plain_order(event)


def _pack_push(now: float, push: PushReceived) -> bytes:
    replica, refusal = push.replica, push.refusal.encode()
    return (
        _PUSH.pack(
            now,
            push.request,
            replica.rank,
            replica.incarnation,
            push.generation,
            push.sequence,
            push.version,
            push.samples,
            len(refusal),
        )
        + refusal
    )


def _unpack_push(payload: memoryview, slices: Sequence[Slice]) -> Record:
    now, request, rank, incarnation, generation, sequence, version, samples, length = _PUSH.unpack_from(
        payload
    )
    at = _PUSH.size + length
    refusal = bytes(payload[_PUSH.size : at]).decode()
    effects, at = _unpack_effects(payload, at)
    gradients = _unpack_tensors(payload, at, slices)
    replica = Replica(rank, incarnation)
    push = PushReceived(request, replica, generation, sequence, version, samples, gradients, refusal)
    return Record(now, push, effects)


def _pack_effects(effects: Sequence[ShardEffect]) -> bytes:
    packed = []
    for effect in effects:
        if isinstance(effect, PushAnswered):
            packed.append(_NUMBER.pack(_ANSWER, effect.request) + _pack_verdict(effect.verdict))
        elif isinstance(effect, PullGranted):
            snapshot, verdict = effect.snapshot, effect.verdict
            request, version, rounds = effect.request, snapshot.version, snapshot.rounds
            told = verdict is not None
            grant = _GRANTED.pack(_GRANT, request, version, rounds, effect.clock_gap, told)
            packed.append(grant if verdict is None else grant + _pack_verdict(verdict))
        elif isinstance(effect, PullParked):
            packed.append(_NUMBER.pack(_PARK, effect.request))
        elif isinstance(effect, PullFenced):
            packed.append(_FENCED.pack(_FENCE, effect.request, effect.generation, effect.clock))
        elif isinstance(effect, Refused):
            packed.append(_SMALL.pack(_REFUSE, effect.request, _FAULTS[effect.fault]))
        elif isinstance(effect, Ended):
            packed.append(_NUMBER.pack(_END, effect.request))
        elif isinstance(effect, InitialiseAnswered):
            packed.append(_SMALL.pack(_INITIALISED, effect.request, effect.adopted))
    return _COUNT.pack(len(packed)) + b"".join(packed)


def _unpack_effects(payload: memoryview, at: int) -> tuple[tuple[ShardEffect, ...], int]:
    (count,) = _COUNT.unpack_from(payload, at)
    at += _COUNT.size
    effects: list[ShardEffect] = []
    for _ in range(count):
        kind, request = _NUMBER.unpack_from(payload, at)
        if kind == _ANSWER:
            verdict, at = _unpack_verdict(payload, at + _NUMBER.size)
            effects.append(PushAnswered(request, verdict))
        elif kind == _GRANT:
            _, request, version, rounds, gap, told = _GRANTED.unpack_from(payload, at)
            at += _GRANTED.size
            decided = None
            if told:
                decided, at = _unpack_verdict(payload, at)
            effects.append(PullGranted(request, Snapshot(version, rounds, {}), gap, decided))
        elif kind == _FENCE:
            _, request, generation, clock = _FENCED.unpack_from(payload, at)
            at += _FENCED.size
            effects.append(PullFenced(request, generation, clock, ""))
        elif kind in (_PARK, _END):
            at += _NUMBER.size
            effects.append(PullParked(request, (), "", 0.0) if kind == _PARK else Ended(request, ""))
        elif kind in (_REFUSE, _INITIALISED):
            _, _, small = _SMALL.unpack_from(payload, at)
            at += _SMALL.size
            refused = kind == _REFUSE
            effects.append(
                Refused(request, "", _FAULT_OF[small])
                if refused
                else InitialiseAnswered(request, adopted=bool(small))
            )
        else:
            raise ValueError(f"an effect of kind {kind}")
    return tuple(effects), at


def _pack_verdict(verdict: Verdict) -> bytes:
    reason = verdict.reason.encode()
    packed = _VERDICT.pack(
        _OUTCOMES[verdict.outcome],
        verdict.version,
        verdict.staleness,
        verdict.round,
        verdict.contributed,
        verdict.expected,
        verdict.duplicate,
        verdict.generation,
        verdict.clock,
        len(reason),
    )
    return packed + reason if reason else packed


def _unpack_verdict(payload: memoryview, at: int) -> tuple[Verdict, int]:
    outcome, version, staleness, round_, here, expected, duplicate, generation, clock, length = (
        _VERDICT.unpack_from(payload, at)
    )
    at += _VERDICT.size
    reason = bytes(payload[at : at + length]).decode()
    verdict = Verdict(
        _OUTCOME_OF[outcome],
        version,
        staleness,
        round_,
        here,
        expected,
        reason,
        bool(duplicate),
        generation,
        clock,
    )
    return verdict, at + length


def _pack_tensors(tensors: Mapping[Slice, Gradient], slices: Slices) -> list[Piece]:
    """Return the bytes of tensors: of each its slice, dimensions, row numbers if it has only some, values."""
    pieces: list[Piece] = []
    for part, tensor in tensors.items():
        rows = isinstance(tensor, RowGradient)
        shape = tensor.shape
        head = _TENSOR.pack(slices[part], rows, len(shape)) + struct.pack(f"<{len(shape)}q", *shape)
        if isinstance(tensor, RowGradient):
            indices = np.ascontiguousarray(tensor.indices, "<i8")
            pieces += [head + _COUNT.pack(len(indices)), _raw(indices), value_bytes(tensor.rows)]
        else:
            pieces += [head, value_bytes(tensor)]
    return pieces


def _unpack_tensors(payload: memoryview, at: int, slices: Sequence[Slice]) -> dict[Slice, Gradient]:
    found: dict[Slice, Gradient] = {}
    while at < len(payload):
        place, rows, dimensions = _TENSOR.unpack_from(payload, at)
        at += _TENSOR.size
        shape = struct.unpack_from(f"<{dimensions}q", payload, at)
        at += 8 * dimensions
        if rows:
            (count,) = _COUNT.unpack_from(payload, at)
            at += _COUNT.size
            indices = np.frombuffer(payload, "<i8", count, at).astype(np.int64)
            at += 8 * count
            values, at = _array(payload, at, (count, *shape[1:]))
            found[slices[place]] = RowGradient(indices, values, shape)
        else:
            found[slices[place]], at = _array(payload, at, shape)
    return found


def _array(payload: memoryview, at: int, shape: tuple[int, ...]) -> tuple[Array, int]:
    elements = 1
    for size in shape:
        elements *= size
    values = np.frombuffer(payload, "<f4", elements, at).astype(np.float32).reshape(shape)
    return values, at + 4 * elements


def _raw(array: Any) -> memoryview:
    view: memoryview = array.view(np.uint8).data
    return view
