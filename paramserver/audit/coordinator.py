"""Judge the coordinator: who counts, when a round is closed and with whom, and when the job is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from paramserver import events as ev
from paramserver.audit.violation import Violation


@dataclass(slots=True)
class _Announced:
    """A change of membership that some shards have not handled yet."""

    rank: int
    shards: set[int]  # still to come
    clocks: list[int] = field(default_factory=list)
    leaves: bool = False


class CoordinatorAudit:
    """The auditor of the coordinator.

    Args:
        shards: how many the job has.

    Attributes:
        rounds: closed rounds.
        orders: given orders.
        started: everyone who was expected has joined.
        ended: why the job is over, empty if it finished; None while it is not.
    """

    def __init__(self, shards: int) -> None:
        self.rounds = self.orders = 0
        self.ended: str | None = None
        self._shards = shards
        self._job: ev.JobSpec | None = None
        self.started = self._sealed = False
        self._members: dict[int, ev.Member] = {}
        self._dead: set[int] = set()
        self._begins: dict[int, int] = {}  # latecomers: their first round
        self._staged: dict[str, set[int]] = {}
        self._announced: dict[int, _Announced] = {}  # by order
        self._contributed: dict[int, set[int]] = {}  # to the open round
        self._refused: set[int] = set()
        self._left_out: dict[tuple[int, int], set[int]] = {}  # (round, rank) -> shards that had it too late
        self._joining: set[int] = set()  # requests
        self._found: list[Violation] = []

    def observe(self, event: ev.CoordinatorEvent, effects: Sequence[ev.CoordinatorEffect]) -> list[Violation]:
        """Judge what the coordinator made of one event.

        Args:
            event: what it was told.
            effects: what it returned, in order.

        Returns:
            What is wrong; usually nothing.
        """
        self._found = []
        settled = self._note(event)
        asked = {event.request} if hasattr(event, "request") else set[int]()
        for effect in effects:
            match effect:
                case ev.Ordered(order):
                    self._order(order, event)
                case ev.WakeAt() | ev.Noted() | ev.Remember():
                    pass
                case _:
                    if effect.request not in asked | self._joining:
                        self._say("answer", f"request {effect.request} is answered, but nobody waits for it")
                    asked.discard(effect.request)
                    self._joining.discard(effect.request)
                    self._answer(event, effect, settled)
        if isinstance(event, ev.JoinReceived):
            self._joining |= asked
        elif asked:
            self._say("answer", f"{event} is not answered")
        if self.ended is None:
            self._check_waiting()
            if isinstance(event, ev.LeaveReceived) and self._counts(event.replica):
                self._say("round", f"replica {event.replica.rank} has left, but still counts")
        elif self._joining:
            self._say("wake", "the job is over, but somebody still waits to join")
        return self._found

    # ------------------------------------------------------------------------------------ what comes in

    def _note(self, event: ev.CoordinatorEvent) -> _Announced | None:
        """Take a report; return the change of membership that every shard has handled with it."""
        match event:
            case ev.JoinReceived(job=job) if self._job is None:
                self._job = job
            case ev.Staged():
                self._staged.setdefault(event.initialiser, set()).add(event.shard)
            case ev.Contributed() if self._gathers:  # without rounds it is a refusal, which is only counted
                self._contribute(event)
            case ev.OrderHandled() if event.number in self._announced:
                announced = self._announced[event.number]
                announced.shards.discard(event.shard)
                announced.clocks.append(event.clocks[announced.rank])
                if not announced.shards:
                    return self._announced.pop(event.number)
        return None

    def _contribute(self, report: ev.Contributed) -> None:
        if not self._gathers:
            return  # a refusal, for people to hear of
        if report.round > self.rounds:
            self._say("round", f"round {report.round} has a gradient before it is open", report.round)
        if report.round == self.rounds:
            self._contributed.setdefault(report.rank, set()).add(report.shard)
            if report.refusal:
                self._refused.add(report.rank)
            return
        where = self._left_out.get((report.round, report.rank))
        if where is None or report.refusal:
            return
        where.add(report.shard)
        if len(where) == self._shards and self._members[report.rank].incarnation == 1:
            self._say(
                "round",
                f"round {report.round} was closed without replica {report.rank}, which every shard had",
                report.round,
            )

    # ---------------------------------------------------------------------------------- what it decides

    def _order(self, order: ev.Order, event: ev.CoordinatorEvent) -> None:
        if isinstance(order, ev.JobAnnounced):  # one order, told each shard with its own slices
            self.orders = max(self.orders, order.number)
            return
        if order.number != self.orders + 1:
            self._say("order", f"order {order.number} comes after {self.orders}")
        self.orders = order.number
        if self.ended is not None:
            self._say("order", f"order {order.number} comes after the end of the job")
        match order:
            case ev.MembershipChanged():
                for member in order.members:
                    self._change(order.number, member, event)
                self.started = order.started
                if order.started != (self._job is not None and len(self._members) >= self._job.replicas):
                    self._say("order", f"the job is started with {len(self._members)} replicas")
            case ev.Sealed():
                if self._sealed or len(self._staged.get(order.initialiser, ())) < self._shards:
                    self._say("order", f"what {order.initialiser} staged is sealed before every shard has it")
                self._sealed = True
            case ev.RoundClosed():
                self._close(order)
            case ev.JobEnded():
                self._end(order, event)

    def _change(self, number: int, member: ev.Member, event: ev.CoordinatorEvent) -> None:
        before = self._members.get(member.rank)
        if before is not None and member.incarnation < before.incarnation:
            self._say("fence", f"replica {member.rank} goes back to incarnation {member.incarnation}")
        joins = isinstance(event, ev.JoinReceived)
        if joins:
            self._dead.discard(member.rank)
        elif before is not None and member.incarnation > before.incarnation:
            self._dead.add(member.rank)
        if member.live and member.late and (before is None or not before.live):
            others = any(m.live for rank, m in self._members.items() if rank != member.rank)
            self._begins[member.rank] = self.rounds + others
        self._members[member.rank] = member
        leaves = isinstance(event, ev.LeaveReceived)
        if joins or leaves:
            self._announced[number] = _Announced(member.rank, set(range(self._shards)), leaves=leaves)

    def _close(self, order: ev.RoundClosed) -> None:
        if order.round != self.rounds or not self._gathers:
            self._say("round", f"round {order.round} is closed after {self.rounds} rounds", order.round)
        lacks = [rank for rank in self._required() if not self._complete(rank)]
        if lacks:
            self._say("round", f"round {order.round} is closed without waiting for {lacks}", order.round)
        makes = sorted(r for r in self._contributed if self._complete(r) and r not in self._refused)
        if list(order.ranks) != makes:
            self._say(
                "round", f"round {order.round} is closed with {order.ranks}, not with {makes}", order.round
            )
        for rank, where in self._contributed.items():
            if rank not in order.ranks and rank not in self._refused:
                self._left_out[order.round, rank] = where
        for rank in self._live() + self._leaving():
            if rank not in self._contributed:
                self._left_out[order.round, rank] = set()
        self.rounds += 1
        self._contributed, self._refused = {}, set()

    def _end(self, order: ev.JobEnded, event: ev.CoordinatorEvent) -> None:
        self.ended = order.reason
        if order.reason or isinstance(event, ev.ScoreReceived):
            return
        if not self.started or self._live():
            self._say("wake", f"the job is said to be finished, but {self._live()} go on")
        if self._dead >= set(self._members):
            self._say("answer", "the job is said to be finished, but every replica is dead")

    def _answer(
        self, event: ev.CoordinatorEvent, effect: ev.CoordinatorEffect, settled: _Announced | None
    ) -> None:
        match effect:
            case ev.JoinGranted(replica=replica) if replica is not None:
                newest = self._members.get(replica.rank)
                if newest is None or replica.incarnation > newest.incarnation:
                    self._say("fence", f"{replica} is let in, but nobody has announced it")
                # One that has died since is let in, too: its first pull tells it to begin anew.
                if not self._is_new(replica):
                    return
                if any(a.rank == replica.rank for a in self._announced.values()):
                    self._say("order", f"{replica} is let in before every shard knows of it")
                if settled is not None:
                    late = self._members[replica.rank].late
                    begins = max(settled.clocks) if late else min(settled.clocks)
                    if effect.clock != begins:
                        self._say("read", f"{replica} begins at clock {effect.clock}, not at {begins}")
            case ev.HeartbeatAnswered(fenced=fenced) if isinstance(event, ev.HeartbeatReceived):
                old = tuple(beat.replica for beat in event.beats if not self._is_new(beat.replica))
                if fenced != old:
                    self._say("fence", f"a heartbeat is told that {fenced} count no more; it is {old}")

    # ------------------------------------------------------------------------------------------ the rules

    def _check_waiting(self) -> None:
        """Nothing that may happen by now is left lying."""
        complete = [rank for rank in self._contributed if self._complete(rank)]
        ready = self._gathers and self.started and self._sealed
        if ready and (self._live() or complete) and set(self._required()) <= set(complete):
            self._say("wake", f"round {self.rounds} has everyone, but is not closed", self.rounds)
        deals = self._job is not None and self._job.samples  # then a newcomer may be about to come in
        if self.started and not self._live() and not self._leaving() and not deals:
            self._say("wake", "nobody is left, but the job goes on")
        for initialiser, shards in self._staged.items():
            if len(shards) == self._shards and not self._sealed:
                self._say("wake", f"what {initialiser} staged is complete, but not sealed")

    @property
    def _gathers(self) -> bool:
        return self._job is not None and self._job.consistency == "sync"

    def _live(self) -> list[int]:
        return [rank for rank, member in self._members.items() if member.live]

    def _leaving(self) -> list[int]:
        """Return who has left while some shard may still report a gradient of theirs."""
        return [a.rank for a in self._announced.values() if a.leaves] if self._gathers else []

    def _required(self) -> list[int]:
        """Return those without whom the open round cannot be closed."""
        return [r for r in self._live() if self._begins.get(r, 0) <= self.rounds] + self._leaving()

    def _complete(self, rank: int) -> bool:
        return len(self._contributed.get(rank, ())) == self._shards

    def _is_new(self, replica: ev.Replica) -> bool:
        member = self._members.get(replica.rank)
        return member is not None and member.incarnation == replica.incarnation

    def _counts(self, replica: ev.Replica) -> bool:
        return self._is_new(replica) and self._members[replica.rank].live

    def _say(self, name: str, message: str, round: int = -1) -> None:
        self._found.append(Violation(name, f"Coordinator: {message}.", round=round))
