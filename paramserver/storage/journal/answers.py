"""The answers of a shard, as bytes of a record, and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from paramserver.errors import Fault
from paramserver.events import (
    Ended,
    InitialiseAnswered,
    Outcome,
    PullFenced,
    PullGranted,
    PullParked,
    PushAnswered,
    Refused,
    ShardEffect,
    Snapshot,
    Verdict,
)

_COUNT = struct.Struct("<I")
_NUMBER = struct.Struct("<Bq")  # kind, request
_GRANTED = struct.Struct("<BqqqqB")  # request, version, rounds, clock gap, whether a verdict follows
_FENCED = struct.Struct("<Bqqq")  # request, generation, clock
_SMALL = struct.Struct("<BqB")
_VERDICT = struct.Struct("<BqqqIIBqqI")  # outcome … clock, length of the reason

_GRANT, _PARK, _FENCE, _ANSWER, _INITIALISED, _REFUSE, _END = range(1, 8)
_OUTCOMES = {outcome: index for index, outcome in enumerate(Outcome)}
_OUTCOME_OF = list(Outcome)
_FAULTS = {fault: index for index, fault in enumerate(Fault)}
_FAULT_OF = list(Fault)


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


def pack_effects(effects: Sequence[ShardEffect]) -> bytes:
    """Return the bytes of what an event led to; what is no answer is left out."""
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


def unpack_effects(payload: memoryview, at: int) -> tuple[tuple[ShardEffect, ...], int]:
    """Return what an event led to, as `light` makes it, and where its bytes end.

    Args:
        payload: of the frame.
        at: where they begin.

    Raises:
        ValueError, struct.error: they are none of this release's.
    """
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
