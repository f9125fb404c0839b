"""One owner of some rows of some tensors: weights, optimizer state, clocks, waiting pulls.

To the next editor: this is a state machine with one door, `Shard.handle`. It never waits; a pull that must
wait is parked as data and answered by the event that moves the frontier. It is deterministic: the same events
give the same effects and the same bytes, on any clock, which is what replay and simulation stand on. A
request that is refused has changed nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from paramserver import events as ev
from paramserver.consistency import Consistency, parse_consistency
from paramserver.errors import Fault, RequestError
from paramserver.optim import build_optimizer
from paramserver.parking import NOT_BEFORE_START, Parked, ParkingLot
from paramserver.placement import slice_shape
from paramserver.roll import Roll
from paramserver.types import Empty, empty
from paramserver.weights import Gradients, Weights

Effects = list[ev.ShardEffect]


class Shard:
    """The state machine of one shard.

    Args:
        index: the shard's number within the job, from 0.
        empty: makes the arrays that new weights are written to.
    """

    def __init__(self, index: int, empty: Empty = empty) -> None:
        self.index = index
        self._empty = empty
        self._orders = 0
        self._job: ev.JobSpec | None = None
        self._rule: Consistency | None = None
        self._weights: Weights | None = None
        self._ended: str | None = None
        self._started = False
        self._expected = 0
        self._roll = Roll(index)
        self._clocks = self._roll.clocks
        self._round: dict[int, ev.PushReceived] = {}  # the open round's gradients, by rank
        self._parked = ParkingLot()
        self._pushes: Counter[str] = Counter()
        self._staleness: Counter[int] = Counter()

    def handle(self, event: ev.ShardEvent, now: float) -> Effects:
        """Take one event in and return what is to be done about it, in order.

        Args:
            event: an order, or a request of a replica or an observer.
            now: seconds, never decreasing.

        Returns:
            Effects; each request is answered by exactly one of them, now or (a parked pull) later.
        """
        try:
            match event:
                case ev.PullReceived():
                    return self._pull(event, now)
                case ev.PushReceived():
                    return self._push(event)
                case ev.PullCancelled():
                    self._parked.remove(event.request)
                    return []
                case ev.WaitAsked():
                    parked = self._parked.get(event.request)
                    return [self._why(parked)] if parked else []
                case ev.InitialiseReceived():
                    return self._initialise(event)
                case ev.CutAsked():
                    return [ev.CutTaken(event.request, self._cut())]
                case ev.ReportsAsked():
                    return self._report_again()
                case ev.GenerationBegun():
                    return self._begin_generation(event)
                case _:
                    return self._obey(event)
        except RequestError as error:
            if isinstance(event, ev.Order | ev.ReportsAsked):
                raise
            return [ev.Refused.of(event.request, error)]

    @property
    def knows_its_job(self) -> bool:
        """Say whether there is a job here, announced or gone on with."""
        return self._rule is not None

    def statistics(self) -> ev.ShardStatistics:
        """Return how the shard stands, for people."""
        newest = self._weights.newest if self._weights and self._weights.sealed else None
        return ev.ShardStatistics(
            self.index,
            newest.version if newest else 0,
            newest.rounds if newest else 0,
            sum(value.nbytes for value in newest.values.values()) if newest else 0,
            tuple((parked.replica.rank, self._why(parked)) for parked in self._parked),
            dict(self._pushes),
            dict(self._staleness),
        )

    def record(self) -> ev.ShardRecord | None:
        """Return what this shard is beside its weights; None before the job is announced."""
        if self._weights is None or self._job is None:
            return None
        sealed = self._weights.sealed
        return ev.ShardRecord(
            job=self._job,
            slices=tuple(self._weights.shapes),
            generation=self._roll.generation,
            orders=self._orders,
            started=self._started,
            expected=self._expected,
            ended=self._ended,
            version=self._weights.newest.version if sealed else 0,
            rounds=self._weights.rounds,
            members=self._roll.members(),
            clocks=self._clocks.as_dict(),
            begun=self._roll.begun(),
            verdicts=self._roll.verdicts(),
            gathered=tuple(self._round.values()),
            waiting=tuple((parked.pull, parked.since) for parked in self._parked),
            pushes={name: count for name, count in self._pushes.items() if count},
            staleness=dict(self._staleness),
        )

    def resume(self, record: ev.ShardRecord, cut: ev.Cut) -> None:
        """Become what another shard was; this one must be new.

        Args:
            record: of that shard, when it made the cut.
            cut: its weights and optimizer state.
        """
        self._announce(record.job, record.slices)
        self._known_weights().restore(cut)
        self._orders, self._ended = record.orders, record.ended
        self._started, self._expected = record.started, record.expected
        self._roll = Roll(self.index, record.generation)
        self._roll.restore(record.clocks, record.verdicts, record.members, record.begun)
        self._clocks = self._roll.clocks
        self._round = {push.replica.rank: push for push in record.gathered}
        self._pushes.update(record.pushes)
        self._staleness.update(record.staleness)
        for pull, since in record.waiting:
            assert pull.replica is not None, "an observer never waits"
            needs = self._known_rule().needs(pull.clock) if self._is_open() else NOT_BEFORE_START
            self._parked.park(Parked(pull, pull.replica, needs, since))

    # ------------------------------------------------------------------------------------------- orders

    def _obey(self, order: ev.Order) -> Effects:
        # A job may fail while a server is lost, so its end may come to a shard that has missed orders.
        failed = isinstance(order, ev.JobEnded) and order.reason
        if order.number != self._orders + 1 and not failed:
            raise AssertionError(f"Order {order.number} came to shard {self.index} after {self._orders}.")
        self._orders = order.number
        clocks: dict[int, int] = {}
        effects: Effects = []
        match order:
            case ev.JobAnnounced():
                self._announce(order.job, order.slices)
            case ev.MembershipChanged():
                effects = self._change_membership(order)
                clocks = {member.rank: self._clocks[member.rank] for member in order.members}
            case ev.Sealed():
                self._known_weights().seal(order.initialiser)
                effects = self._open()
            case ev.RoundClosed():
                return self._close_round(order)
            case ev.CutOrdered():
                effects = [ev.CutMade(order.checkpoint, self._cut())]
            case ev.JobEnded():
                self._ended = order.reason
                effects = [ev.Ended(parked.pull.request, order.reason) for parked in self._parked.empty()]
        return [*effects, ev.Reported(ev.OrderHandled(self.index, order.number, clocks))]

    def _begin_generation(self, order: ev.GenerationBegun) -> Effects:
        """Become what the shard was at a checkpoint, or at first; whoever waits here has to begin anew."""
        cut = order.cut
        if cut is None and order.checkpoint is not None:
            raise AssertionError(f"Generation {order.generation} came to shard {self.index} without its cut.")
        waiting = self._parked.empty()
        self._orders, self._ended = order.number, None
        self._started, self._expected = order.started, order.expected
        self._round.clear()
        self._announce(order.job, order.slices)
        weights, rule = self._known_weights(), self._known_rule()
        clocks: dict[int, int] = {}
        verdicts: dict[int, tuple[int, ev.Verdict]] = {}
        if cut is not None:
            weights.restore(cut)
            clocks, verdicts = dict(cut.clocks), dict(cut.verdicts)
        if rule.gathers:  # the open round is gathered anew
            clocks = {rank: min(clock, weights.rounds) for rank, clock in clocks.items()}
            verdicts = {rank: last for rank, last in verdicts.items() if last[0] < weights.rounds}
        self._roll = Roll(self.index, order.generation)
        # Who had not joined yet when the cut was made begins with the others.
        begins = weights.rounds if rule.gathers else min(clocks.values(), default=0)
        clocks = {member.rank: clocks.get(member.rank, begins) for member in order.members}
        self._roll.restore(clocks, verdicts, order.members)
        self._clocks = self._roll.clocks
        effects: Effects = []
        for parked in waiting:
            fenced = self._roll.check(parked.replica, parked.pull.generation)
            assert fenced is not None, "every earlier generation is void"
            request = parked.pull.request
            effects.append(ev.PullFenced(request, fenced.generation, fenced.clock, fenced.reason))
        here = {member.rank: self._clocks[member.rank] for member in order.members}
        return [*effects, ev.Reported(ev.OrderHandled(self.index, order.number, here))]

    def _announce(self, job: ev.JobSpec, slices: Iterable[ev.Slice]) -> None:
        self._job = job
        shapes = {tensor.key: tensor.shape for tensor in job.tensors}
        self._rule = parse_consistency(job.consistency)
        self._weights = Weights(
            {part: slice_shape(shapes[part.key], part) for part in slices},
            build_optimizer(job.optimizer, job.learning_rate, job.schedule, job.versions_total),
            # Two, so that an observer finds one round on all shards while the next is being applied.
            versions_kept=2 if self._rule.gathers else 1,
            empty=self._empty,
            tables=[tensor.key for tensor in job.tensors if tensor.table],
        )

    def _change_membership(self, order: ev.MembershipChanged) -> Effects:
        begins = self._known_rule().begins(self._known_weights().rounds, self._clocks.slowest())
        self._roll.change(order.members, begins)
        just_started = order.started and not self._started
        self._started, self._expected = order.started, order.expected
        effects = self._fence_parked({member.rank for member in order.members})
        return effects + (self._open() if just_started else self._wake())

    def _fence_parked(self, ranks: set[int]) -> Effects:
        """Answer the parked pulls of replicas that an order has made to count no more."""
        effects: Effects = []
        for parked in self._parked:
            if parked.replica.rank not in ranks:
                continue
            request = parked.pull.request
            try:
                fenced = self._roll.check(parked.replica, parked.pull.generation)
            except RequestError as error:
                self._parked.remove(request)
                effects.append(ev.Refused.of(request, error))
                continue
            if fenced:
                self._parked.remove(request)
                effects.append(ev.PullFenced(request, fenced.generation, fenced.clock, fenced.reason))
        return effects

    def _close_round(self, order: ev.RoundClosed) -> Effects:
        weights = self._known_weights()
        pushes = {rank: self._round[rank] for rank in order.ranks}
        weights.close_round([_leaf(pushes.get(rank)) for rank in range(max(pushes, default=-1) + 1)])
        for rank, push in self._round.items():
            verdict = _round_verdict(order.round, push, weights.newest.version, rank in pushes)
            self._roll.pushed(push, verdict)
            self._count(verdict)
            self._pushes[ev.Outcome.BUFFERED.value] -= 1
        self._round.clear()
        return self._wake()

    # ------------------------------------------------------------------------------------ initialise, pull

    def _initialise(self, event: ev.InitialiseReceived) -> Effects:
        weights = self._known_weights()
        weights.check("Initialise", event.values)
        if weights.sealed:
            return [ev.InitialiseAnswered(event.request, adopted=True)]
        weights.stage(event.initialiser, event.values)
        return [
            ev.InitialiseAnswered(event.request, adopted=False),
            ev.Reported(ev.Staged(self.index, event.initialiser)),
        ]

    def _pull(self, event: ev.PullReceived, now: float) -> Effects:
        if event.replica is None:
            return [self._observed(event)]
        if self._ended is not None:
            return [ev.Ended(event.request, self._ended)]
        rule, replica = self._known_rule(), event.replica
        self._known_weights().check_rows(event.rows)
        fenced = self._roll.check(replica, event.generation)
        if fenced:
            return [ev.PullFenced(event.request, fenced.generation, fenced.clock, fenced.reason)]
        self._roll.pulls(replica, event.clock)
        needs = rule.needs(event.clock) if self._is_open() else NOT_BEFORE_START
        parked = Parked(event, replica, needs, now)
        if needs <= self._frontier():
            # A newcomer's first pull may have moved the slowest clock, so others may read now, too.
            return [self._granted(parked), *self._wake()]
        self._parked.park(parked)
        return [self._why(parked), *self._wake()]

    def _observed(self, event: ev.PullReceived) -> ev.ShardEffect:
        """Answer an observer at once: it is never counted and never parked."""
        if self._weights is None or not self._weights.sealed:
            return ev.Unavailable(event.request, "The job has no weights yet: nobody has initialised them.")
        self._weights.check_rows(event.rows)
        kept = self._weights.kept
        if event.round is None:
            # That a round could be closed shows that every shard had the one before.
            newest = kept[-1] if self._ended is not None else kept[0]
            return ev.PullGranted(event.request, newest, rows=event.rows)
        for snapshot in kept:
            if snapshot.rounds == event.round:
                return ev.PullGranted(event.request, snapshot, rows=event.rows)
        raise RequestError(
            f"Shard {self.index} keeps the weights after round {' and '.join(str(s.rounds) for s in kept)}, "
            f"not those after round {event.round}. Pull without a round to learn the newest.",
            Fault.OUT_OF_RANGE,
        )

    def _granted(self, parked: Parked) -> ev.PullGranted:
        rank, clock = parked.replica.rank, parked.pull.clock
        decided = self._roll.verdict(rank, clock - 1) if self._known_rule().gathers else None
        slowest = self._clocks.slowest()
        gap = 0 if slowest is None else clock - slowest
        pull, newest = parked.pull, self._known_weights().newest
        return ev.PullGranted(pull.request, newest, gap, decided, pull.rows)

    def _why(self, parked: Parked) -> ev.PullParked:
        request = parked.pull.request
        if not self._started:
            joined = self._clocks.live_count()
            because = f"the job begins when {self._expected} replicas have joined; so far it is {joined}"
            return ev.PullParked(request, (), because, parked.since)
        if not self._is_open():
            because = "the job begins when a replica has initialised the weights"
            return ev.PullParked(request, (), because, parked.since, wants_weights=True)
        laggards, others = self._clocks.laggards(parked.needs)
        because = self._known_rule().because(parked.pull.clock)
        if not laggards:
            because += f"; shard {self.index} has all of its gradients, so the coordinator is next"
        return ev.PullParked(request, laggards, because, parked.since, others)

    def _open(self) -> Effects:
        """Give the pulls that came before the start their real need."""
        if not self._is_open():
            return []
        for parked in self._parked:
            self._parked.need_again(parked, self._known_rule().needs(parked.pull.clock))
        return self._wake()

    def _wake(self) -> Effects:
        """Grant the parked pulls whose need the frontier has reached."""
        if not self._parked:
            return []
        return [self._granted(parked) for parked in self._parked.wake(self._frontier())]

    # ---------------------------------------------------------------------------------------------- push

    def _push(self, push: ev.PushReceived) -> Effects:
        if self._ended is not None:
            return [ev.Ended(push.request, self._ended)]
        rank, weights = push.replica.rank, self._known_weights()
        verdict = (
            self._roll.applied(push)  # whoever it was: it is not done again, and has to know that it was
            or self._roll.check(push.replica, push.generation)
            or self._roll.repeated(push)
        )
        if verdict:
            self._pushes["duplicate" if verdict.duplicate else verdict.outcome.value] += 1
            return [ev.PushAnswered(push.request, verdict)]
        self._check_push(push)
        gathers = self._known_rule().gathers
        before = weights.newest.version
        if gathers:
            verdict = self._gather(push)
        elif push.refusal:
            verdict = ev.Verdict(ev.Outcome.DROPPED, reason=push.refusal)
        else:
            weights.update(push.gradients)
            verdict = ev.Verdict(ev.Outcome.APPLIED, before + 1, staleness=before - push.version)
        self._roll.pushed(push, verdict)
        self._count(verdict)
        effects: Effects = [ev.PushAnswered(push.request, verdict)]
        if gathers or push.refusal:
            report = ev.Contributed(self.index, push.sequence, rank, push.samples, push.refusal)
            effects.append(ev.Reported(report))
        return effects + self._wake()

    def _gather(self, push: ev.PushReceived) -> ev.Verdict:
        newest = self._known_weights().newest
        self._round[push.replica.rank] = push
        missing, others = self._clocks.laggards(newest.rounds + 1)
        here = len(self._round)
        expected = here + len(missing) + others - self._clocks.is_live(push.replica.rank)
        return ev.Verdict(
            ev.Outcome.BUFFERED, newest.version, round=newest.rounds, contributed=here, expected=expected
        )

    def _check_push(self, push: ev.PushReceived) -> None:
        weights, who = self._known_weights(), f"Replica {push.replica.rank}"
        version = weights.newest.version
        if not self._started:
            raise RequestError(
                f"{who} pushes before all replicas have joined. Pull first.", Fault.PRECONDITION
            )
        expected = self._clocks[push.replica.rank]
        if self._known_rule().gathers:
            expected = min(expected, weights.rounds)
        if push.sequence != expected:
            raise RequestError(
                f"{who} pushes sequence {push.sequence}, but shard {self.index} expects {expected}. "
                "Pull at your clock before each push, and push each step on every shard.",
                Fault.PRECONDITION,
            )
        if push.version < 0:
            raise RequestError(f"{who} says version {push.version}; a version is 0 or more.")
        if push.version > version:
            raise RequestError(
                f"{who} says that its gradient was computed at version {push.version}, but shard "
                f"{self.index} is at version {version}. Repeat the version that the pull gave.",
                Fault.OUT_OF_RANGE,
            )
        if push.refusal:
            return
        if push.samples < 1:
            raise RequestError(f"{who} says {push.samples} samples; a gradient is the mean over at least 1.")
        weights.check(f"The gradient of replica {push.replica.rank}", push.gradients)

    # --------------------------------------------------------------------------------------------- the rest

    def _report_again(self) -> Effects:
        """Report what this shard has; a coordinator that has heard it before learns nothing new."""
        staged = self._weights.staged if self._weights is not None else ()
        reports: list[ev.Report] = [ev.Staged(self.index, initialiser) for initialiser in staged]
        reports += [
            ev.Contributed(self.index, push.sequence, rank, push.samples, push.refusal)
            for rank, push in self._round.items()
        ]
        reports.append(ev.CaughtUp(self.index, self._orders, self._clocks.as_dict()))
        return [ev.Reported(report) for report in reports]

    def _cut(self) -> ev.Cut:
        weights = self._known_weights()
        clocks, verdicts = self._clocks.as_dict(), self._roll.verdicts()
        return ev.Cut(self.index, weights.newest, weights.copy_state(), clocks, verdicts)

    def _count(self, verdict: ev.Verdict) -> None:
        self._pushes[verdict.outcome.value] += 1
        if verdict.outcome is ev.Outcome.APPLIED:
            self._staleness[verdict.staleness] += 1

    def _is_open(self) -> bool:
        return self._started and self._known_weights().sealed

    def _frontier(self) -> int:
        return self._known_rule().frontier(self._known_weights().rounds, self._clocks.slowest())

    def _known_rule(self) -> Consistency:
        if self._rule is None:
            raise RequestError("There is no job here yet. Join first.", Fault.PRECONDITION)
        return self._rule

    def _known_weights(self) -> Weights:
        if self._weights is None:
            raise RequestError("There is no job here yet. Join first.", Fault.PRECONDITION)
        return self._weights


def _leaf(push: ev.PushReceived | None) -> tuple[Gradients, int] | None:
    return None if push is None else (push.gradients, push.samples)


def _round_verdict(closed: int, push: ev.PushReceived, version: int, applied: bool) -> ev.Verdict:
    if applied:
        staleness = version - 1 - push.version
        return ev.Verdict(ev.Outcome.APPLIED, version, staleness, round=closed)
    reason = push.refusal or (
        f"Round {closed} was closed without replica {push.replica.rank}: "
        "its gradient was refused by a shard, or did not reach them all."
    )
    return ev.Verdict(ev.Outcome.DROPPED, round=closed, reason=reason)
