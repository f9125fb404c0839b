"""Who comes, and what it does: a rank, a place to begin, and a part of the epochs."""

from __future__ import annotations

from dataclasses import replace

from paramserver import events as ev
from paramserver.coordinator.state import CoordinatorState, Effects, JobState
from paramserver.errors import Fault, RequestError
from paramserver.placement import UNBALANCED_RATIO, bytes_per_shard, imbalance


def join(state: CoordinatorState, event: ev.JoinReceived, now: float) -> Effects:
    """Let a replica or an observer take part; the first replica fixes the job.

    Raises:
        RequestError: the job cannot run, is another one, or has no place left.
    """
    if state.ended is not None and not _may_look_back(state, event):
        return [ev.Ended(event.request, state.ended)]
    if event.job is not None and event.job.has_journal and not state.recovers:
        raise RequestError(
            "This job asks for a journal, and the servers keep nothing. Start them with --out, and "
            "without --no-recovery.",
            Fault.PRECONDITION,
        )
    missing = [index for index in range(state.servers_expected) if index not in state.servers]
    if missing:
        names = ", ".join(str(index) for index in missing)
        up = f"{len(state.servers)} of {state.servers_expected} servers are up"
        return [ev.Unavailable(event.request, f"{up}; waiting for server {names}.")]
    if event.job is None:
        if state.job is None:
            return [ev.Unavailable(event.request, "There is no job yet: no replica has joined.")]
        return [grant(state, state.job, event.request, None, 0)]
    effects = _announce_job(state, state.fix_job(event.job, now)) if state.job is None else []
    job = state.known_job()
    if event.job != job.spec:
        differences = "; ".join(job.spec.differences(event.job)[:3])
        raise RequestError(
            f"This server trains another job (here != yours): {differences}. Join with the same job.",
            Fault.PRECONDITION,
        )
    replica, changed = job.members.join(event.name, event.attempt, now, event.incarnation)
    if changed:
        return effects + _let_in(state, job, event.request, replica)
    if job.recovery.is_interrupted and not job.joins.is_pending(replica):
        job.joins.hold(event.request, replica)
        return effects
    clock = job.joins.repeat(event.request, replica)
    return effects if clock is None else [*effects, grant(state, job, event.request, replica, clock)]


def _may_look_back(state: CoordinatorState, event: ev.JoinReceived) -> bool:
    """Say whether an observer can still score the final weights: those of a job that has ended well."""
    return event.job is None and state.ended == "" and state.job is not None and state.job.sealed


def _announce_job(state: CoordinatorState, job: JobState) -> Effects:
    number = state.next_order()
    effects: Effects = [
        ev.Ordered(ev.JobAnnounced(number, job.spec, job.slices(shard)), shard)
        for shard in range(state.shards)
    ]
    sizes = bytes_per_shard(job.spec.tensors, job.placement, state.shards)
    if imbalance(sizes) > UNBALANCED_RATIO:
        effects.append(
            ev.Noted(
                f"The shards are unbalanced: the largest holds {imbalance(sizes):.2f} times the mean "
                f"({max(sizes):,} of {sum(sizes):,} bytes), since tensors are cut only between rows."
            )
        )
    return effects


def _let_in(state: CoordinatorState, job: JobState, request: int, replica: ev.Replica) -> Effects:
    """Announce a replica that has joined, and others who may enter with it."""
    entering = job.dealing.admit()
    if replica.rank in entering:
        entering.remove(replica.rank)
        job.members.enter(replica.rank)
    return _announce(state, job, request, replica) + _enter(state, job, entering)


def _announce(state: CoordinatorState, job: JobState, request: int | None, replica: ev.Replica) -> Effects:
    """Tell every shard of a replica; its request, if it has one, is answered when all have heard."""
    member = job.members.member(replica.rank)
    if member.late and member.live:
        job.rounds.admit_late(replica.rank, alone=job.members.required_count == 1)
    effects = state.order_membership(job, replica.rank)
    if effects:
        job.joins.announce(state.orders, request, replica)
    elif request is not None:
        job.joins.hold(request, replica)
    return effects


def note_announced(state: CoordinatorState, job: JobState, report: ev.OrderHandled) -> Effects:
    """Answer a join once every shard has heard of it."""
    joined = job.joins.handled(report)
    if joined is None:
        return []
    replica, clocks, requests = joined
    # A newcomer may have got different clocks from shards that are not equally far; a restart goes back
    # to the first step that some shard has not had.
    clock = max(clocks) if job.members.member(replica.rank).late else min(clocks)
    job.joins.begins(replica, clock)
    return [grant(state, job, request, replica, clock) for request in requests]


def grant(
    state: CoordinatorState, job: JobState, request: int, replica: ev.Replica | None, clock: int
) -> ev.JoinGranted:
    """Answer a join; the replica is None for an observer."""
    servers = (state.servers[shard // state.shards_per_server] for shard in range(state.shards))
    return ev.JoinGranted(
        request,
        replica,
        job.recovery.generation,
        clock,
        job.spec,
        job.placement,
        tuple(server.address for server in servers),
        job.sealed,
        state.recovers,
    )


def give_part(state: CoordinatorState, event: ev.PartAsked) -> Effects:
    """Say what a replica does from a clock on, which may divide the next epoch.

    Raises:
        RequestError: it is no member, or the job's replicas choose their own samples.
    """
    job = state.known_job()
    if state.ended is not None:
        return [ev.Ended(event.request, state.ended)]
    if job.recovery.is_interrupted:
        return [ev.Unavailable(event.request, "A server was lost, and the job waits for it.")]
    job.members.check(event.replica)
    generation = job.recovery.generation
    if event.generation != generation:
        return [ev.PartGiven(event.request, None, generation=generation)]
    answer, entering = job.dealing.answer(event, job.joins.begins_at(event.replica))
    # Where no step is ever done again, what a replica does next is to be known for good.
    state.has_news |= job.spec.has_journal and answer.dealt is not None
    return [replace(answer, generation=generation), *_enter(state, job, entering)]


def admit(state: CoordinatorState, job: JobState) -> Effects:
    """Let newcomers in who need not wait for the next epoch."""
    return _enter(state, job, job.dealing.admit()) if state.ended is None else []


def _enter(state: CoordinatorState, job: JobState, ranks: list[int]) -> Effects:
    effects: Effects = []
    for rank in ranks:
        job.members.enter(rank)
        replica = ev.Replica(rank, job.members.member(rank).incarnation)
        effects += _announce(state, job, None, replica)
    return effects
