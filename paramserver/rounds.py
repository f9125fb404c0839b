"""The open round of a synchronous job: who is in it, who has contributed where, and when it is closed.

There is one such table, in the coordinator; shards only gather and report. So every shard applies the same
gradients, whoever dies, leaves or is refused in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from paramserver.consistency import Consistency, round_members
from paramserver.events import Contributed


@dataclass(frozen=True, slots=True)
class Closed:
    """A round to be applied: its number, the ranks that make it, and a remark if it changes nothing."""

    number: int
    ranks: tuple[int, ...]
    remark: str


@dataclass(slots=True)
class _Leaver:
    """A rank that has left, while some shards have not handled that order yet.

    A shard reports in order, so once it has handled the order it has said all that it had of this rank: only
    then is it known that a push which was answered with "buffered" is in the round, or that there is none.
    """

    rank: int
    shards: set[int]  # still to come


class Rounds:
    """The rounds of one job.

    Args:
        rule: whether there are rounds at all, and at which one a latecomer begins.
        shards: how many shards have to have each gradient.
        closed: how many rounds are closed already.
    """

    def __init__(self, rule: Consistency, shards: int, closed: int = 0) -> None:
        self.closed = closed
        self._rule = rule
        self._shards = shards
        self._begins: dict[int, int] = {}  # latecomers: the first round they are part of
        self._contributed: dict[int, set[int]] = {}  # to the open round: rank -> shards
        self._complete = 0  # how many of them are on every shard
        self._refused: dict[int, str] = {}  # to the open round: rank -> why
        self._leavers: dict[int, _Leaver] = {}  # by the order that says so

    @property
    def waits_for_leavers(self) -> bool:
        """Say whether a rank has left and not all shards have said what they had of it."""
        return bool(self._leavers)

    def admit_late(self, rank: int, alone: bool) -> None:
        """Let a latecomer in from the next round on, or from the open one if nobody else would close it."""
        if self._rule.gathers:
            self._begins[rank] = self._rule.begins(self.closed, None if alone else self.closed)

    def contribute(self, report: Contributed) -> None:
        """Note a gradient on a shard; one for a round that is closed came too late and changes nothing."""
        if report.round != self.closed:
            return
        where = self._contributed.setdefault(report.rank, set())
        if report.shard not in where:
            where.add(report.shard)
            self._complete += len(where) == self._shards
        if report.refusal:
            self._refused[report.rank] = report.refusal

    def leave(self, rank: int, order: int) -> None:
        """Note that a rank leaves, and the order that tells the shards."""
        if self._rule.gathers:
            self._leavers[order] = _Leaver(rank, set(range(self._shards)))

    def handled(self, order: int, shard: int) -> bool:
        """Note that a shard has handled an order; return True when a leaver is settled by it."""
        leaver = self._leavers.get(order)
        if leaver is None:
            return False
        leaver.shards.discard(shard)
        if leaver.shards:
            return False
        del self._leavers[order]
        return True

    def begins(self) -> dict[int, int]:
        """Return the latecomers and the first round that each is part of."""
        return dict(self._begins)

    def leavers(self) -> tuple[tuple[int, int], ...]:
        """Return the ranks that have left and are not settled, each with the order that says so."""
        return tuple((leaver.rank, order) for order, leaver in self._leavers.items())

    def waits_for(self, shard: int, order: int) -> list[int]:
        """Return the orders up to this one that say of a leaver, and that a shard has not handled."""
        return sorted(
            each for each, leaver in self._leavers.items() if each <= order and shard in leaver.shards
        )

    def restore(self, closed: int, begins: Mapping[int, int], leavers: Iterable[tuple[int, int]]) -> None:
        """Take over what was written down; what was contributed to the open round is reported again."""
        self.closed, self._begins = closed, dict(begins)
        for rank, order in leavers:
            self.leave(rank, order)

    def surely_lacks(self, readers: int) -> bool:
        """Say whether the open round cannot be closed yet, by counting alone; False means: ask `close`.

        Each contribution asks, so looking at every rank each time would make a round quadratic in replicas.

        Args:
            readers: how many ranks count.
        """
        return self._complete < readers - len(self._begins) + len(self._leavers)

    def close(self, readers: Sequence[int]) -> Closed | None:
        """Close the open round if everyone who is in it has contributed, on every shard.

        When all of them have left, the round is closed for those who begin with the next one, or for what the
        last ones to leave have contributed.

        Args:
            readers: the ranks that count.

        Returns:
            The round, which is no longer open; None while it has to stay so.
        """
        if not self._rule.gathers:
            return None
        required = [rank for rank in readers if self._begins.get(rank, 0) <= self.closed]
        required += [leaver.rank for leaver in self._leavers.values()]
        complete = round_members(required, self._contributed, self._shards)
        if complete is None or not (readers or complete):
            return None
        ranks = tuple(rank for rank in complete if rank not in self._refused)
        closed = Closed(self.closed, ranks, "" if ranks else self._why_empty(complete))
        self.closed += 1
        self._contributed.clear()
        self._refused.clear()
        self._complete = 0
        return closed

    def _why_empty(self, complete: Collection[int]) -> str:
        why = "nobody is left who was in it."
        if complete:
            why = f"every gradient was refused. {self._refused[min(complete)]}"
        return f"Round {self.closed} changed nothing: {why}"
