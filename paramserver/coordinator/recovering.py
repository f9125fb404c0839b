"""Servers that are lost and come back: going on where the job was, or from a checkpoint.

Where every server knows again what it was, as its journal has it, the job goes on where it was. Else all
shards go back to the newest checkpoint that is whole, or begin anew where there is none yet, under a new
generation.
"""

from __future__ import annotations

from collections.abc import Mapping

from paramserver import events as ev
from paramserver.coordinator import joining, progress
from paramserver.coordinator.state import CoordinatorState, Effects, JobState
from paramserver.joins import Joins
from paramserver.rounds import Rounds


def lose_server(state: CoordinatorState, event: ev.ServerLost, now: float) -> Effects:
    """Wait for a server that is lost, or end the job where nothing is kept of it."""
    job, what = state.job, f"Server {event.server} was lost: {event.reason}"
    if not state.recovers:
        return state.end(what)
    state.servers.pop(event.server, None)
    if job is None or state.ended or (state.ended is not None and state.is_final_kept):
        return []
    if not job.recovery.lose(event.server, now):
        restarts = job.spec.restarts_max
        return state.end(f"The job gave up: server {event.server} needed more than {restarts} restarts.")
    state.has_gap = state.has_gap or job.recovery.is_going_back
    if not state.has_journal:
        state.ended = None
    state.wake_at = None
    return [ev.Noted(f"{what} The job waits {job.patience_seconds:g} s for it to come back.")]


def lose_checkpoint(state: CoordinatorState, event: ev.CheckpointLost, now: float) -> Effects:
    """Go back to the checkpoint before one that turns out not to be whole, or end the job without one."""
    job = state.known_job()
    kept = job.recovery.kept
    if state.ended or kept is None or kept.checkpoint != event.checkpoint:
        return []  # another shard has said so before
    if event.kept is None:
        return state.end(event.reason)
    job.recovery.kept = event.kept
    state.trouble = f"{event.reason} The checkpoint before it is used."
    begun = [] if job.recovery.lacks_servers else _begin_generation(state, job, now)
    return [ev.Noted(state.trouble), *begun]


def find_server(state: CoordinatorState, event: ev.ServerRegistered, now: float) -> Effects:
    """Take a server in; with the last one that was lost, the job goes on."""
    state.servers[event.server] = event
    job = state.job
    if job is None:
        return []
    missed = state.log.missing(event.orders) if event.orders is not None else None
    effects: Effects = list(missed or [])
    if not job.recovery.find(event.server):
        state.has_gap = state.has_gap or (missed is None and job.recovery.is_interrupted)
        return effects
    has_gap, state.has_gap = state.has_gap or missed is None, False
    if not has_gap:
        return effects + _resume(state, job, now)
    if state.ended is not None:
        return effects
    if state.has_journal and job.sealed and job.recovery.kept is None:
        return state.end(f"Server {event.server} came back without its journal, and had no checkpoint.")
    return _begin_generation(state, job, now)


def _resume(state: CoordinatorState, job: JobState, now: float) -> Effects:
    """Go on where the job was: the servers that were away know again what they were."""
    all_there = job.recovery.resume(state.log.last_reported())
    job.members.grant_fresh_leases(now + state.grace_seconds)
    state.grace_seconds, state.has_news = 0.0, True
    note = ev.Noted("All servers are there. The job goes on where it was.")
    return [note, *(go_on(state, job, now) if all_there else [])]


def _begin_generation(state: CoordinatorState, job: JobState, now: float) -> Effects:
    """Go back to the newest checkpoint, or to the beginning, and tell every shard what it has to be."""
    order = state.next_order()
    kept = job.recovery.begin(order)
    if kept is None:
        job.sealed, job.fixed_at = False, now
        job.staged.clear()
    clocks, rounds = ({}, 0) if kept is None else (kept.clocks, kept.rounds)
    if job.rule.gathers:  # what was gathered of the open round is void
        clocks = {rank: min(clock, rounds) for rank, clock in clocks.items()}
    job.dealing.lose(job.rounds_closed)
    job.members.revive(clocks, now, state.grace_seconds)
    state.grace_seconds, state.has_news = 0.0, True
    job.rounds = Rounds(job.rule, state.shards, rounds)
    waiting = job.joins.take_all()
    job.joins = Joins(state.shards)
    for request, replica in waiting:
        job.joins.hold(request, replica)
    generation = job.recovery.generation
    how = "begins anew, since it had no checkpoint yet"
    if kept is not None:
        how = f"goes on from checkpoint {kept.checkpoint}"
    effects: Effects = [ev.Noted(f"All servers are there. The job {how}, as generation {generation}.")]
    for shard in range(state.shards):
        begun = ev.GenerationBegun(
            order,
            generation,
            job.spec,
            job.slices(shard),
            job.members.members(),
            job.members.started,
            job.spec.replicas,
            None if kept is None else kept.checkpoint,
        )
        effects.append(ev.Ordered(begun, shard))
    return effects


def go_on(state: CoordinatorState, job: JobState, now: float) -> Effects:
    """Answer those who waited for the job to go on everywhere."""
    kept: Mapping[int, int] = {}
    if job.recovery.goes_back and job.recovery.kept is not None:
        kept = job.recovery.kept.clocks
    begins: dict[int, int] = {}
    for member in job.members.members():
        # Whoever has come since waits for the order that announces it.
        if clocks := job.recovery.clocks(member.rank):
            # A newcomer has done no step that a shard could lack, and begins where all take its pushes.
            furthest = member.late and member.rank not in kept
            begins[member.rank] = max(clocks) if furthest else min(clocks)
    if job.recovery.goes_back:
        # A newcomer that was here before begins at its furthest clock: others do what some shard lacks of it.
        known = [
            ev.Replica(member.rank, member.incarnation) for member in job.members.members() if member.late
        ]
        job.dealing.roll_back(begins, kept, {each.rank for each in known if job.joins.is_pending(each)})
    for rank, begin in begins.items():
        replica = ev.Replica(rank, job.members.member(rank).incarnation)
        if not job.joins.knows(replica):
            job.joins.begins(replica, begin)
    effects: Effects = []
    for request, replica in job.joins.take_held():
        clock: int | None = begins.get(replica.rank, 0)
        # One that has begun anew since is let in, too: its first pull tells it that it counts no more.
        if replica.incarnation == job.members.member(replica.rank).incarnation:
            clock = job.joins.repeat(request, replica)
        if clock is not None:
            effects.append(joining.grant(state, job, request, replica, clock))
    effects += joining.admit(state, job)
    return effects + progress.close_round(state, job, now) + progress.end_if_done(state, job)
