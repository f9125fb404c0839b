"""Judge one shard: a small model of what it may answer, kept beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paramserver import events as ev
from paramserver.accounting import staleness_bound
from paramserver.audit.violation import Violation
from paramserver.consistency import Consistency, parse_consistency
from paramserver.errors import JobError

_DECIDES = (ev.Outcome.APPLIED, ev.Outcome.BUFFERED, ev.Outcome.DROPPED)


class ShardAudit:
    """The auditor of one shard, during one generation.

    Args:
        index: the shard's number.

    Attributes:
        applied: of each rank the sequences that have changed the weights.
        version: applied updates.
        rounds: closed rounds (synchronous mode).
        orders: handled orders.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.applied: dict[int, set[int]] = {}
        self.version = self.rounds = self.orders = 0
        self._rule: Consistency | None = None
        self._started = self._sealed = self._ended = False
        self._expected = 0
        self._steady = True  # nobody has died or come late, so the bound on staleness holds
        self._members: dict[int, ev.Member] = {}
        self._clocks: dict[int, int] = {}
        self._begun: dict[int, int] = {}  # rank -> the incarnation that has pulled
        self._open: dict[int, tuple[int, int, str]] = {}  # the open round: rank -> sequence, version, refusal
        self._last: dict[int, tuple[int, ev.Verdict]] = {}  # rank -> its last push and what became of it
        self._reads: dict[int, tuple[ev.Replica, int, frozenset[int]]] = {}  # rank -> who, clock, versions
        self._waiting: dict[int, ev.PullReceived] = {}
        self._found: list[Violation] = []

    def observe(self, event: ev.ShardEvent, effects: Sequence[ev.ShardEffect]) -> list[Violation]:
        """Judge what the shard made of one event.

        Args:
            event: what it was told.
            effects: what it returned, in order.

        Returns:
            What is wrong; usually nothing.

        Raises:
            JobError: a generation begins, of which the checkpoint would have to be known.
        """
        self._found = []
        asked = set() if isinstance(event, ev.Order | ev.ReportsAsked) else {event.request}
        if isinstance(event, ev.Order):
            self._obey(event, effects)
        elif isinstance(event, ev.PullCancelled | ev.WaitAsked):
            asked = set()
            if isinstance(event, ev.PullCancelled):
                self._waiting.pop(event.request, None)
        for effect in effects:
            if not isinstance(effect, ev.Reported | ev.CutMade):
                pull = self._waiting.get(effect.request)
                if effect.request not in asked and pull is None:
                    self._say("answer", f"request {effect.request} is answered, but nobody waits for it")
                    continue
                asked.discard(effect.request)
                if not isinstance(effect, ev.PullParked):
                    self._waiting.pop(effect.request, None)
                self._answered(event, pull, effect)
        if asked:
            self._say("answer", f"{event} is not answered")
        self._check_waiting()
        return self._found

    # ------------------------------------------------------------------------------------------- orders

    def _obey(self, order: ev.Order, effects: Sequence[ev.ShardEffect]) -> None:
        if order.number != self.orders + 1:
            self._say("order", f"order {order.number} comes after {self.orders}")
        self.orders = order.number
        handled = [
            effect.report.number
            for effect in effects
            if isinstance(effect, ev.Reported) and isinstance(effect.report, ev.OrderHandled)
        ]
        if handled != ([] if isinstance(order, ev.RoundClosed) else [order.number]):
            self._say("order", f"order {order.number} is handled, but {handled or 'nothing'} is reported")
        match order:
            case ev.JobAnnounced():
                self._rule = parse_consistency(order.job.consistency)
                self._bound = staleness_bound(order.job.consistency, order.job.replicas)
            case ev.MembershipChanged():
                self._change(order)
            case ev.Sealed():
                self._sealed = True
            case ev.RoundClosed():
                self._close(order)
            case ev.JobEnded():
                self._ended = True
            case ev.GenerationBegun():
                raise JobError(f"An auditor judges one generation; here begins {order.generation}.")

    def _change(self, order: ev.MembershipChanged) -> None:
        self._started, self._expected = order.started, order.expected
        for member in order.members:
            before = self._members.get(member.rank)
            if member.live and (before is None or not before.live):
                begins = self._begins() if member.late else 0
                self._clocks[member.rank] = max(begins, self._clocks.get(member.rank, 0))
            self._steady &= member.incarnation == 1 and not member.late
            self._members[member.rank] = member

    def _begins(self) -> int:
        slowest = self._slowest()
        if self._gathers:
            return self.rounds + (slowest is not None)
        return slowest or 0

    def _close(self, order: ev.RoundClosed) -> None:
        if order.round != self.rounds:
            self._say("round", f"round {order.round} is closed after {self.rounds} rounds", round=order.round)
        strangers = [rank for rank in order.ranks if self._open.get(rank, (0, 0, "x"))[2]]
        if strangers:
            self._say("round", f"round {order.round} has no gradient of ranks {strangers}", round=order.round)
        self.rounds += 1
        self.version += bool(order.ranks)
        for rank, (sequence, version, refusal) in self._open.items():
            verdict = ev.Verdict(ev.Outcome.DROPPED, round=order.round, reason=refusal)
            if rank in order.ranks:
                self._apply(rank, sequence)
                stale = self.version - 1 - version
                verdict = ev.Verdict(ev.Outcome.APPLIED, self.version, stale, round=order.round)
                if stale:
                    self._say("staleness", f"a round's gradient has staleness {stale}, not 0", rank=rank)
            self._last[rank] = (sequence, verdict)
        self._open.clear()

    # ------------------------------------------------------------------------------------------- answers

    def _answered(self, event: ev.ShardEvent, pull: ev.PullReceived | None, effect: ev.ShardEffect) -> None:
        if pull is None and isinstance(event, ev.PullReceived):
            pull = event
        observes = pull is not None and pull.replica is None
        goes_on = isinstance(effect, ev.PullGranted | ev.PullParked | ev.PushAnswered)
        if self._ended and goes_on and not observes:
            self._say("answer", f"{type(effect).__name__} after the end of the job")
        match effect:
            case ev.PullGranted() if pull is not None:
                self._granted(pull, effect)
            case ev.PullParked() if pull is not None and isinstance(event, ev.PullReceived):
                self._begin(pull)
                self._waiting[effect.request] = pull
            case ev.PullFenced() if pull is not None:
                self._fenced(pull.replica, effect.clock)
            case ev.PushAnswered() if isinstance(event, ev.PushReceived):
                self._pushed(event, effect.verdict)

    def _begin(self, pull: ev.PullReceived) -> None:
        """A newcomer's first pull says where it begins."""
        replica = pull.replica
        if replica is None or self._begun.get(replica.rank) == replica.incarnation:
            return
        self._begun[replica.rank] = replica.incarnation
        if self._counts(replica) and self._members[replica.rank].late:
            self._clocks[replica.rank] = max(self._clocks[replica.rank], pull.clock)

    def _granted(self, pull: ev.PullReceived, effect: ev.PullGranted) -> None:
        replica, snapshot = pull.replica, effect.snapshot
        if replica is None:
            if snapshot.version > self.version:
                self._say("version", f"an observer reads version {snapshot.version} of {self.version}")
            return
        self._begin(pull)
        rank, who = replica.rank, f"replica {replica.rank} at clock {pull.clock}"
        if not self._counts(replica):
            self._say("fence", f"{who} reads, but its incarnation counts no more", rank)
        if (snapshot.version, snapshot.rounds) != (self.version, self.rounds):
            found = f"version {snapshot.version} after {snapshot.rounds} rounds"
            newest = f"version {self.version} after {self.rounds}"
            self._say("version", f"{who} reads {found}; the newest is {newest}", rank)
        own = self._clocks.get(rank, 0)
        if not self._may_read(pull) or pull.clock > own:
            self._say("read", f"{who} reads too early: {self._standing()}", rank)
        if self._gathers and pull.clock >= own and self.rounds > pull.clock:
            self._say("read", f"{who} reads a round that it is part of: {self._standing()}", rank)
        slowest = self._slowest()
        gap = 0 if slowest is None else pull.clock - slowest
        if effect.clock_gap != gap:
            self._say("read", f"{who} is told the clock gap {effect.clock_gap}, but it is {gap}", rank)
        sequence, verdict = self._last.get(rank, (-1, None))
        decided = verdict if self._gathers and sequence == pull.clock - 1 else None
        if _plain(effect.verdict) != _plain(decided):
            self._say("answer", f"{who} hears of its push '{effect.verdict}', not '{decided}'", rank)
        known = self._reads.get(rank, (replica, -1, frozenset[int]()))
        if known[0] == replica and known[1] > pull.clock:
            return  # a read that was sent before the newest one, and asked again
        versions = known[2] if known[:2] == (replica, pull.clock) else frozenset[int]()
        self._reads[rank] = (replica, pull.clock, versions | {snapshot.version})

    def _pushed(self, push: ev.PushReceived, verdict: ev.Verdict) -> None:
        rank, sequence = push.replica.rank, push.sequence
        who = f"push {sequence} of replica {rank}"
        clock = self._clocks.get(rank, 0)
        if verdict.outcome is ev.Outcome.FENCED:
            self._fenced(push.replica, verdict.clock)
            return
        # That a push was applied may be told to whoever asks, and to one that counts no more nothing else.
        repeats = verdict.duplicate and verdict.outcome is ev.Outcome.APPLIED
        if not self._counts(push.replica) and not repeats:
            self._say("fence", f"{who} is {verdict.outcome.value}, but its incarnation counts no more", rank)
        if verdict.duplicate:
            last, first = self._last.get(rank, (-1, None))
            if sequence >= clock:
                self._say("answer", f"{who} is called a duplicate, but it is new", rank)
            elif last == sequence and _plain(first) != _plain(verdict):
                self._say("answer", f"the repeated {who} is told '{verdict}', first it was '{first}'", rank)
            return
        if sequence < clock or sequence in self.applied.get(rank, ()):
            self._say("once", f"{who} has been here before, but is {verdict.outcome.value} again", rank)
        if sequence > (min(clock, self.rounds) if self._gathers else clock):
            self._say("once", f"{who} comes before its time: the clock is {clock}", rank)
        reader, at, versions = self._reads.get(rank, (None, -1, frozenset[int]()))
        if (reader, at) != (push.replica, sequence) or push.version not in versions:
            read = f"{sorted(versions)} at clock {at}"
            self._say(
                "staleness", f"{who} says it was made of version {push.version}, but it read {read}", rank
            )
        self._judge(push, verdict, who)
        self._clocks[rank] = max(clock, sequence + 1)
        self._last[rank] = (sequence, verdict)

    def _judge(self, push: ev.PushReceived, verdict: ev.Verdict, who: str) -> None:
        """Judge a first verdict, and note what it does."""
        rank, before = push.replica.rank, self.version
        expected: ev.Verdict
        if self._gathers:
            others = {
                other
                for other, member in self._members.items()
                if member.live and self._clocks[other] <= self.rounds and other != rank
            }
            self._open[rank] = (push.sequence, push.version, push.refusal)
            here = len(self._open)
            awaited = here + len(others)
            expected = ev.Verdict(
                ev.Outcome.BUFFERED, before, round=self.rounds, contributed=here, expected=awaited
            )
        elif push.refusal:
            expected = ev.Verdict(ev.Outcome.DROPPED)
        else:
            self.version += 1
            self._apply(rank, push.sequence)
            expected = ev.Verdict(ev.Outcome.APPLIED, before + 1, staleness=before - push.version)
            if self._steady and self._bound is not None and expected.staleness > self._bound:
                self._say("staleness", f"{who} has staleness {expected.staleness} above {self._bound}", rank)
        if _plain(verdict) != _plain(expected):
            wrong = "staleness" if verdict.staleness != expected.staleness else "answer"
            self._say(wrong, f"{who} is told '{verdict}', expected '{expected}'", rank)

    def _fenced(self, replica: ev.Replica | None, clock: int) -> None:
        if replica is None or self._counts(replica):
            self._say("fence", f"{replica} is fenced, but it counts")
        elif clock != self._clocks.get(replica.rank, 0):
            self._say("fence", f"{replica} is sent to clock {clock}, not to {self._clocks[replica.rank]}")

    def _apply(self, rank: int, sequence: int) -> None:
        done = self.applied.setdefault(rank, set())
        if sequence in done:
            self._say("once", f"push {sequence} of replica {rank} is applied twice", rank)
        done.add(sequence)

    # ------------------------------------------------------------------------------------------- the rules

    def _check_waiting(self) -> None:
        for pull in self._waiting.values():
            assert pull.replica is not None, "an observer is never parked"
            who = f"replica {pull.replica.rank} waits at clock {pull.clock}"
            if self._ended or not self._counts(pull.replica):
                self._say("wake", f"{who}, but the job is over or it counts no more", pull.replica.rank)
            elif self._may_read(pull):
                self._say("wake", f"{who} although it may read: {self._standing()}", pull.replica.rank)

    def _may_read(self, pull: ev.PullReceived) -> bool:
        if not (self._started and self._sealed) or self._rule is None:
            return False
        if self._gathers:
            return self.rounds >= pull.clock
        slowest = self._slowest()
        return self._rule.bound is None or slowest is None or slowest >= pull.clock - self._rule.bound

    @property
    def _gathers(self) -> bool:
        return self._rule is not None and self._rule.name == "sync"

    def _slowest(self) -> int | None:
        return min((self._clocks[rank] for rank, m in self._members.items() if m.live), default=None)

    def _counts(self, replica: ev.Replica) -> bool:
        member = self._members.get(replica.rank)
        return member is not None and member.live and member.incarnation == replica.incarnation

    def _standing(self) -> str:
        return f"{self._rule} after {self.rounds} rounds, clocks {self._clocks}"

    def _say(self, name: str, message: str, rank: int = -1, round: int = -1) -> None:
        self._found.append(Violation(name, f"Shard {self.index}: {message}.", self.index, rank, round))


def _plain(verdict: ev.Verdict | None) -> ev.Verdict | None:
    """Return a verdict without its phrases and without the mark of a repetition."""
    return verdict and replace(verdict, reason="", duplicate=False)
