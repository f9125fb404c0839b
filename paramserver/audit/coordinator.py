"""Judge the coordinator: who counts, when a round is closed and with whom, and when the job is over."""

from __future__ import annotations

from collections.abc import Sequence

from paramserver import events as ev
from paramserver.audit.coordinator_model import Announced, CoordinatorModel
from paramserver.audit.violation import Violation


class CoordinatorAudit(CoordinatorModel):
    """The auditor of the coordinator, over all generations and processes.

    Its arguments and attributes are those of `CoordinatorModel`.
    """

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
            self._announced[number] = Announced(member.rank, set(range(self._shards)), leaves=leaves)

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
        self, event: ev.CoordinatorEvent, effect: ev.CoordinatorEffect, settled: Sequence[Announced]
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

    def _let_in(self, replica: ev.Replica, clock: int, settled: Sequence[Announced]) -> None:
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

    def _should_be_gone(self, leave: ev.LeaveReceived) -> bool:
        """Say whether a replica that has left still counts; in an old generation nobody can be done."""
        done = leave.generation >= self.generation or bool(leave.failure) or leave.goes
        if not done or (self._interruption.is_interrupted and self._interruption.is_going_back):
            return False
        member = self._members.get(leave.replica.rank)
        return member is not None and self._is_new(leave.replica) and member.live
