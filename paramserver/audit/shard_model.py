"""What a shard may be: a small model of it, which obeys the same orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paramserver import events as ev
from paramserver.accounting import staleness_bound
from paramserver.audit.cuts import Cuts, State
from paramserver.audit.violation import Violation
from paramserver.consistency import Consistency, parse_consistency


class ShardModel:
    """What is known of one shard, over all its generations and processes; `ShardAudit` judges by it.

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

    def _apply(self, rank: int, sequence: int) -> None:
        done = self.applied.setdefault(rank, set())
        if sequence in done:
            self._say("once", f"push {sequence} of replica {rank} is applied twice", rank)
        done.add(sequence)

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


def _all_steady(members: Sequence[ev.Member]) -> bool:
    return all(member.incarnation == 1 and not member.late for member in members)
