"""The one place that gives ranks, seals the first weights, closes rounds and ends the job.

To the next editor: like a shard, this is a state machine with one door. What concerns every shard leaves as a
numbered order, and all shards handle all orders in that order; so a death in the middle of a round is decided
once, here. A join is answered when every shard has handled the order that announces it: after that, no shard
can meet an unknown replica.

In: servers that register, requests of replicas and observers, the shards' reports, the timer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from paramserver import events as ev
from paramserver.consistency import Consistency, parse_consistency
from paramserver.errors import Fault, RequestError
from paramserver.membership import Membership
from paramserver.optim import build_optimizer
from paramserver.placement import UNBALANCED_RATIO, bytes_per_shard, imbalance, place
from paramserver.rounds import Rounds

Effects = list[ev.CoordinatorEffect]

SCORES_MAX = 100
"""How many scores a status shows; the newest count."""


@dataclass(slots=True)
class _Job:
    """What is known once the first join has fixed the job."""

    spec: ev.JobSpec
    rule: Consistency
    placement: tuple[ev.Slice, ...]
    members: Membership
    fixed_at: float
    rounds: Rounds
    sealed: bool = False
    staged: dict[str, set[int]] = field(default_factory=dict)  # initialiser -> shards


@dataclass(slots=True)
class _PendingJoin:
    """A join whose announcement some shards have not handled yet."""

    requests: list[int]
    replica: ev.Replica
    shards: set[int]  # still to come
    clocks: list[int] = field(default_factory=list)  # of the rank, on the shards that have


class Coordinator:
    """The state machine of the coordinator.

    Args:
        servers: how many servers the job has, >= 1.
        shards_per_server: how many shards each of them owns, >= 1.
    """

    def __init__(self, servers: int, shards_per_server: int) -> None:
        self._servers_expected = servers
        self._shards_per_server = shards_per_server
        self._shards = servers * shards_per_server
        self._servers: dict[int, ev.ServerRegistered] = {}
        self._job: _Job | None = None
        self._orders = 0
        self._pending: dict[int, _PendingJoin] = {}  # by the order that announces it
        self._begins_at: dict[ev.Replica, int] = {}  # the clock that a granted join gave
        self._scores: deque[ev.Score] = deque(maxlen=SCORES_MAX)
        self._ended: str | None = None
        self._wake_at: float | None = None

    def handle(self, event: ev.CoordinatorEvent, now: float) -> Effects:
        """Take one event in and return what is to be done about it, in order.

        Args:
            event: of a server, a replica, an observer, a shard, or the timer.
            now: seconds, never decreasing.

        Returns:
            Effects; each request is answered by exactly one of them, now or (a join) later.
        """
        match event:
            case ev.JoinReceived():
                effects = self._refusing(event.request, lambda: self._join(event, now))
            case ev.LeaveReceived():
                effects = self._refusing(event.request, lambda: self._leave(event))
            case ev.HeartbeatReceived():
                effects = self._heartbeat(event, now)
            case ev.Contributed():
                effects = self._contributed(event)
            case ev.Staged():
                effects = self._staged(event)
            case ev.OrderHandled():
                effects = self._handled(event)
            case ev.ServerRegistered():
                self._servers[event.server] = event
                effects = []
            case ev.ServerLost():
                effects = self._end(f"Server {event.server} was lost: {event.reason}")
            case ev.ScoreReceived():
                self._scores.append(event.score)
                effects = [ev.Acknowledged(event.request), *self._end_if_reached(event.score)]
            case ev.StatusReceived():
                effects = [ev.StatusAnswered(event.request, self._status(now))]
            case ev.EndAsked():
                effects = self._end(event.reason)
            case ev.TimerFired():
                effects = self._expire(now)
        return effects + self._set_timer(now)

    # -------------------------------------------------------------------------------------------- joining

    def _join(self, event: ev.JoinReceived, now: float) -> Effects:
        if self._ended is not None and not self._may_look_back(event):
            return [ev.Ended(event.request, self._ended)]
        missing = [index for index in range(self._servers_expected) if index not in self._servers]
        if missing:
            names = ", ".join(str(index) for index in missing)
            up = f"{len(self._servers)} of {self._servers_expected} servers are up"
            return [ev.Unavailable(event.request, f"{up}; waiting for server {names}.")]
        if event.job is None:
            if self._job is None:
                return [ev.Unavailable(event.request, "There is no job yet: no replica has joined.")]
            return [self._granted(self._job, event.request, None, 0)]
        effects = self._fix_job(event.job, now) if self._job is None else []
        job = self._known_job()
        if event.job != job.spec:
            differences = "; ".join(job.spec.differences(event.job)[:3])
            raise RequestError(
                f"This server trains another job (here != yours): {differences}. Join with the same job.",
                Fault.PRECONDITION,
            )
        replica, changed = job.members.join(event.name, event.attempt, now)
        if changed:
            return effects + self._announce_join(job, event.request, replica)
        for pending in self._pending.values():
            if pending.replica == replica:
                pending.requests.append(event.request)
                return effects
        return [*effects, self._granted(job, event.request, replica, self._begins_at[replica])]

    def _may_look_back(self, event: ev.JoinReceived) -> bool:
        """Say whether an observer can still score the final weights: those of a job that has ended well."""
        return event.job is None and self._ended == "" and self._job is not None and self._job.sealed

    def _fix_job(self, spec: ev.JobSpec, now: float) -> Effects:
        rule = _check_job(spec)
        placement = place(spec.tensors, self._shards)
        self._job = _Job(spec, rule, placement, Membership(spec), now, Rounds(rule, self._shards))
        self._orders += 1
        effects: Effects = []
        for shard in range(self._shards):
            slices = tuple(part for part in placement if part.shard == shard)
            effects.append(ev.Ordered(ev.JobAnnounced(self._orders, spec, slices), shard))
        sizes = bytes_per_shard(spec.tensors, placement, self._shards)
        if imbalance(sizes) > UNBALANCED_RATIO:
            effects.append(
                ev.Noted(
                    f"The shards are unbalanced: the largest holds {imbalance(sizes):.2f} times the mean "
                    f"({max(sizes):,} of {sum(sizes):,} bytes), since tensors are cut only between rows."
                )
            )
        return effects

    def _announce_join(self, job: _Job, request: int, replica: ev.Replica) -> Effects:
        member = job.members.member(replica.rank)
        if member.late:
            job.rounds.admit_late(replica.rank, alone=job.members.required_count == 1)
        effects = self._order_membership(job, replica.rank)
        self._pending[self._orders] = _PendingJoin([request], replica, set(range(self._shards)))
        return effects

    def _handled(self, report: ev.OrderHandled) -> Effects:
        job = self._job
        if job is not None and job.rounds.handled(report.number, report.shard):
            return self._close_round(job) + self._end_if_done(job)
        pending = self._pending.get(report.number)
        if pending is None:
            return []
        pending.shards.discard(report.shard)
        pending.clocks.append(report.clocks[pending.replica.rank])
        if pending.shards:
            return []
        del self._pending[report.number]
        job = self._known_job()
        # A newcomer may have got different clocks from shards that are not equally far; a restart goes back
        # to the first step that some shard has not had.
        late = job.members.member(pending.replica.rank).late
        clock = max(pending.clocks) if late else min(pending.clocks)
        self._begins_at[pending.replica] = clock
        return [self._granted(job, request, pending.replica, clock) for request in pending.requests]

    def _granted(self, job: _Job, request: int, replica: ev.Replica | None, clock: int) -> ev.JoinGranted:
        addresses = tuple(
            self._servers[shard // self._shards_per_server].address for shard in range(self._shards)
        )
        return ev.JoinGranted(request, replica, 0, clock, job.spec, job.placement, addresses, job.sealed)

    # ------------------------------------------------------------------------- leaving, living and dying

    def _leave(self, event: ev.LeaveReceived) -> Effects:
        job = self._known_job()
        answer = ev.Acknowledged(event.request)
        if not job.members.leave(event.replica, event.counters) or self._ended is not None:
            return [answer]
        if event.failure:
            return [answer, *self._end(f"Replica {event.replica.rank} failed: {event.failure}")]
        effects: Effects = [answer, *self._order_membership(job, event.replica.rank)]
        job.rounds.leave(event.replica.rank, self._orders)
        return effects + self._close_round(job) + self._end_if_done(job)

    def _heartbeat(self, event: ev.HeartbeatReceived, now: float) -> Effects:
        job = self._job
        fenced = tuple(beat.replica for beat in event.beats if job is None or not job.members.beat(beat, now))
        ended = self._ended is not None
        return [ev.HeartbeatAnswered(event.request, 0, fenced, ended, self._ended or "")]

    def _expire(self, now: float) -> Effects:
        job, expected_at = self._job, self._wake_at
        self._wake_at = None
        if job is None or self._ended is not None:
            return []
        if expected_at is not None and now > expected_at + job.spec.lease_seconds / 2:
            late = now - expected_at
            job.members.grant_fresh_leases(now)
            job.fixed_at += late
            return [ev.Noted(f"This server was paused for {late:.1f} s, so every replica has a fresh lease.")]
        effects: Effects = []
        for death in job.members.expire(now):
            restart = job.spec.on_death == "restart"
            what = "Waiting for its restart." if restart else "Going on without it."
            effects.append(ev.Noted(f"{death.reason} {what}", death.rank))
            effects += self._order_membership(job, death.rank)
        failure = job.members.overdue(now) or self._late_start(job, now)
        if failure:
            return effects + self._end(failure)
        return effects + self._close_round(job) + self._end_if_done(job)

    def _late_start(self, job: _Job, now: float) -> str:
        if (job.members.started and job.sealed) or now < job.fixed_at + job.spec.start_timeout_seconds:
            return ""
        waited = f"within {job.spec.start_timeout_seconds:g} s"
        if not job.members.started:
            return f"Only {len(job.members)} of {job.spec.replicas} replicas joined {waited}."
        return f"Every replica joined ({job.spec.replicas}), but none initialised the weights {waited}."

    def _end_if_done(self, job: _Job) -> Effects:
        if not job.members.finished() or job.rounds.waits_for_leavers:
            return []
        dropped = job.members.dropped()
        if dropped and len(dropped) == len(job.members):
            return self._end("Every replica is dead.")
        return self._end("")

    def _end_if_reached(self, score: ev.Score) -> Effects:
        """End the job, well, where a validation score reaches what the job was to reach."""
        target = self._job.spec.target_accuracy if self._job is not None else 0.0
        if not target or score.split != "validation" or score.accuracy < target or self._ended is not None:
            return []
        reached = f"At version {score.version} the validation accuracy is {score.accuracy:.4f}"
        return [ev.Noted(f"{reached}, which reaches the target {target:g}."), *self._end("")]

    def _end(self, reason: str) -> Effects:
        if self._ended is not None:
            return []
        self._ended = reason
        waiting = [request for pending in self._pending.values() for request in pending.requests]
        self._pending.clear()
        self._orders += 1
        return [
            ev.Ordered(ev.JobEnded(self._orders, reason)),
            *(ev.Ended(request, reason) for request in waiting),
        ]

    # ---------------------------------------------------------------------------------- weights and rounds

    def _staged(self, report: ev.Staged) -> Effects:
        job = self._known_job()
        if job.sealed:
            return []
        shards = job.staged.setdefault(report.initialiser, set())
        shards.add(report.shard)
        if len(shards) < self._shards:
            return []
        job.sealed = True
        job.staged.clear()
        self._orders += 1
        return [ev.Ordered(ev.Sealed(self._orders, report.initialiser)), *self._close_round(job)]

    def _contributed(self, report: ev.Contributed) -> Effects:
        job = self._known_job()
        job.rounds.contribute(report)
        return self._close_round(job)

    def _close_round(self, job: _Job) -> Effects:
        if not job.members.started or not job.sealed or self._ended is not None:
            return []
        if job.rounds.surely_lacks(job.members.required_count):
            return []
        closed = job.rounds.close(job.members.required())
        if closed is None:
            return []
        self._orders += 1
        order = ev.Ordered(ev.RoundClosed(self._orders, closed.number, closed.ranks))
        return [ev.Noted(closed.remark), order] if closed.remark else [order]

    # ------------------------------------------------------------------------------------------- the rest

    def _order_membership(self, job: _Job, rank: int) -> Effects:
        self._orders += 1
        members = (job.members.member(rank),)
        return [
            ev.Ordered(ev.MembershipChanged(self._orders, members, job.members.started, job.spec.replicas))
        ]

    def _set_timer(self, now: float) -> Effects:
        """Ask to be woken at the next deadline.

        Signs of life only move deadlines away, so a timer that is set is early enough; what it finds then
        sets the next. A step timeout can begin in between, therefore it is a bound of its own.
        """
        job = self._job
        if self._wake_at is not None or job is None or self._ended is not None:
            return []
        times = [now + min(job.spec.lease_seconds, job.spec.step_timeout_seconds)]
        deadline = job.members.next_deadline()
        if deadline is not None:
            times.append(deadline)
        if not (job.members.started and job.sealed):
            times.append(job.fixed_at + job.spec.start_timeout_seconds)
        self._wake_at = max(now, min(times))
        return [ev.WakeAt(self._wake_at)]

    def _status(self, now: float) -> ev.JobStatus:
        job = self._job
        return ev.JobStatus(
            job.spec if job else None,
            0,
            tuple(self._servers[index] for index in sorted(self._servers)),
            self._servers_expected,
            job.members.started if job else False,
            job.sealed if job else False,
            self._ended is not None,
            self._ended or "",
            job.rounds.closed if job else 0,
            job.members.statuses(now) if job else (),
            tuple(self._scores),
        )

    def _known_job(self) -> _Job:
        if self._job is None:
            raise RequestError("There is no job here yet. Join first.", Fault.PRECONDITION)
        return self._job

    def _refusing(self, request: int, handle: Callable[[], Effects]) -> Effects:
        try:
            return handle()
        except RequestError as error:
            return [ev.Refused.of(request, error)]


def _check_job(spec: ev.JobSpec) -> Consistency:
    """Refuse a job that could not run.

    Raises:
        RequestError: names the field, what was expected and what was found.
    """
    rule = parse_consistency(spec.consistency)
    build_optimizer(spec.optimizer, spec.learning_rate, spec.schedule, spec.versions_total)
    for tensor in spec.tensors:
        if tensor.dtype != "float32":
            raise RequestError(f"Tensor '{tensor.key}' is {tensor.dtype}; only float32 is served.")
    if [tensor.key for tensor in spec.tensors] != sorted({tensor.key for tensor in spec.tensors}):
        raise RequestError("The tensors of a job must be in key order, each key once.")
    if not 1 <= spec.replicas <= spec.replicas_max:
        raise RequestError(
            f"A job needs 1 <= replicas <= replicas_max, but has {spec.replicas} and {spec.replicas_max}."
        )
    if spec.on_death not in ("restart", "drop"):
        raise RequestError(f"on_death is 'restart' or 'drop', not '{spec.on_death}'.")
    for name in ("lease_seconds", "step_timeout_seconds", "start_timeout_seconds"):
        seconds = getattr(spec, name)
        if not (math.isfinite(seconds) and seconds > 0):
            raise RequestError(f"{name} must be a number of seconds above 0, but is {seconds}.")
    if not (math.isfinite(spec.restart_timeout_seconds) and spec.restart_timeout_seconds >= 0):
        seconds = spec.restart_timeout_seconds
        raise RequestError(f"restart_timeout_seconds must be a number of seconds, but is {seconds}.")
    if not 0 <= spec.target_accuracy <= 1:
        raise RequestError(f"target_accuracy must be from 0 to 1, but is {spec.target_accuracy}.")
    if spec.restarts_max < 0:
        raise RequestError(f"restarts_max must be 0 or more, but is {spec.restarts_max}.")
    return rule
