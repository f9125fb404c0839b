"""Judge the coordinator: who counts, when a round is closed and with whom, and when the job is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from paramserver import events as ev
from paramserver.audit.interruption import Interruption
from paramserver.audit.violation import Violation


@dataclass(slots=True)
class _Announced:
    """A change of membership that some shards have not handled yet."""

    rank: int
    shards: set[int]  # still to come
    clocks: list[int] = field(default_factory=list)
    leaves: bool = False


class CoordinatorAudit:
    """The auditor of the coordinator, over all generations and processes.

    Args:
        shards: how many the job has.
        recovers: checkpoints are kept, so the job survives the loss of a server.

    Attributes:
        rounds: closed rounds.
        orders: the number of the newest order.
        generation: of the job's weights.
        started: everyone who was expected has joined.
        ended: why the job is over, empty if it finished; None while it is not.
    """

    def __init__(self, shards: int, *, recovers: bool = False) -> None:
        self.rounds = self.orders = self.generation = 0
        self.ended: str | None = None
        self._shards = shards
        self._job: ev.JobSpec | None = None
        self.started = self._sealed = False
        self._recovers = recovers
        self._interruption = Interruption(shards)
        self._skips = False  # the next order may have any higher number
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

    def resume(self, record: ev.JobRecord, log: Sequence[ev.Ordered] = ()) -> None:
        """Begin with a coordinator that goes on with what an earlier one has written down.

        Args:
            record: that it was given.
            log: the orders that it was given, in a job with a journal; without one it begins to count anew,
                somewhere higher.
        """
        job = self._job = record.job
        self._recovers, self._skips = True, not job.has_journal
        self.generation, self.orders, self.rounds = record.generation, record.orders, record.rounds
        self.started = len(record.members) >= job.replicas
        self._sealed = record.sealed
        if record.over:
            self.ended = ""
        elif job.has_journal:
            self.ended = record.ended
        for one in record.members:
            is_dead = one.standing is ev.Standing.DEAD
            gone = one.standing is ev.Standing.LEFT or (is_dead and job.on_death == "drop")
            live = one.entered and not gone
            self._members[one.rank] = ev.Member(one.rank, one.incarnation, live, one.late)
            if is_dead:
                self._dead.add(one.rank)
        self._begins = dict(record.begins)
        for rank, order in record.leavers:
            self._announced[order] = _Announced(rank, set(range(self._shards)), leaves=True)
        self._interruption.resume(record)
        for each in log:
            if each.order.number <= self.orders:
                continue
            self.orders = each.order.number
            self._interruption.order(each.order)
            if isinstance(each.order, ev.RoundClosed):
                self.rounds = each.order.round + 1
            if isinstance(each.order, ev.JobEnded):
                self.ended = each.order.reason

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
                case ev.Ordered(again=True):
                    pass
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
            self._say("answer", f"request {next(iter(asked))} ({type(event).__name__}) is not answered")
        if self.ended is None:
            self._check_waiting()
            if isinstance(event, ev.LeaveReceived) and self._should_be_gone(event):
                self._say("round", f"replica {event.replica.rank} has left, but still counts")
        elif self._joining:
            self._say("wake", "the job is over, but somebody still waits to join")
        return self._found

    # ------------------------------------------------------------------------------------ what comes in

    def _note(self, event: ev.CoordinatorEvent) -> list[_Announced]:
        """Take a report; return the changes of membership that every shard has handled with it."""
        interruption = self._interruption
        match event:
            case ev.JoinReceived(job=job) if self._job is None:
                self._job = job
            case ev.ServerRegistered():
                interruption.register(event)
            case ev.ServerLost() if self._recovers and self._job is not None and self._may_go_on():
                interruption.lose(event.server, self._job.has_journal)
                if not self._job.has_journal:
                    self.ended = None
            case ev.CheckpointKept():
                interruption.keep(event.kept)
            case ev.CheckpointFailed():
                interruption.fail(event.checkpoint)
            case ev.CheckpointLost():
                interruption.replace(event.checkpoint, event.kept)
            case ev.Contributed() | ev.Staged() | ev.OrderHandled() | ev.CaughtUp():
                if not interruption.is_void(event):
                    return self._report(event)
        return []

    def _may_go_on(self) -> bool:
        return self.ended is None or (self.ended == "" and not self._interruption.is_final_kept)

    def _report(self, report: ev.Report) -> list[_Announced]:
        self._interruption.handle(report)
        match report:
            case ev.Staged():
                self._staged.setdefault(report.initialiser, set()).add(report.shard)
            case ev.Contributed() if self._gathers:  # without rounds it is a refusal, which is only counted
                self._contribute(report)
            case ev.OrderHandled():
                return self._handled(report, [report.number])
            case ev.CaughtUp():  # it may have reported all of these in vain
                return self._handled(report, [n for n in self._announced if n <= report.number])
        return []

    def _handled(self, report: ev.OrderHandled | ev.CaughtUp, numbers: list[int]) -> list[_Announced]:
        settled = []
        for number in numbers:
            announced = self._announced.get(number)
            if announced is None or report.shard not in announced.shards:
                continue
            announced.shards.discard(report.shard)
            announced.clocks.append(report.clocks.get(announced.rank, 0))
            if not announced.shards:
                settled.append(self._announced.pop(number))
        return settled

    def _contribute(self, report: ev.Contributed) -> None:
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
        if isinstance(order, ev.JobAnnounced | ev.GenerationBegun) and order.number == self.orders:
            return  # one order, told each shard with its own slices
        if order.number != self.orders + 1 and not (self._skips and order.number > self.orders):
            self._say("order", f"order {order.number} comes after {self.orders}")
        self.orders, self._skips = order.number, False
        if self.ended is not None:
            self._say("order", f"order {order.number} comes after the end of the job")
        self._interruption.order(order)
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
            case ev.GenerationBegun():
                self._go_back(order)
            case ev.JobEnded():
                self._end(order, event)

    def _go_back(self, order: ev.GenerationBegun) -> None:
        """Begin a generation: all go back to one checkpoint, and what is under way is void."""
        wrong = self._interruption.wrong_beginning(order)
        if order.generation != self.generation + 1:
            wrong = f"it comes after {self.generation}"
        if wrong:
            self._say("generation", f"generation {order.generation} begins wrongly: {wrong}")
        for member in order.members:
            before = self._members.get(member.rank)
            if before is not None and member.incarnation < before.incarnation:
                self._say("fence", f"replica {member.rank} goes back to incarnation {member.incarnation}")
        self.generation = order.generation
        self.rounds = self._interruption.rounds_kept
        self._sealed = order.checkpoint is not None
        self._members = {member.rank: member for member in order.members}
        self.started = order.started
        self._dead.clear()
        self._begins.clear()
        self._staged.clear()
        self._announced.clear()
        self._contributed, self._refused = {}, set()
        self._left_out.clear()

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
        self, event: ev.CoordinatorEvent, effect: ev.CoordinatorEffect, settled: Sequence[_Announced]
    ) -> None:
        match effect:
            case ev.JoinGranted() | ev.HeartbeatAnswered() if effect.generation != self.generation:
                told = f"generation {effect.generation}, but it is {self.generation}"
                self._say("generation", f"request {effect.request} is told of {told}")
            case ev.JoinGranted(replica=replica) if replica is not None:
                self._let_in(replica, effect.clock, settled)
            case ev.HeartbeatAnswered(fenced=fenced) if isinstance(event, ev.HeartbeatReceived):
                old = tuple(beat.replica for beat in event.beats if not self._is_new(beat.replica))
                # While a server is away, who counts is told with what comes after.
                if fenced != old and not self._interruption.is_interrupted:
                    self._say("fence", f"a heartbeat is told that {fenced} count no more; it is {old}")

    def _let_in(self, replica: ev.Replica, clock: int, settled: Sequence[_Announced]) -> None:
        newest = self._members.get(replica.rank)
        if newest is None or replica.incarnation > newest.incarnation:
            self._say("fence", f"{replica} is let in, but nobody has announced it")
        # One that has died since is let in, too: its first pull tells it to begin anew.
        if not self._is_new(replica):
            return
        if any(a.rank == replica.rank for a in self._announced.values()):
            self._say("order", f"{replica} is let in before every shard knows of it")
        for announced in settled:
            if announced.rank == replica.rank:
                late = self._members[replica.rank].late
                begins = max(announced.clocks) if late else min(announced.clocks)
                if clock != begins:
                    self._say("read", f"{replica} begins at clock {clock}, not at {begins}")

    # ------------------------------------------------------------------------------------------ the rules

    def _check_waiting(self) -> None:
        """Nothing that may happen by now is left lying."""
        if self._interruption.is_interrupted:
            return
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

    def _should_be_gone(self, leave: ev.LeaveReceived) -> bool:
        """Say whether a replica that has left still counts; in an old generation nobody can be done."""
        done = leave.generation >= self.generation or bool(leave.failure) or leave.goes
        if not done or (self._interruption.is_interrupted and self._interruption.is_going_back):
            return False
        member = self._members.get(leave.replica.rank)
        return member is not None and self._is_new(leave.replica) and member.live

    def _say(self, name: str, message: str, round: int = -1) -> None:
        self._found.append(Violation(name, f"Coordinator: {message}.", round=round))
