"""Who is still there: leaving, signs of life, and what the timer finds."""

from __future__ import annotations

from paramserver import events as ev
from paramserver.coordinator import progress
from paramserver.coordinator.state import CoordinatorState, Effects, JobState


def leave(state: CoordinatorState, event: ev.LeaveReceived, now: float) -> Effects:
    """Let a replica go: it is done, or has failed, which ends the job.

    Raises:
        RequestError: it is no member.
    """
    job = state.known_job()
    answer = ev.Acknowledged(event.request)
    if event.generation < job.recovery.generation and not event.failure and not event.goes:
        return [answer]  # what it has done is void; it hears of that with its next heartbeat
    leaves = job.members.leave(event.replica, event.counters, event.clock, event.goes)
    if not leaves or state.ended is not None:
        return [answer]
    if event.failure:
        return [answer, *state.end(f"Replica {event.replica.rank} failed: {event.failure}")]
    effects: Effects = [answer, *state.order_membership(job, event.replica.rank)]
    job.rounds.leave(event.replica.rank, state.orders)
    job.dealing.gone(event.replica.rank, state.orders)
    return effects + progress.close_round(state, job, now) + progress.end_if_done(state, job)


def hear(state: CoordinatorState, event: ev.HeartbeatReceived, now: float) -> Effects:
    """Take signs of life, and say which of their senders count no more."""
    job = state.job
    fenced = tuple(beat.replica for beat in event.beats if job is None or not job.members.beat(beat, now))
    # Whoever may have to go back to a checkpoint is not sent home before there is nothing to lose.
    ended = state.ended is not None and (bool(state.ended) or state.is_final_kept)
    generation = job.recovery.generation if job else 0
    answer = ev.HeartbeatAnswered(event.request, generation, fenced, ended, state.ended or "")
    return [answer, *(progress.cut_if_due(state, job, now) if job else [])]


def expire(state: CoordinatorState, now: float) -> Effects:
    """Find whose time has run out: a server's that was lost, a replica's, or that of the start."""
    job, expected_at = state.job, state.wake_at
    state.wake_at = None
    if job is None or state.ended is not None:
        return []
    if expected_at is not None and now > expected_at + job.spec.lease_seconds / 2:
        late = now - expected_at
        job.members.grant_fresh_leases(now)
        job.fixed_at += late
        return [ev.Noted(f"This server was paused for {late:.1f} s, so every replica has a fresh lease.")]
    effects: Effects = []
    seconds = job.patience_seconds
    for server in job.recovery.overdue(now, seconds):
        return state.end(f"The job gave up: server {server} did not come back within {seconds:g} s.")
    if job.recovery.is_interrupted:
        return []
    for death in job.members.expire(now):
        restart = job.spec.on_death == "restart"
        what = "Waiting for its restart." if restart else "Going on without it."
        effects.append(ev.Noted(f"{death.reason} {what}", death.rank))
        effects += state.order_membership(job, death.rank)
        if not job.members.counts(death.rank):
            job.dealing.gone(death.rank, state.orders)
    failure = job.members.overdue(now) or _late_start(job, now)
    if failure:
        return effects + state.end(failure)
    return effects + progress.close_round(state, job, now) + progress.end_if_done(state, job)


def _late_start(job: JobState, now: float) -> str:
    if (job.members.started and job.sealed) or now < job.fixed_at + job.spec.start_timeout_seconds:
        return ""
    waited = f"within {job.spec.start_timeout_seconds:g} s"
    if not job.members.started:
        return f"Only {len(job.members)} of {job.spec.replicas} replicas joined {waited}."
    return f"Every replica joined ({job.spec.replicas}), but none initialised the weights {waited}."


def set_timer(state: CoordinatorState, now: float) -> Effects:
    """Ask to be woken at the next deadline.

    Signs of life only move deadlines away, so a timer that is set is early enough; what it finds then
    sets the next. A step timeout can begin in between, therefore it is a bound of its own.
    """
    job = state.job
    if state.wake_at is not None or job is None or state.ended is not None:
        return []
    times = [now + min(job.spec.lease_seconds, job.spec.step_timeout_seconds)]
    deadline = job.members.next_deadline()
    is_interrupted = job.recovery.is_interrupted  # nobody expires then, so only a lost server can be late
    if deadline is not None and not is_interrupted:
        times.append(deadline)
    overdue = job.recovery.next_deadline(job.patience_seconds)
    if overdue is not None:
        times.append(overdue)
    if not ((job.members.started and job.sealed) or is_interrupted):
        times.append(job.fixed_at + job.spec.start_timeout_seconds)
    state.wake_at = max(now, min(times))
    return [ev.WakeAt(state.wake_at)]
