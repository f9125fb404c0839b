"""Judge what only all shards together show: orders are alike, and rounds are made of who counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from paramserver import events as ev
from paramserver.audit.violation import Violation


@dataclass(slots=True)
class _Given:
    """One order, as the shards have handled it."""

    order: ev.Order  # without what each shard is told alone
    shards: list[int]
    rounds: int  # closed ones after it
    gathered: dict[int, Mapping[int, bool]] = field(default_factory=dict)  # by shard: rank -> refused


class OrdersAudit:
    """The auditor of the orders, as the shards say that they have handled them.

    Attributes:
        rounds: how many closed rounds have been judged.
        generations: how many generations have begun.
        has_deaths: some replica has died, or was started again.
    """

    def __init__(self) -> None:
        self.rounds = self.generations = 0
        self.has_deaths = False
        self._given: dict[int, _Given] = {}
        self._start: dict[int, ev.ShardRecord] = {}  # by the last order before what is judged
        self._found: list[Violation] = []

    def resume(self, record: ev.ShardRecord) -> None:
        """Begin in the middle, with what a shard was there."""
        self._start.setdefault(record.orders, record)

    def observe(
        self, shard: int, order: ev.Order, rounds: int, gathered: Mapping[int, bool]
    ) -> list[Violation]:
        """Take note that a shard has handled an order.

        Args:
            shard: which.
            order: what it was told.
            rounds: closed ones there afterwards.
            gathered: the ranks whose gradient was there before, and whether it was refused.

        Returns:
            What is wrong: another shard has handled another order of that number.
        """
        common = _common(order)
        given = self._given.setdefault(order.number, _Given(common, [], rounds))
        given.shards.append(shard)
        if isinstance(order, ev.RoundClosed):
            given.gathered[shard] = dict(gathered)
        if given.order == common:
            return []
        name = "round" if isinstance(order, ev.RoundClosed) else "order"
        says = f"Shard {shard} has handled order {order.number} as {_told(common)}"
        return [
            Violation(
                name,
                f"{says}, shard {given.shards[0]} as {_told(given.order)}.",
                shard,
                round=getattr(order, "round", -1),
            )
        ]

    @property
    def newest(self) -> int:
        """The highest number of an order that a shard has handled; 0 if none has."""
        return max(self._given, default=0)

    def decided(self, order: ev.Order) -> list[Violation]:
        """Take note of an order that the coordinator has given; return what is wrong: a shard had another."""
        given, common = self._given.get(order.number), _common(order)
        if given is None or given.order == common:
            return []
        there = f"shard {given.shards[0]} has handled it as {_told(given.order)}"
        message = f"Order {order.number} was given as {_told(common)}, but {there}."
        return [Violation("order", message, given.shards[0])]

    def judge_rounds(self) -> list[Violation]:
        """Judge, once all orders are known, who is in each round."""
        self._found = []
        roll = _Members()
        known = sorted({*self._given, *self._start})
        for number in known:
            if number in self._start and not roll.known:
                roll.begin(self._start[number])
            given = self._given.get(number)
            if given is None:
                continue
            members = getattr(given.order, "members", ())
            self.has_deaths |= any(member.incarnation > 1 for member in members)
            match given.order:
                case ev.MembershipChanged():
                    roll.change(given.order.members)
                case ev.GenerationBegun():
                    self.generations += 1
                    roll.go_back(given.order.members, given.rounds)
                case ev.JobAnnounced():
                    roll.known = True
                case ev.RoundClosed():
                    self.rounds += 1
                    self._judge(given.order, given, roll)
                    roll.rounds = given.order.round + 1
        return self._found

    def _judge(self, order: ev.RoundClosed, given: _Given, roll: _Members) -> None:
        if not roll.known:
            return
        strangers = [rank for rank in order.ranks if rank not in roll.members]
        if strangers:
            self._say(order, f"has gradients of ranks {strangers}, whom no order has let in")
        for rank in roll.required(order.round):
            missing = [shard for shard, there in given.gathered.items() if rank not in there]
            refused = any(there.get(rank) for there in given.gathered.values())
            if missing:
                self._say(order, f"was closed before shard {missing[0]} had the gradient of replica {rank}")
            elif rank not in order.ranks and not refused:
                self._say(order, f"was closed without replica {rank}, whose gradient every shard had")
        if list(order.ranks) != sorted(set(order.ranks)):
            self._say(order, f"has its ranks out of order: {order.ranks}")

    def _say(self, order: ev.RoundClosed, message: str) -> None:
        self._found.append(Violation("round", f"Round {order.round} {message}.", round=order.round))


@dataclass(slots=True)
class _Members:
    """Who counts, as the orders say it."""

    known: bool = False
    rounds: int = 0
    members: dict[int, ev.Member] = field(default_factory=dict)
    begins: dict[int, int] = field(default_factory=dict)  # latecomers: their first round

    def begin(self, record: ev.ShardRecord) -> None:
        self.known, self.rounds = True, record.rounds
        self.members = {member.rank: member for member in record.members}
        here = {push.replica.rank for push in record.gathered}
        self.begins = {
            rank: clock for rank, clock in record.clocks.items() if clock > record.rounds and rank not in here
        }

    def change(self, members: Iterable[ev.Member]) -> None:
        for member in members:
            before = self.members.get(member.rank)
            if member.live and member.late and (before is None or not before.live):
                others = any(m.live for rank, m in self.members.items() if rank != member.rank)
                self.begins[member.rank] = self.rounds + others
            self.members[member.rank] = member

    def go_back(self, members: Iterable[ev.Member], rounds: int) -> None:
        self.known, self.rounds = True, rounds
        self.members = {member.rank: member for member in members}
        self.begins.clear()

    def required(self, round: int) -> list[int]:
        """Return those without whom a round cannot be closed."""
        return [r for r, member in self.members.items() if member.live and self.begins.get(r, 0) <= round]


def _common(order: ev.Order) -> ev.Order:
    """Return what an order says to all shards."""
    match order:
        case ev.JobAnnounced():
            return replace(order, slices=())
        case ev.GenerationBegun():
            return replace(order, slices=(), cut=None)
        case _:
            return order


def _told(order: ev.Order) -> str:
    match order:
        case ev.RoundClosed():
            return f"the end of round {order.round} with ranks {list(order.ranks)}"
        case ev.CutOrdered():
            return f"checkpoint {order.checkpoint}"
        case ev.JobEnded():
            return "the end of the job"
        case ev.GenerationBegun():
            return f"generation {order.generation} from checkpoint {order.checkpoint}"
        case ev.MembershipChanged():
            return "a change of members: " + ", ".join(
                f"replica {m.rank}.{m.incarnation} {'counts' if m.live else 'counts no more'}"
                for m in order.members
            )
        case _:
            return type(order).__name__
