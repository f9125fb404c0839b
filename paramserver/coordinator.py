"""The one place that gives ranks, seals the first weights, closes rounds and ends the job.

To the next editor: like a shard, this is a state machine with one door. What concerns every shard leaves as a
numbered order, and all shards handle all orders in that order; so a death in the middle of a round is decided
once, here. A join is answered when every shard has handled the order that announces it: after that, no shard
can meet an unknown replica.

In: servers that register, requests of replicas and observers, the shards' reports, the timer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from paramserver import events as ev
from paramserver.admission import check_job
from paramserver.consistency import Consistency
from paramserver.dealing import Dealing
from paramserver.errors import Fault, RequestError
from paramserver.membership import Membership
from paramserver.order_log import OrderLog
from paramserver.placement import UNBALANCED_RATIO, bytes_per_shard, imbalance, place
from paramserver.recovery import Joins, Recovery
from paramserver.rounds import Rounds

Effects = list[ev.CoordinatorEffect]

ORDERS_SKIPPED = 1 << 32
"""Far more orders than can follow one that was written down."""

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
    recovery: Recovery
    joins: Joins
    dealing: Dealing
    sealed: bool = False
    staged: dict[str, set[int]] = field(default_factory=dict)  # initialiser -> shards

    def updates(self) -> int:
        """Return how far the job has come, for the rhythm of its checkpoints."""
        return self.rounds.closed if self.rule.gathers else self.members.steps_done()

    def rounds_closed(self) -> int | None:
        """Return how many rounds are closed; None in a mode without."""
        return self.rounds.closed if self.rule.gathers else None


class Coordinator:
    """The state machine of the coordinator.

    Args:
        servers: how many servers the job has, >= 1.
        shards_per_server: how many shards each of them owns, >= 1.
        recovers: checkpoints are kept, so the job survives the loss of a server.
    """

    def __init__(self, servers: int, shards_per_server: int, *, recovers: bool = False) -> None:
        self._servers_expected = servers
        self._shards_per_server = shards_per_server
        self._shards = servers * shards_per_server
        self._servers: dict[int, ev.ServerRegistered] = {}
        self._job: _Job | None = None
        self._recovers = recovers
        self._orders = 0
        self._scores: deque[ev.Score] = deque(maxlen=SCORES_MAX)
        self._ended: str | None = None
        self._is_final_kept = not recovers
        self._wake_at: float | None = None
        self._has_news = False  # that have to be written down
        self._log = OrderLog()  # in a job with a journal
        self._has_gap = False  # a server has come back and knows nothing
        self._grace_seconds = 0.0  # for replicas to come back after this coordinator has

    def restore(self, record: ev.JobRecord, now: float, log: Sequence[ev.Ordered] = ()) -> None:
        """Go on with a job that was written down, once all servers have registered.

        Args:
            record: as `Remember` gave it; with a checkpoint, or of a job with a journal.
            now: seconds.
            log: in a job with a journal, as `log` was when the last order was given.
        """
        job = self._fix_job(record.job, now)
        job.members.restore(record.members, now)
        if record.over:
            self._ended, self._is_final_kept = "", True
        job.dealing.epochs.restore(record.dealt)
        job.sealed = record.sealed
        self._scores.extend(record.scores)
        job.recovery.restore(record, range(self._servers_expected), now)
        if record.job.has_journal:
            self._restore_exactly(job, record, log)
        else:
            # Shards may have handled orders that came after this was written down.
            self._orders = record.orders + ORDERS_SKIPPED
        self._grace_seconds = record.job.start_timeout_seconds

    def _restore_exactly(self, job: _Job, record: ev.JobRecord, log: Sequence[ev.Ordered]) -> None:
        job.rounds.restore(record.rounds, record.begins, record.leavers)
        for rank, order in record.gone:
            job.dealing.gone(rank, order)
        self._ended = record.ended
        self._log = OrderLog(log, record.orders)
        self._orders = record.orders
        for each in log:
            if each.order.number <= record.orders:
                continue
            # Each of the other orders changes who counts or what is sealed, and came with a record.
            self._orders = each.order.number
            match each.order:
                case ev.RoundClosed():
                    job.rounds.closed = each.order.round + 1
                case ev.CutOrdered():
                    job.recovery.cuts = each.order.checkpoint + 1
                case ev.JobEnded():
                    self._ended = each.order.reason

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
                effects = self._refusing(event.request, lambda: self._leave(event, now))
            case ev.PartAsked():
                effects = self._refusing(event.request, lambda: self._part(event, now))
            case ev.HeartbeatReceived():
                effects = self._heartbeat(event, now)
            case ev.Contributed() | ev.Staged() | ev.OrderHandled() | ev.CaughtUp():
                effects = self._report(event, now)
            case ev.ServerRegistered():
                effects = self._server_up(event, now)
            case ev.ServerLost():
                effects = self._server_lost(event, now)
            case ev.CheckpointWritten():
                self._has_news, effects = True, []
            case ev.CheckpointKept():
                effects = self._checkpoint_kept(event)
            case ev.CheckpointFailed():
                effects = self._checkpoint_failed(event)
            case ev.ScoreReceived():
                self._scores.append(event.score)
                effects = [ev.Acknowledged(event.request), *self._end_if_reached(event.score)]
            case ev.StatusReceived():
                effects = [ev.StatusAnswered(event.request, self._status(now))]
            case ev.EndAsked():
                effects = self._end(event.reason)
            case ev.TimerFired():
                effects = self._expire(now)
        effects = self._remember() + effects
        if self.has_journal:
            for effect in effects:
                if isinstance(effect, ev.Ordered) and not effect.again:
                    self._log.add(effect)
        return effects + self._set_timer(now)

    @property
    def has_journal(self) -> bool:
        """Whether what it decides has to be written down before anybody hears of it."""
        return self._recovers and self._job is not None and self._job.spec.has_journal

    @property
    def log(self) -> tuple[ev.Ordered, ...]:
        """The orders that a server may have to hear again, in a job with a journal."""
        return self._log.all()

    # -------------------------------------------------------------------------------------------- joining

    def _join(self, event: ev.JoinReceived, now: float) -> Effects:
        if self._ended is not None and not self._may_look_back(event):
            return [ev.Ended(event.request, self._ended)]
        if event.job is not None and event.job.has_journal and not self._recovers:
            raise RequestError(
                "This job asks for a journal, and the servers keep nothing. Start them with --out, and "
                "without --no-recovery.",
                Fault.PRECONDITION,
            )
        missing = [index for index in range(self._servers_expected) if index not in self._servers]
        if missing:
            names = ", ".join(str(index) for index in missing)
            up = f"{len(self._servers)} of {self._servers_expected} servers are up"
            return [ev.Unavailable(event.request, f"{up}; waiting for server {names}.")]
        if event.job is None:
            if self._job is None:
                return [ev.Unavailable(event.request, "There is no job yet: no replica has joined.")]
            return [self._granted(self._job, event.request, None, 0)]
        effects = self._announce(self._fix_job(event.job, now)) if self._job is None else []
        job = self._known_job()
        if event.job != job.spec:
            differences = "; ".join(job.spec.differences(event.job)[:3])
            raise RequestError(
                f"This server trains another job (here != yours): {differences}. Join with the same job.",
                Fault.PRECONDITION,
            )
        replica, changed = job.members.join(event.name, event.attempt, now, event.incarnation)
        if changed:
            return effects + self._let_in(job, event.request, replica)
        if job.recovery.is_interrupted and not job.joins.is_pending(replica):
            job.joins.hold(event.request, replica)
            return effects
        clock = job.joins.repeat(event.request, replica)
        return effects if clock is None else [*effects, self._granted(job, event.request, replica, clock)]

    def _may_look_back(self, event: ev.JoinReceived) -> bool:
        """Say whether an observer can still score the final weights: those of a job that has ended well."""
        return event.job is None and self._ended == "" and self._job is not None and self._job.sealed

    def _fix_job(self, spec: ev.JobSpec, now: float) -> _Job:
        rule = check_job(spec)
        members = Membership(spec)
        self._job = _Job(
            spec,
            rule,
            place(spec.tensors, self._shards),
            members,
            now,
            Rounds(rule, self._shards),
            Recovery(spec, self._shards, now, self._shards_per_server),
            Joins(self._shards),
            Dealing(spec, members, self._shards),
        )
        return self._job

    def _announce(self, job: _Job) -> Effects:
        spec, placement = job.spec, job.placement
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

    def _let_in(self, job: _Job, request: int, replica: ev.Replica) -> Effects:
        """Announce a replica that has joined, and others who may enter with it."""
        entering = job.dealing.admit()
        if replica.rank in entering:
            entering.remove(replica.rank)
            job.members.enter(replica.rank)
        return self._announce_join(job, request, replica) + self._enter(job, entering)

    def _announce_join(self, job: _Job, request: int | None, replica: ev.Replica) -> Effects:
        member = job.members.member(replica.rank)
        if member.late and member.live:
            job.rounds.admit_late(replica.rank, alone=job.members.required_count == 1)
        effects = self._order_membership(job, replica.rank)
        if effects:
            job.joins.announce(self._orders, request, replica)
        elif request is not None:
            job.joins.hold(request, replica)
        return effects

    def _part(self, event: ev.PartAsked, now: float) -> Effects:
        job = self._known_job()
        if self._ended is not None:
            return [ev.Ended(event.request, self._ended)]
        if job.recovery.is_interrupted:
            return [ev.Unavailable(event.request, "A server was lost, and the job waits for it.")]
        job.members.check(event.replica)
        generation = job.recovery.generation
        if event.generation != generation:
            return [ev.PartGiven(event.request, None, generation=generation)]
        answer, entering = job.dealing.answer(event, job.joins.begins_at(event.replica))
        # Where no step is ever done again, what a replica does next is to be known for good.
        self._has_news |= job.spec.has_journal and answer.dealt is not None
        return [replace(answer, generation=generation), *self._enter(job, entering)]

    def _admit(self, job: _Job) -> Effects:
        """Let newcomers in who need not wait for the next epoch."""
        return self._enter(job, job.dealing.admit()) if self._ended is None else []

    def _enter(self, job: _Job, ranks: list[int]) -> Effects:
        effects: Effects = []
        for rank in ranks:
            job.members.enter(rank)
            replica = ev.Replica(rank, job.members.member(rank).incarnation)
            effects += self._announce_join(job, None, replica)
        return effects

    def _caught_up(self, job: _Job, report: ev.CaughtUp, now: float) -> Effects:
        """Take a shard's word for all orders of which it may have reported in vain."""
        where = (report.shard, report.number)
        waiting = {
            *job.joins.waits_for(*where),
            *job.rounds.waits_for(*where),
            *job.dealing.waits_for(*where),
        }
        effects: Effects = []
        for number in sorted(waiting):
            effects += self._handled(job, ev.OrderHandled(report.shard, number, report.clocks), now)
        return effects + (self._go_on(job, now) if job.recovery.handled(report) else [])

    def _handled(self, job: _Job, report: ev.OrderHandled, now: float) -> Effects:
        effects = self._admit(job) if job.dealing.handled(report) else []
        if job.rounds.handled(report.number, report.shard):
            effects += self._close_round(job, now)
        effects += self._announced(job, report) + self._end_if_done(job)
        return effects + (self._go_on(job, now) if job.recovery.handled(report) else [])

    def _announced(self, job: _Job, report: ev.OrderHandled) -> Effects:
        joined = job.joins.handled(report)
        if joined is None:
            return []
        replica, clocks, requests = joined
        # A newcomer may have got different clocks from shards that are not equally far; a restart goes back
        # to the first step that some shard has not had.
        clock = max(clocks) if job.members.member(replica.rank).late else min(clocks)
        job.joins.begins(replica, clock)
        return [self._granted(job, request, replica, clock) for request in requests]

    def _granted(self, job: _Job, request: int, replica: ev.Replica | None, clock: int) -> ev.JoinGranted:
        addresses = tuple(
            self._servers[shard // self._shards_per_server].address for shard in range(self._shards)
        )
        generation = job.recovery.generation
        return ev.JoinGranted(
            request,
            replica,
            generation,
            clock,
            job.spec,
            job.placement,
            addresses,
            job.sealed,
            self._recovers,
        )

    # ------------------------------------------------------------------------- leaving, living and dying

    def _leave(self, event: ev.LeaveReceived, now: float) -> Effects:
        job = self._known_job()
        answer = ev.Acknowledged(event.request)
        if event.generation < job.recovery.generation and not event.failure and not event.goes:
            return [answer]  # what it has done is void; it hears of that with its next heartbeat
        if (
            not job.members.leave(event.replica, event.counters, event.clock, event.goes)
            or self._ended is not None
        ):
            return [answer]
        if event.failure:
            return [answer, *self._end(f"Replica {event.replica.rank} failed: {event.failure}")]
        effects: Effects = [answer, *self._order_membership(job, event.replica.rank)]
        job.rounds.leave(event.replica.rank, self._orders)
        job.dealing.gone(event.replica.rank, self._orders)
        return effects + self._close_round(job, now) + self._end_if_done(job)

    def _heartbeat(self, event: ev.HeartbeatReceived, now: float) -> Effects:
        job = self._job
        fenced = tuple(beat.replica for beat in event.beats if job is None or not job.members.beat(beat, now))
        # Whoever may have to go back to a checkpoint is not sent home before there is nothing to lose.
        ended = self._ended is not None and (bool(self._ended) or self._is_final_kept)
        generation = job.recovery.generation if job else 0
        answer = ev.HeartbeatAnswered(event.request, generation, fenced, ended, self._ended or "")
        return [answer, *(self._cut_if_due(job, now) if job else [])]

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
        seconds = _patience(job.spec)
        for server in job.recovery.overdue(now, seconds):
            return self._end(f"The job gave up: server {server} did not come back within {seconds:g} s.")
        if job.recovery.is_interrupted:
            return []
        for death in job.members.expire(now):
            restart = job.spec.on_death == "restart"
            what = "Waiting for its restart." if restart else "Going on without it."
            effects.append(ev.Noted(f"{death.reason} {what}", death.rank))
            effects += self._order_membership(job, death.rank)
            if not job.members.counts(death.rank):
                job.dealing.gone(death.rank, self._orders)
        failure = job.members.overdue(now) or self._late_start(job, now)
        if failure:
            return effects + self._end(failure)
        return effects + self._close_round(job, now) + self._end_if_done(job)

    def _late_start(self, job: _Job, now: float) -> str:
        if (job.members.started and job.sealed) or now < job.fixed_at + job.spec.start_timeout_seconds:
            return ""
        waited = f"within {job.spec.start_timeout_seconds:g} s"
        if not job.members.started:
            return f"Only {len(job.members)} of {job.spec.replicas} replicas joined {waited}."
        return f"Every replica joined ({job.spec.replicas}), but none initialised the weights {waited}."

    def _end_if_done(self, job: _Job) -> Effects:
        if not job.members.finished() or job.rounds.waits_for_leavers or self._ended is not None:
            return []
        if job.recovery.is_interrupted or job.dealing.goes_on:
            return []
        if entering := self._admit(job):
            return entering
        dropped = job.members.dropped()
        if dropped and len(dropped) == len(job.members):
            return self._end("Every replica is dead.")
        if left := job.dealing.epochs.left:
            return self._end(
                f"Every replica has left, and {left} of {job.spec.epochs} epochs have not been begun."
            )
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
        waiting = self._job.joins.take_all() if self._job is not None else []
        self._orders += 1
        return [
            ev.Ordered(ev.JobEnded(self._orders, reason)),
            *(ev.Ended(request, reason) for request, _ in waiting),
        ]

    # ---------------------------------------------------------------------------------- weights and rounds

    def _report(self, report: ev.Report, now: float) -> Effects:
        job = self._job
        if job is None or job.recovery.is_void(report):
            return []
        match report:
            case ev.Contributed():
                if report.refusal:
                    job.dealing.epochs.refuse(report.rank, report.round)
                if not job.rule.gathers:
                    return []
                job.rounds.contribute(report)
                return self._close_round(job, now)
            case ev.Staged():
                return self._staged(job, report, now)
            case ev.OrderHandled():
                return self._handled(job, report, now)
            case ev.CaughtUp():
                return self._caught_up(job, report, now)

    def _staged(self, job: _Job, report: ev.Staged, now: float) -> Effects:
        if job.sealed or self._ended is not None:
            return []
        shards = job.staged.setdefault(report.initialiser, set())
        shards.add(report.shard)
        if len(shards) < self._shards:
            return []
        job.sealed = self._has_news = True
        job.staged.clear()
        self._orders += 1
        sealed = ev.Ordered(ev.Sealed(self._orders, report.initialiser))
        return [sealed, *self._cut(job, now), *self._close_round(job, now)]

    def _close_round(self, job: _Job, now: float) -> Effects:
        if not job.members.started or not job.sealed or self._ended is not None:
            return []
        if job.recovery.is_interrupted:
            return []
        if job.rounds.surely_lacks(job.members.required_count):
            return []
        closed = job.rounds.close(job.members.required())
        if closed is None:
            return []
        self._orders += 1
        effects: Effects = [ev.Noted(closed.remark)] if closed.remark else []
        effects.append(ev.Ordered(ev.RoundClosed(self._orders, closed.number, closed.ranks)))
        return effects + self._cut_if_due(job, now)

    # ------------------------------------------------------------------------ checkpoints and generations

    def _cut_if_due(self, job: _Job, now: float) -> Effects:
        due = job.sealed and self._ended is None and job.recovery.is_due(now, job.updates())
        return self._cut(job, now) if due else []

    def _cut(self, job: _Job, now: float) -> Effects:
        if not self._recovers:
            return []
        self._orders += 1
        return [ev.Ordered(ev.CutOrdered(self._orders, job.recovery.cut(now, job.updates())))]

    def _checkpoint_kept(self, event: ev.CheckpointKept) -> Effects:
        if event.kept is None:
            self._is_final_kept = self._has_news = True
            return []
        self._has_news = self._known_job().recovery.keep(event.kept)
        if self._has_news:
            self._log.trim(event.kept.checkpoint)
        return []

    def _checkpoint_failed(self, event: ev.CheckpointFailed) -> Effects:
        self._known_job().recovery.fail(event.checkpoint)
        return [ev.Noted(f"Checkpoint {event.checkpoint} could not be kept. {event.reason}")]

    def _server_lost(self, event: ev.ServerLost, now: float) -> Effects:
        job, what = self._job, f"Server {event.server} was lost: {event.reason}"
        if not self._recovers:
            return self._end(what)
        self._servers.pop(event.server, None)
        if job is None or self._ended or (self._ended is not None and self._is_final_kept):
            return []
        if not (job.recovery.can_begin or self.has_journal):
            return self._end(f"{what} There was no checkpoint yet.")
        if not job.recovery.lose(event.server, now):
            restarts = job.spec.restarts_max
            return self._end(f"The job gave up: server {event.server} needed more than {restarts} restarts.")
        self._has_gap = self._has_gap or job.recovery.is_going_back
        if not self.has_journal:
            self._ended = None
        self._wake_at = None
        return [ev.Noted(f"{what} The job waits {_patience(job.spec):g} s for it to come back.")]

    def _server_up(self, event: ev.ServerRegistered, now: float) -> Effects:
        self._servers[event.server] = event
        job = self._job
        if job is None:
            return []
        missed = self._log.missing(event.orders) if event.orders is not None else None
        effects: Effects = list(missed or [])
        if not job.recovery.find(event.server):
            self._has_gap = self._has_gap or (missed is None and job.recovery.is_interrupted)
            return effects
        has_gap, self._has_gap = self._has_gap or missed is None, False
        if not has_gap:
            return effects + self._resume(job, now)
        if self._ended is not None:
            return effects
        if not job.recovery.can_begin:
            return self._end(f"Server {event.server} came back without its journal, and had no checkpoint.")
        return self._begin_generation(job, now)

    def _resume(self, job: _Job, now: float) -> Effects:
        """Go on where the job was: the servers that were away know again what they were."""
        all_there = job.recovery.resume(self._log.last_reported())
        job.members.grant_fresh_leases(now + self._grace_seconds)
        self._grace_seconds, self._has_news = 0.0, True
        note = ev.Noted("All servers are there. The job goes on where it was.")
        return [note, *(self._go_on(job, now) if all_there else [])]

    def _begin_generation(self, job: _Job, now: float) -> Effects:
        self._orders += 1
        kept = job.recovery.begin(self._orders)
        clocks = kept.clocks
        if job.rule.gathers:  # what was gathered of the open round is void
            clocks = {rank: min(clock, kept.rounds) for rank, clock in clocks.items()}
        job.dealing.lose(job.rounds_closed())
        job.members.revive(clocks, now, self._grace_seconds)
        self._grace_seconds, self._has_news = 0.0, True
        job.rounds = Rounds(job.rule, self._shards, kept.rounds)
        waiting = job.joins.take_all()
        job.joins = Joins(self._shards)
        for request, replica in waiting:
            job.joins.hold(request, replica)
        generation = job.recovery.generation
        effects: Effects = [
            ev.Noted(
                f"All servers are there. The job goes on from checkpoint {kept.checkpoint}, "
                f"as generation {generation}."
            )
        ]
        for shard in range(self._shards):
            order = ev.GenerationBegun(
                self._orders,
                generation,
                job.spec,
                tuple(part for part in job.placement if part.shard == shard),
                job.members.members(),
                job.members.started,
                job.spec.replicas,
                kept.checkpoint,
            )
            effects.append(ev.Ordered(order, shard))
        return effects

    def _go_on(self, job: _Job, now: float) -> Effects:
        """Answer those who waited for the job to go on everywhere."""
        here = {member.rank: job.recovery.clocks(member.rank) for member in job.members.members()}
        if job.recovery.goes_back:
            job.dealing.roll_back({rank: min(clocks) for rank, clocks in here.items() if clocks})
        for member in job.members.members():
            replica = ev.Replica(member.rank, member.incarnation)
            clocks = here[member.rank]
            # Whoever has come since waits for the order that announces it.
            if clocks and not job.joins.knows(replica):
                furthest = member.late and not job.recovery.goes_back
                job.joins.begins(replica, max(clocks) if furthest else min(clocks))
        effects: Effects = []
        for request, replica in job.joins.take_held():
            clock = job.joins.repeat(request, replica)
            if clock is not None:
                effects.append(self._granted(job, request, replica, clock))
        effects += self._admit(job)
        return effects + self._close_round(job, now) + self._end_if_done(job)

    def _remember(self) -> Effects:
        """Ask to write down what has changed, before anybody hears of it."""
        job, has_news = self._job, self._has_news
        self._has_news = False
        if not has_news or job is None or not self._recovers:
            return []
        recovery, members = job.recovery, job.members.records()
        return [
            ev.Remember(
                ev.JobRecord(
                    job.spec,
                    recovery.generation,
                    self._orders,
                    job.sealed,
                    members,
                    recovery.kept,
                    recovery.cuts,
                    self._ended == "" and self._is_final_kept,
                    tuple(self._scores),
                    dealt=job.dealing.epochs.record(),
                    rounds=job.rounds.closed,
                    begins=job.rounds.begins(),
                    leavers=job.rounds.leavers(),
                    gone=job.dealing.leaving(),
                    ended=self._ended,
                )
            )
        ]

    # ------------------------------------------------------------------------------------------- the rest

    def _order_membership(self, job: _Job, rank: int) -> Effects:
        """Tell every shard how a rank stands; while a server is lost, its next generation says so."""
        self._has_news = True
        if job.recovery.waits:
            return []
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
        is_interrupted = job.recovery.is_interrupted  # nobody expires then, so only a lost server can be late
        if deadline is not None and not is_interrupted:
            times.append(deadline)
        overdue = job.recovery.next_deadline(_patience(job.spec))
        if overdue is not None:
            times.append(overdue)
        if not ((job.members.started and job.sealed) or is_interrupted):
            times.append(job.fixed_at + job.spec.start_timeout_seconds)
        self._wake_at = max(now, min(times))
        return [ev.WakeAt(self._wake_at)]

    def _status(self, now: float) -> ev.JobStatus:
        job = self._job
        return ev.JobStatus(
            job.spec if job else None,
            job.recovery.generation if job else 0,
            tuple(self._servers[index] for index in sorted(self._servers)),
            self._servers_expected,
            job.members.started if job else False,
            job.sealed if job else False,
            self._ended is not None,
            self._ended or "",
            job.rounds.closed if job else 0,
            job.members.statuses(now) if job else (),
            tuple(self._scores),
            job.dealing.visits(job.rounds_closed()) if job else (),
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


def _patience(spec: ev.JobSpec) -> float:
    """Return how long a lost server is waited for, in seconds."""
    return spec.lease_seconds + spec.restart_timeout_seconds
