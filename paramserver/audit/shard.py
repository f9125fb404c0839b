"""Judge one shard: what it answers, by a small model of it that is kept beside."""

from __future__ import annotations

from collections.abc import Sequence

from paramserver import events as ev
from paramserver.audit.cuts import plain
from paramserver.audit.shard_model import ShardModel
from paramserver.audit.violation import Violation


class ShardAudit(ShardModel):
    """The auditor of one shard, over all its generations and processes.

    Its arguments and attributes are those of `ShardModel`.
    """

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

    def _check_waiting(self) -> None:
        for pull in self._waiting.values():
            assert pull.replica is not None, "an observer is never parked"
            who = f"replica {pull.replica.rank} waits at clock {pull.clock}"
            if self._ended or not self._counts(pull.replica, pull.generation):
                self._say("wake", f"{who}, but the job is over or it counts no more", pull.replica.rank)
            elif self._may_read(pull):
                self._say("wake", f"{who} although it may read: {self._standing()}", pull.replica.rank)


def _told(verdict: ev.Verdict | None) -> str:
    return "nothing" if verdict is None else str(verdict).removesuffix(": ")
