"""What a replica hears and says of itself: verdicts, counters, heartbeats, scores."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

from paramserver.errors import RequestError
from paramserver.events import (
    Beat,
    Counters,
    HeartbeatAnswered,
    HeartbeatReceived,
    LeaveReceived,
    Outcome,
    Phase,
    Replica,
    Score,
    Verdict,
)
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import decode_replica, encode_replica
from paramserver.wire.numbers import finite, named, whole

_GRADIENTS = ("computed", "applied", "dropped", "fenced", "partial", "lost", "rolled_back", "duplicate")
_SAMPLES = _GRADIENTS[:-1]
_OUTCOMES = {
    Outcome.APPLIED: pb.OUTCOME_APPLIED,
    Outcome.BUFFERED: pb.OUTCOME_BUFFERED,
    Outcome.DROPPED: pb.OUTCOME_DROPPED,
    Outcome.FENCED: pb.OUTCOME_FENCED,
}
_OUTCOME_OF = {number: outcome for outcome, number in _OUTCOMES.items()}
_PHASES = {phase: pb.Phase.Value(f"PHASE_{phase.name}") for phase in Phase}
_PHASE_OF = {number: phase for phase, number in _PHASES.items()}


def encode_verdict(verdict: Verdict) -> pb.Verdict:
    """Return the message of one shard's verdict."""
    return pb.Verdict(
        outcome=_OUTCOMES[verdict.outcome],
        version=verdict.version,
        staleness=verdict.staleness,
        round=verdict.round,
        contributed=verdict.contributed,
        expected=verdict.expected,
        reason=verdict.reason,
        duplicate=verdict.duplicate,
        generation=verdict.generation,
        clock=verdict.clock,
    )


def decode_verdict(message: pb.Verdict) -> Verdict:
    """Return the verdict of a message.

    Raises:
        RequestError: an outcome that this version does not know.
    """
    outcome = _OUTCOME_OF.get(message.outcome)
    if outcome is None:
        raise RequestError(
            f"A verdict has outcome {message.outcome}, which this release does not know. Install the same "
            "release of paramserver on both sides."
        )
    return Verdict(
        outcome,
        message.version,
        message.staleness,
        message.round,
        message.contributed,
        message.expected,
        message.reason,
        message.duplicate,
        message.generation,
        message.clock,
    )


def encode_counters(counters: Counters) -> pb.Counters:
    """Return the message of counters; counts by names that the contract does not know are left out."""
    return pb.Counters(
        **{f"gradients_{name}": counters.gradients.get(name, 0) for name in _GRADIENTS},
        **{f"samples_{name}": counters.samples.get(name, 0) for name in _SAMPLES},
        staleness=counters.staleness,
        clock_gap=counters.clock_gap,
        seconds=counters.seconds,
        loss=counters.loss,
        latest_staleness=counters.latest_staleness,
    )


def decode_counters(message: pb.Counters) -> Counters:
    """Return the counters of a message; every name has its count, if only 0.

    Raises:
        RequestError: a count is negative, or seconds are.
    """
    return Counters(
        gradients={
            name: whole(getattr(message, f"gradients_{name}"), f"counters.gradients_{name}")
            for name in _GRADIENTS
        },
        samples={
            name: whole(getattr(message, f"samples_{name}"), f"counters.samples_{name}") for name in _SAMPLES
        },
        staleness={key: whole(count, "counters.staleness") for key, count in message.staleness.items()},
        clock_gap={key: whole(count, "counters.clock_gap") for key, count in message.clock_gap.items()},
        seconds={key: finite(value, "counters.seconds") for key, value in message.seconds.items()},
        loss=message.loss,
        latest_staleness=message.latest_staleness if message.HasField("latest_staleness") else None,
    )


def encode_heartbeat(beats: Iterable[Beat], *, heard_end: bool = False) -> pb.HeartbeatRequest:
    """Return a heartbeat's message."""
    return pb.HeartbeatRequest(
        heard_end=heard_end,
        beats=[
            pb.Beat(
                replica=encode_replica(beat.replica),
                clock=beat.clock,
                steps=beat.steps,
                phase=_PHASES[beat.phase],
                counters=encode_counters(beat.counters),
            )
            for beat in beats
        ],
    )


def decode_heartbeat(message: pb.HeartbeatRequest, request: int) -> HeartbeatReceived:
    """Return a heartbeat's event.

    Raises:
        RequestError: a field is out of its range.
    """
    beats = tuple(
        Beat(
            decode_replica(beat.replica),
            whole(beat.clock, "beat.clock"),
            whole(beat.steps, "beat.steps"),
            decode_phase(beat.phase),
            decode_counters(beat.counters),
        )
        for beat in message.beats
    )
    return HeartbeatReceived(request, beats)


def encode_heartbeat_answer(answer: HeartbeatAnswered) -> pb.HeartbeatReply:
    """Return the message that answers a heartbeat."""
    return pb.HeartbeatReply(
        generation=answer.generation,
        fenced=[encode_replica(replica) for replica in answer.fenced],
        ended=answer.ended,
        reason=answer.reason,
    )


def decode_heartbeat_answer(message: pb.HeartbeatReply, request: int = 0) -> HeartbeatAnswered:
    """Return what the coordinator says to a heartbeat."""
    fenced = tuple(decode_replica(replica) for replica in message.fenced)
    return HeartbeatAnswered(request, message.generation, fenced, message.ended, message.reason)


def encode_leave(
    replica: Replica,
    counters: Counters,
    failure: str = "",
    generation: int = 0,
    goes: bool = False,
    clock: int = 0,
) -> pb.LeaveRequest:
    """Return a leave's message."""
    return pb.LeaveRequest(
        replica=encode_replica(replica),
        counters=encode_counters(counters),
        failure=failure,
        generation=generation,
        goes=goes,
        clock=clock,
    )


def decode_leave(message: pb.LeaveRequest, request: int) -> LeaveReceived:
    """Return a leave's event.

    Raises:
        RequestError: a field is out of its range.
    """
    replica, counters = decode_replica(message.replica), decode_counters(message.counters)
    generation = whole(message.generation, "generation")
    clock = whole(message.clock, "clock")
    return LeaveReceived(request, replica, counters, message.failure, generation, message.goes, clock)


def encode_score(score: Score) -> pb.ScoreRequest:
    """Return a score's message."""
    return pb.ScoreRequest(
        split=score.split,
        version=score.version,
        rounds=score.rounds,
        loss=score.loss,
        accuracy=score.accuracy,
        samples=score.samples,
        auc=score.auc,
    )


def decode_score(message: pb.ScoreRequest) -> Score:
    """Return the score of a message.

    Raises:
        RequestError: a field is out of its range. A loss may be infinite or NaN: that is what a training
            run that diverged has.
    """
    if isnan(message.accuracy) or message.accuracy > 1:
        raise RequestError(f"The field 'accuracy' has to be at most 1, and it is {message.accuracy}.")
    if message.HasField("auc") and not 0 <= message.auc <= 1:
        raise RequestError(f"The field 'auc' has to be from 0 to 1, and it is {message.auc}.")
    if not isnan(message.loss) and message.loss < 0:
        raise RequestError(f"The field 'loss' has to be at least 0, and it is {message.loss}.")
    return Score(
        split=named(message.split, "split"),
        version=whole(message.version, "version"),
        rounds=whole(message.rounds, "rounds", -1),
        loss=message.loss,
        accuracy=message.accuracy,
        samples=whole(message.samples, "samples", 1),
        auc=message.auc if message.HasField("auc") else None,
    )


def encode_phase(phase: Phase) -> pb.Phase.ValueType:
    """Return the message's number for a phase."""
    return _PHASES[phase]


def decode_phase(number: int) -> Phase:
    """Return the phase of a number; one that this version does not know counts as idle."""
    return _PHASE_OF.get(pb.Phase.ValueType(number), Phase.IDLE)
