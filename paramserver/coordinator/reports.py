"""What the shards report: gradients and first weights that they have, orders that they have handled."""

from __future__ import annotations

from paramserver import events as ev
from paramserver.coordinator import joining, progress, recovering
from paramserver.coordinator.state import CoordinatorState, Effects, JobState


def take(state: CoordinatorState, report: ev.Report, now: float) -> Effects:
    """Take a shard's report, unless a new generation has made it void."""
    job = state.job
    if job is None or job.recovery.is_void(report):
        return []
    match report:
        case ev.Contributed():
            if report.refusal:
                job.dealing.epochs.refuse(report.rank, report.round)
            if not job.rule.gathers:
                return []
            job.rounds.contribute(report)
            return progress.close_round(state, job, now)
        case ev.Staged():
            return progress.note_staged(state, job, report, now)
        case ev.OrderHandled():
            return _handled(state, job, report, now)
        case ev.CaughtUp():
            return _caught_up(state, job, report, now)


def _handled(state: CoordinatorState, job: JobState, report: ev.OrderHandled, now: float) -> Effects:
    """Go on with whatever waited for a shard to handle this order."""
    effects = joining.admit(state, job) if job.dealing.handled(report) else []
    if job.rounds.handled(report.number, report.shard):
        effects += progress.close_round(state, job, now)
    effects += joining.note_announced(state, job, report) + progress.end_if_done(state, job)
    return effects + (recovering.go_on(state, job, now) if job.recovery.handled(report) else [])


def _caught_up(state: CoordinatorState, job: JobState, report: ev.CaughtUp, now: float) -> Effects:
    """Take a shard's word for all orders of which it may have reported in vain."""
    where = (report.shard, report.number)
    waiting = {
        *job.joins.waits_for(*where),
        *job.rounds.waits_for(*where),
        *job.dealing.waits_for(*where),
    }
    effects: Effects = []
    for number in sorted(waiting):
        effects += _handled(state, job, ev.OrderHandled(report.shard, number, report.clocks), now)
    return effects + (recovering.go_on(state, job, now) if job.recovery.handled(report) else [])
