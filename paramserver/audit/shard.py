"""Judge one shard: a small model of what it may answer, kept beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paramserver import events as ev
from paramserver.accounting import staleness_bound
from paramserver.audit.cuts import Cuts, State, plain
from paramserver.audit.violation import Violation
from paramserver.consistency import Consistency, parse_consistency


class ShardAudit:
    """The auditor of one shard, over all its generations and processes.

    Args:
        index: the shard's number.
        reports: the effects have the shard's reports to the coordinator; those of a journal have none.

    Attributes:
        applied: of each rank the sequences that have changed the weights, and are in them now.
        version: applied updates.
        rounds: closed rounds (synchronous mode).
        orders: the number of the last order that was handled.
        generation: of the weights.
        rolled_back: how many applied pushes became void when a generation began.
    """

    def __init__(self, index: int, *, reports: bool = True) -> None:
        self.index = index
        self.applied: dict[int, set[int]] = {}
        self.version = self.rounds = self.orders = self.generation = self.rolled_back = 0
        self._reports = reports
        self._rule: Consistency | None = None
        self._slices: tuple[ev.Slice, ...] = ()
        self._bound: int | None = None
        self._started = self._sealed = self._ended = False
        self._steady = True  # nobody has died or come late, so the bound on staleness holds
        self._members: dict[int, ev.Member] = {}
        self._clocks: dict[int, int] = {}
        self._begun: dict[int, int] = {}  # rank -> the incarnation that has pulled
        self._open: dict[int, tuple[int, int, str]] = {}  # the open round: rank -> sequence, version, refusal
        self._last: dict[int, tuple[int, ev.Verdict]] = {}  # rank -> its last push and what became of it
        self._reads: dict[int, tuple[ev.Replica, int, frozenset[int]]] = {}  # rank -> who, clock, versions
        self._waiting: dict[int, ev.PullReceived] = {}
        self._cuts = Cuts()
        self._read_before: set[int] = set()  # ranks whose newest read may be older than what is judged here
        self._found: list[Violation] = []

    def observe(self, event: ev.ShardEvent, effects: Sequence[ev.ShardEffect]) -> list[Violation]:
        """Judge what the shard made of one event.

        Args:
            event: what it was told.
            effects: what it returned, in order.

        Returns:
            What is wrong; usually nothing.
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
            self._say("answer", f"request {next(iter(asked))} ({type(event).__name__}) is not answered")
        self._check_waiting()
        return self._found

    def resume(self, record: ev.ShardRecord) -> None:
        """Begin in the middle: take the shard's word for what it is at this moment; this auditor is new.

        Args:
            record: of the shard.
        """
        self._know(record.job, record.slices)
        self.version, self.rounds, self.orders = record.version, record.rounds, record.orders
        self.generation = record.generation
        self._started, self._sealed, self._ended = record.started, True, record.ended is not None
        self._members = {member.rank: member for member in record.members}
        self._steady = _all_steady(record.members)
        self._clocks, self._last, self._begun = dict(record.clocks), dict(record.verdicts), dict(record.begun)
        self._open = {
            push.replica.rank: (push.sequence, push.version, push.refusal) for push in record.gathered
        }
        self._waiting = {pull.request: pull for pull, _ in record.waiting}
        self._read_before = set(self._members)

    def restart(self) -> None:
        """Note that the shard's process has ended, and nobody waits there any more."""
        self._waiting.clear()

    @property
    def state(self) -> State:
        """What the shard is now."""
        return State(self.version, self.rounds, dict(self._clocks), dict(self._last))

    @property
    def clocks(self) -> Mapping[int, int]:
        """Every rank's clock, as it is now and will be."""
        return self._clocks

    @property
    def members(self) -> Mapping[int, ev.Member]:
        """Every rank as the orders have said it, as it is now and will be."""
        return self._members

    @property
    def gathered(self) -> dict[int, bool]:
        """The ranks whose gradient of the open round is here, and whether it was refused."""
        return {rank: bool(refusal) for rank, (_, _, refusal) in self._open.items()}

    # ------------------------------------------------------------------------------------------- orders

    def _obey(self, order: ev.Order, effects: Sequence[ev.ShardEffect]) -> None:
        # A generation is told all there is to know, and a job may fail while a shard misses orders.
        skips = isinstance(order, ev.GenerationBegun) or (isinstance(order, ev.JobEnded) and order.reason)
        if order.number <= self.orders or (order.number > self.orders + 1 and not skips):
            self._say("order", f"order {order.number} comes after {self.orders}")
        self.orders = order.number
        handled = [
            effect.report.number
            for effect in effects
            if isinstance(effect, ev.Reported) and isinstance(effect.report, ev.OrderHandled)
        ]
        expected = [] if isinstance(order, ev.RoundClosed) else [order.number]
        if self._reports and handled != expected:
            self._say("order", f"order {order.number} is handled, but {handled or 'nothing'} is reported")
        match order:
            case ev.JobAnnounced():
                self._know(order.job, order.slices)
            case ev.MembershipChanged():
                self._change(order)
            case ev.Sealed():
                self._sealed = True
            case ev.RoundClosed():
                self._close(order)
            case ev.JobEnded():
                self._ended = True
            case ev.CutOrdered():
                self._cuts.make(order.checkpoint, self.state)
                for effect in effects:
                    if isinstance(effect, ev.CutMade):
                        self._check_cut(effect.cut, effect.checkpoint)
            case ev.GenerationBegun():
                self._go_back(order)

    def _know(self, job: ev.JobSpec, slices: tuple[ev.Slice, ...]) -> None:
        self._rule, self._slices = parse_consistency(job.consistency), slices
        self._bound = staleness_bound(job.consistency, job.replicas)

    def _go_back(self, order: ev.GenerationBegun) -> None:
        """Become what the shard was when it made its cut, or at first; what was applied since is void."""
        if order.generation <= self.generation:
            self._say("generation", f"generation {order.generation} begins after {self.generation}")
        cut = order.cut
        if order.checkpoint is None:
            cut = ev.Cut(self.index, ev.Snapshot(0, 0, {}), {}, {}, {})
        elif cut is None:
            self._say("generation", f"generation {order.generation} begins without a cut")
            return
        elif order.slices == self._slices:  # else it is put together of other shards' cuts
            self._check_cut(cut, order.checkpoint)
        self._know(order.job, order.slices)
        self.generation = order.generation
        self.version, self.rounds = cut.snapshot.version, cut.snapshot.rounds
        clocks, self._last = dict(cut.clocks), dict(cut.verdicts)
        if self._gathers:  # whoever was in the open round does it once more
            clocks = {rank: min(clock, self.rounds) for rank, clock in clocks.items()}
            self._last = {rank: last for rank, last in self._last.items() if last[0] < self.rounds}
        for rank, sequences in self.applied.items():
            void = {sequence for sequence in sequences if sequence >= clocks.get(rank, 0)}
            sequences -= void
            self.rolled_back += len(void)
        begins = self.rounds if self._gathers else min(clocks.values(), default=0)
        self._clocks = {member.rank: clocks.get(member.rank, begins) for member in order.members}
        if self._gathers:  # the open round is made of everyone who counts
            self._clocks |= {member.rank: begins for member in order.members if member.live}
        self._members = {member.rank: member for member in order.members}
        self._steady &= _all_steady(order.members)
        self._started, self._sealed, self._ended = order.started, order.checkpoint is not None, False
        self._open.clear()
        self._begun.clear()
        self._reads.clear()
        self._read_before.clear()

    def _check_cut(self, cut: ev.Cut, checkpoint: int) -> None:
        """See that a cut is what the shard was when it made it, if that is known."""
        if differ := self._cuts.differences(checkpoint, cut):
            what = ", ".join(differ[:3])
            self._say("generation", f"checkpoint {checkpoint} is not what was made then: {what}")

    def _change(self, order: ev.MembershipChanged) -> None:
        self._started = order.started
        for member in order.members:
            before = self._members.get(member.rank)
            if member.live and (before is None or not before.live):
                begins = self._begins() if member.late else 0
                self._clocks[member.rank] = max(begins, self._clocks.get(member.rank, 0))
            self._members[member.rank] = member
        self._steady &= _all_steady(order.members)

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
                self._fenced(pull.replica, pull.generation, effect.generation, effect.clock)
            case ev.PushAnswered() if isinstance(event, ev.PushReceived):
                self._pushed(event, effect.verdict)

    def _begin(self, pull: ev.PullReceived) -> None:
        """A newcomer's first pull says where it begins."""
        replica = pull.replica
        if replica is None or self._begun.get(replica.rank) == replica.incarnation:
            return
        self._begun[replica.rank] = replica.incarnation
        if self._counts(replica, pull.generation) and self._members[replica.rank].late:
            self._clocks[replica.rank] = max(self._clocks[replica.rank], pull.clock)

    def _granted(self, pull: ev.PullReceived, effect: ev.PullGranted) -> None:
        replica, snapshot = pull.replica, effect.snapshot
        if replica is None:
            if snapshot.version > self.version:
                self._say("version", f"an observer reads version {snapshot.version} of {self.version}")
            return
        self._begin(pull)
        rank, who = replica.rank, f"replica {replica.rank} at clock {pull.clock}"
        if not self._counts(replica, pull.generation):
            self._say("fence", f"{who} reads, but its incarnation or generation counts no more", rank)
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
        if plain(effect.verdict) != plain(decided):
            heard, right = _told(effect.verdict), _told(decided)
            self._say("answer", f"{who} hears of its push '{heard}', not '{right}'", rank)
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
            self._fenced(push.replica, push.generation, verdict.generation, verdict.clock)
            return
        # That a push was applied may be told to whoever asks, and to one that counts no more nothing else.
        repeats = verdict.duplicate and verdict.outcome is ev.Outcome.APPLIED
        if not self._counts(push.replica, push.generation) and not repeats:
            void = "its incarnation or generation counts no more"
            self._say("fence", f"{who} is {verdict.outcome.value}, but {void}", rank)
        if verdict.duplicate:
            last, first = self._last.get(rank, (-1, None))
            if sequence >= clock:
                self._say("answer", f"{who} is called a duplicate, but it is new", rank)
            elif last == sequence and plain(first) != plain(verdict):
                self._say("answer", f"the repeated {who} is told '{verdict}', first it was '{first}'", rank)
            return
        if sequence < clock or sequence in self.applied.get(rank, ()):
            self._say("once", f"{who} has been here before, but is {verdict.outcome.value} again", rank)
        if sequence > (min(clock, self.rounds) if self._gathers else clock):
            self._say("once", f"{who} comes before its time: the clock is {clock}", rank)
        reader, at, versions = self._reads.get(rank, (None, -1, frozenset[int]()))
        fits = (reader, at) == (push.replica, sequence) and push.version in versions
        if not fits and rank not in self._read_before:
            read = f"{sorted(versions)} at clock {at}"
            self._say(
                "staleness", f"{who} says it was made of version {push.version}, but it read {read}", rank
            )
        self._read_before.discard(rank)
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
        if plain(verdict) != plain(expected):
            wrong = "staleness" if verdict.staleness != expected.staleness else "answer"
            if verdict.outcome is expected.outcome and verdict.version != expected.version:
                wrong = "version"
            self._say(wrong, f"{who} is told '{_told(verdict)}', expected '{_told(expected)}'", rank)

    def _fenced(self, replica: ev.Replica | None, generation: int, told: int, clock: int) -> None:
        if replica is None or self._counts(replica, generation):
            self._say("fence", f"{replica} is fenced, but it counts")
            return
        here = self._clocks.get(replica.rank, 0)
        if (told, clock) != (self.generation, here):
            sent = f"clock {clock} of generation {told}, not to clock {here} of generation {self.generation}"
            self._say("fence", f"{replica} is sent to {sent}", replica.rank)

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
            if self._ended or not self._counts(pull.replica, pull.generation):
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

    def _counts(self, replica: ev.Replica, generation: int) -> bool:
        member = self._members.get(replica.rank)
        newest = member is not None and member.live and member.incarnation == replica.incarnation
        return newest and generation == self.generation

    def _standing(self) -> str:
        return f"{self._rule} after {self.rounds} rounds, clocks {self._clocks}"

    def _say(self, name: str, message: str, rank: int = -1, round: int = -1) -> None:
        self._found.append(Violation(name, f"Shard {self.index}: {message}.", self.index, rank, round))


def _told(verdict: ev.Verdict | None) -> str:
    return "nothing" if verdict is None else str(verdict).removesuffix(": ")


def _all_steady(members: Sequence[ev.Member]) -> bool:
    return all(member.incarnation == 1 and not member.late for member in members)
