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

from paramserver.events import (
    CutAsked,
    InitialiseReceived,
    Order,
    PullCancelled,
    PullReceived,
    PushReceived,
    Replica,
    ReportsAsked,
    ShardEffect,
    ShardEvent,
    Slice,
    WaitAsked,
)
from paramserver.rows import Gradient
from paramserver.storage.journal.answers import pack_effects, unpack_effects
from paramserver.storage.journal.frames import Piece
from paramserver.storage.journal.plain import dump, order_of, plain_order
from paramserver.storage.journal.tensors import pack_tensors, unpack_tensors

PULL, PUSH, OTHER, GATHERED = 2, 3, 4, 5
"""Kinds of frames; 1 is a segment's header. GATHERED is a push that came before the segment began."""

_PULL = struct.Struct("<dqIIqq")  # now, request, rank, incarnation, generation, clock
_PUSH = struct.Struct("<dqIIqqqqI")  # … sequence, version, samples, length of the refusal
_COUNT = struct.Struct("<I")

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
        return PULL, [head + pack_effects(effects)]
    else:
        text = dump({"now": now, **_plain(event)})
        head = _COUNT.pack(len(text)) + text
        kind = OTHER
        tensors = event.values if isinstance(event, InitialiseReceived) else {}
    pieces: list[Piece] = [head + pack_effects(effects)]
    if full and tensors:
        pieces += pack_tensors(tensors, slices)
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
        effects, _ = unpack_effects(payload, _PULL.size)
        return Record(now, PullReceived(request, Replica(rank, incarnation), generation, clock), effects)
    if kind in (PUSH, GATHERED):
        return _unpack_push(payload, slices)
    if kind != OTHER:
        raise ValueError(f"a frame of kind {kind}")
    (length,) = _COUNT.unpack_from(payload)
    at = _COUNT.size + length
    value = json.loads(bytes(payload[_COUNT.size : at]))
    effects, at = unpack_effects(payload, at)
    now, name = value.pop("now"), value["kind"]
    if name == "PullCancelled":
        return Record(now, PullCancelled(value["request"]), effects)
    if name == "InitialiseReceived":
        values: dict[Slice, Any] = unpack_tensors(payload, at, slices)
        return Record(now, InitialiseReceived(value["request"], value["initialiser"], values), effects)
    return Record(now, order_of(value), effects)


def pack_gathered(push: PushReceived, slices: Slices, *, full: bool) -> list[Piece]:
    """Return the payload of a push that is part of the open round when a segment begins."""
    pieces: list[Piece] = [_pack_push(0.0, push) + pack_effects(())]
    return pieces + (pack_tensors(push.gradients, slices) if full and push.gradients else [])


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
    effects, at = unpack_effects(payload, at)
    gradients = unpack_tensors(payload, at, slices)
    replica = Replica(rank, incarnation)
    push = PushReceived(request, replica, generation, sequence, version, samples, gradients, refusal)
    return Record(now, push, effects)
