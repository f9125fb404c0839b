"""What is written down of a job before anybody hears of it, and how another coordinator goes on with it."""

from __future__ import annotations

from collections.abc import Sequence

from paramserver import events as ev
from paramserver.coordinator.state import CoordinatorState, Effects, JobState
from paramserver.order_log import OrderLog

ORDERS_SKIPPED = 1 << 32
"""Far more orders than can follow one that was written down."""


def remember(state: CoordinatorState) -> Effects:
    """Ask to write down what has changed, if anything has."""
    job, has_news = state.job, state.has_news
    state.has_news = False
    if not has_news or job is None or not state.recovers:
        return []
    recovery, members = job.recovery, job.members.records()
    return [
        ev.Remember(
            ev.JobRecord(
                job.spec,
                recovery.generation,
                state.orders,
                job.sealed,
                members,
                recovery.kept,
                recovery.cuts,
                state.ended == "" and state.is_final_kept,
                tuple(state.scores),
                dealt=job.dealing.epochs.record(),
                rounds=job.rounds.closed,
                begins=job.rounds.begins(),
                leavers=job.rounds.leavers(),
                gone=job.dealing.leaving(),
                ended=state.ended,
            )
        )
    ]


def restore(state: CoordinatorState, record: ev.JobRecord, now: float, log: Sequence[ev.Ordered]) -> None:
    """Take over a job that was written down; every server has to be found again.

    Args:
        state: a new one.
        record: of the job.
        now: seconds.
        log: in a job with a journal, the orders that a shard may have to hear again.
    """
    job = state.fix_job(record.job, now)
    job.members.restore(record.members, now)
    if record.over:
        state.ended, state.is_final_kept = "", True
        job.rounds.closed = record.rounds
    job.dealing.epochs.restore(record.dealt)
    job.sealed = record.sealed
    state.scores.extend(record.scores)
    job.recovery.restore(record, range(state.servers_expected), now)
    if record.job.has_journal:
        _restore_exactly(state, job, record, log)
    else:
        # Shards may have handled orders that came after this was written down.
        state.orders = record.orders + ORDERS_SKIPPED
    state.grace_seconds = record.job.start_timeout_seconds


def reopen(state: CoordinatorState) -> None:
    """Go on with a job that ended before its last step; its shards go back to the newest checkpoint."""
    if state.ended:
        state.ended, state.has_gap = None, True
        state.log = OrderLog((), state.orders)
    if state.job is not None and (state.has_gap or not state.has_journal):
        state.job.members.expect_the_dead()


def _restore_exactly(
    state: CoordinatorState, job: JobState, record: ev.JobRecord, log: Sequence[ev.Ordered]
) -> None:
    job.rounds.restore(record.rounds, record.begins, record.leavers)
    for rank, order in record.gone:
        job.dealing.gone(rank, order)
    state.ended = record.ended
    state.log = OrderLog(log, record.orders)
    state.orders = record.orders
    for each in log:
        if each.order.number <= record.orders:
            continue
        # Each of the other orders changes who counts or what is sealed, and came with a record.
        state.orders = each.order.number
        match each.order:
            case ev.RoundClosed():
                job.rounds.closed = each.order.round + 1
            case ev.CutOrdered():
                job.recovery.cuts = each.order.checkpoint + 1
            case ev.JobEnded():
                state.ended = each.order.reason
