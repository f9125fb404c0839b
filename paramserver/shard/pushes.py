"""Gradients: what becomes of a push, alone or with its round."""

from __future__ import annotations

from paramserver import events as ev
from paramserver.errors import Fault, RequestError
from paramserver.shard import pulls
from paramserver.shard.state import Effects, ShardState
from paramserver.weights import Gradients


def push(state: ShardState, event: ev.PushReceived) -> Effects:
    """Apply a gradient, or keep it until its round is closed; once, however often it is sent.

    Raises:
        RequestError: its sender is no member, or it is not the gradient that this shard expects.
    """
    if state.ended is not None:
        return [ev.Ended(event.request, state.ended)]
    rank, weights = event.replica.rank, state.weights
    verdict = (
        state.roll.applied(event)  # whoever it was: it is not done again, and has to know that it was
        or state.roll.check(event.replica, event.generation)
        or state.roll.repeated(event)
    )
    if verdict:
        state.pushes["duplicate" if verdict.duplicate else verdict.outcome.value] += 1
        return [ev.PushAnswered(event.request, verdict)]
    _check(state, event)
    gathers = state.rule.gathers
    before = weights.newest.version
    if gathers:
        verdict = _gather(state, event)
    elif event.refusal:
        verdict = ev.Verdict(ev.Outcome.DROPPED, reason=event.refusal)
    else:
        weights.update(event.gradients)
        verdict = ev.Verdict(ev.Outcome.APPLIED, before + 1, staleness=before - event.version)
    state.roll.pushed(event, verdict)
    state.count(verdict)
    effects: Effects = [ev.PushAnswered(event.request, verdict)]
    if gathers or event.refusal:
        report = ev.Contributed(state.index, event.sequence, rank, event.samples, event.refusal)
        effects.append(ev.Reported(report))
    return effects + pulls.wake(state)


def _gather(state: ShardState, event: ev.PushReceived) -> ev.Verdict:
    newest, clocks = state.weights.newest, state.roll.clocks
    state.round[event.replica.rank] = event
    missing, others = clocks.laggards(newest.rounds + 1)
    here = len(state.round)
    expected = here + len(missing) + others - clocks.is_live(event.replica.rank)
    return ev.Verdict(
        ev.Outcome.BUFFERED, newest.version, round=newest.rounds, contributed=here, expected=expected
    )


def _check(state: ShardState, event: ev.PushReceived) -> None:
    weights, who = state.weights, f"Replica {event.replica.rank}"
    version = weights.newest.version
    if not state.started:
        raise RequestError(f"{who} pushes before all replicas have joined. Pull first.", Fault.PRECONDITION)
    expected = state.roll.clocks[event.replica.rank]
    if state.rule.gathers:
        expected = min(expected, weights.rounds)
    if event.sequence != expected:
        raise RequestError(
            f"{who} pushes sequence {event.sequence}, but shard {state.index} expects {expected}. "
            "Pull at your clock before each push, and push each step on every shard.",
            Fault.PRECONDITION,
        )
    if event.version < 0:
        raise RequestError(f"{who} says version {event.version}; a version is 0 or more.")
    if event.version > version:
        raise RequestError(
            f"{who} says that its gradient was computed at version {event.version}, but shard "
            f"{state.index} is at version {version}. Repeat the version that the pull gave.",
            Fault.OUT_OF_RANGE,
        )
    if event.refusal:
        return
    if event.samples < 1:
        raise RequestError(f"{who} says {event.samples} samples; a gradient is the mean over at least 1.")
    weights.check(f"The gradient of replica {event.replica.rank}", event.gradients)


def close_round(state: ShardState, order: ev.RoundClosed) -> Effects:
    """Apply the mean of a round's gradients: of those that the coordinator names, and of nobody else."""
    weights = state.weights
    pushes = {rank: state.round[rank] for rank in order.ranks}
    weights.close_round([_leaf(pushes.get(rank)) for rank in range(max(pushes, default=-1) + 1)])
    for rank, each in state.round.items():
        verdict = _round_verdict(order.round, each, weights.newest.version, rank in pushes)
        state.roll.pushed(each, verdict)
        state.count(verdict)
        state.pushes[ev.Outcome.BUFFERED.value] -= 1
    state.round.clear()
    return pulls.wake(state)


def _leaf(event: ev.PushReceived | None) -> tuple[Gradients, int] | None:
    return None if event is None else (event.gradients, event.samples)


def _round_verdict(closed: int, event: ev.PushReceived, version: int, applied: bool) -> ev.Verdict:
    if applied:
        staleness = version - 1 - event.version
        return ev.Verdict(ev.Outcome.APPLIED, version, staleness, round=closed)
    reason = event.refusal or (
        f"Round {closed} was closed without replica {event.replica.rank}: "
        "its gradient was refused by a shard, or did not reach them all."
    )
    return ev.Verdict(ev.Outcome.DROPPED, round=closed, reason=reason)
