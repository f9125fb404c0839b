"""What a shard is, to be written down, reported again, and gone on from."""

from __future__ import annotations

from paramserver import events as ev
from paramserver.parking import NOT_BEFORE_START, Parked
from paramserver.roll import Roll
from paramserver.shard.state import Effects, ShardState


def cut(state: ShardState) -> ev.Cut:
    """Return what a checkpoint has of this shard."""
    weights, roll = state.weights, state.roll
    return ev.Cut(state.index, weights.newest, weights.copy_state(), roll.clocks.as_dict(), roll.verdicts())


def report_again(state: ShardState) -> Effects:
    """Report what this shard has; a coordinator that has heard it before learns nothing new."""
    staged = state.weights.staged if state.job is not None else ()
    reports: list[ev.Report] = [ev.Staged(state.index, initialiser) for initialiser in staged]
    reports += [
        ev.Contributed(state.index, push.sequence, rank, push.samples, push.refusal)
        for rank, push in state.round.items()
    ]
    reports.append(ev.CaughtUp(state.index, state.orders, state.roll.clocks.as_dict()))
    return [ev.Reported(report) for report in reports]


def record(state: ShardState) -> ev.ShardRecord | None:
    """Return what a shard is beside its weights; None before the job is announced."""
    if state.job is None:
        return None
    weights, roll = state.weights, state.roll
    return ev.ShardRecord(
        job=state.job,
        slices=tuple(weights.shapes),
        generation=roll.generation,
        orders=state.orders,
        started=state.started,
        expected=state.expected,
        ended=state.ended,
        version=weights.newest.version if weights.sealed else 0,
        rounds=weights.rounds,
        members=roll.members(),
        clocks=roll.clocks.as_dict(),
        begun=roll.begun(),
        verdicts=roll.verdicts(),
        gathered=tuple(state.round.values()),
        waiting=tuple((parked.pull, parked.since) for parked in state.parked),
        pushes={name: count for name, count in state.pushes.items() if count},
        staleness=dict(state.staleness),
    )


def resume(state: ShardState, record: ev.ShardRecord, cut: ev.Cut) -> None:
    """Become what another shard was.

    Args:
        state: a new one.
        record: of that shard, when it made the cut.
        cut: its weights and optimizer state.
    """
    state.announce(record.job, record.slices)
    state.weights.restore(cut)
    state.orders, state.ended = record.orders, record.ended
    state.started, state.expected = record.started, record.expected
    state.roll = Roll(state.index, record.generation)
    state.roll.restore(record.clocks, record.verdicts, record.members, record.begun)
    state.round = {push.replica.rank: push for push in record.gathered}
    state.pushes.update(record.pushes)
    state.staleness.update(record.staleness)
    for pull, since in record.waiting:
        assert pull.replica is not None, "an observer never waits"
        needs = state.rule.needs(pull.clock) if state.is_open else NOT_BEFORE_START
        state.parked.park(Parked(pull, pull.replica, needs, since))
