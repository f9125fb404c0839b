"""Reads: first weights, who may read now, who waits and for whom, and who is woken."""

from __future__ import annotations

from paramserver import events as ev
from paramserver.errors import Fault, RequestError
from paramserver.parking import NOT_BEFORE_START, Parked
from paramserver.shard.state import Effects, ShardState


def initialise(state: ShardState, event: ev.InitialiseReceived) -> Effects:
    """Stage first weights, unless some are in place already.

    Raises:
        RequestError: they are not the job's.
    """
    weights = state.weights
    weights.check("Initialise", event.values)
    if weights.sealed:
        return [ev.InitialiseAnswered(event.request, adopted=True)]
    weights.stage(event.initialiser, event.values)
    return [
        ev.InitialiseAnswered(event.request, adopted=False),
        ev.Reported(ev.Staged(state.index, event.initialiser)),
    ]


def pull(state: ShardState, event: ev.PullReceived, now: float) -> Effects:
    """Let a reader in, or park it until the frontier has come as far as it needs.

    Raises:
        RequestError: it is no member, is at another clock, or there are no such rows.
    """
    if event.replica is None:
        return [_observe(state, event)]
    if state.ended is not None:
        return [ev.Ended(event.request, state.ended)]
    rule, replica = state.rule, event.replica
    state.weights.check_rows(event.rows)
    fenced = state.roll.check(replica, event.generation)
    if fenced:
        return [ev.PullFenced(event.request, fenced.generation, fenced.clock, fenced.reason)]
    state.roll.pulls(replica, event.clock)
    needs = rule.needs(event.clock) if state.is_open else NOT_BEFORE_START
    parked = Parked(event, replica, needs, now)
    if needs <= state.frontier:
        # A newcomer's first pull may have moved the slowest clock, so others may read now, too.
        return [_grant(state, parked), *wake(state)]
    state.parked.park(parked)
    return [why(state, parked), *wake(state)]


def _observe(state: ShardState, event: ev.PullReceived) -> ev.ShardEffect:
    """Answer an observer at once: it is never counted and never parked."""
    if state.job is None or not state.weights.sealed:
        return ev.Unavailable(event.request, "The job has no weights yet: nobody has initialised them.")
    state.weights.check_rows(event.rows)
    kept = state.weights.kept
    if event.round is None:
        # That a round could be closed shows that every shard had the one before.
        newest = kept[-1] if state.ended is not None else kept[0]
        return ev.PullGranted(event.request, newest, rows=event.rows)
    for snapshot in kept:
        if snapshot.rounds == event.round:
            return ev.PullGranted(event.request, snapshot, rows=event.rows)
    raise RequestError(
        f"Shard {state.index} keeps the weights after round {' and '.join(str(s.rounds) for s in kept)}, "
        f"not those after round {event.round}. Pull without a round to learn the newest.",
        Fault.OUT_OF_RANGE,
    )


def _grant(state: ShardState, parked: Parked) -> ev.PullGranted:
    rank, clock = parked.replica.rank, parked.pull.clock
    decided = state.roll.verdict(rank, clock - 1) if state.rule.gathers else None
    slowest = state.roll.clocks.slowest()
    gap = 0 if slowest is None else clock - slowest
    return ev.PullGranted(parked.pull.request, state.weights.newest, gap, decided, parked.pull.rows)


def say_why(state: ShardState, event: ev.WaitAsked) -> Effects:
    """Say why a pull waits, if it waits still."""
    parked = state.parked.get(event.request)
    return [why(state, parked)] if parked else []


def why(state: ShardState, parked: Parked) -> ev.PullParked:
    """Say for whom a pull waits, since when and under which bound."""
    request, clocks = parked.pull.request, state.roll.clocks
    if not state.started:
        joined = clocks.live_count()
        because = f"the job begins when {state.expected} replicas have joined; so far it is {joined}"
        return ev.PullParked(request, (), because, parked.since)
    if not state.is_open:
        because = "the job begins when a replica has initialised the weights"
        return ev.PullParked(request, (), because, parked.since, wants_weights=True)
    laggards, others = clocks.laggards(parked.needs)
    because = state.rule.because(parked.pull.clock)
    if not laggards:
        because += f"; shard {state.index} has all of its gradients, so the coordinator is next"
    return ev.PullParked(request, laggards, because, parked.since, others)


def open_gates(state: ShardState) -> Effects:
    """Give the pulls that came before the start their real need."""
    if not state.is_open:
        return []
    for parked in state.parked:
        state.parked.need_again(parked, state.rule.needs(parked.pull.clock))
    return wake(state)


def wake(state: ShardState) -> Effects:
    """Grant the parked pulls whose need the frontier has reached."""
    if not state.parked:
        return []
    return [_grant(state, parked) for parked in state.parked.wake(state.frontier)]
