"""What a shard knows of each replica: who counts, at which clock it is, and what its last push came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from paramserver.consistency import Clocks
from paramserver.errors import Fault, RequestError
from paramserver.events import Member, Outcome, PushReceived, Replica, Verdict


class Roll:
    """The replicas of one shard.

    Args:
        shard: the shard's number, for messages.
        generation: that counts; what was computed for an earlier one is fenced.

    Attributes:
        clocks: finished steps of every rank, as this shard has seen them.
    """

    def __init__(self, shard: int, generation: int = 0) -> None:
        self._shard = shard
        self._generation = generation
        self.clocks = Clocks()
        self._members: dict[int, Member] = {}
        self._begun: dict[int, int] = {}  # rank -> the incarnation whose first pull has been seen
        self._last: dict[int, tuple[int, Verdict]] = {}  # rank -> its last sequence and its verdict

    def change(self, members: Iterable[Member], begins: int) -> None:
        """Take what the coordinator says of some ranks.

        Args:
            members: as they are from now on.
            begins: the clock at which a latecomer among them begins.
        """
        for member in members:
            live = self.clocks.is_live(member.rank)
            if member.live and not live:
                self.clocks.enter(member.rank, begins if member.late else 0)
            elif live and not member.live:
                self.clocks.leave(member.rank)
            self._members[member.rank] = member

    def check(self, replica: Replica, generation: int) -> Verdict | None:
        """Return the verdict that fences a sender who counts no more; None for one who does.

        Raises:
            RequestError: nobody has that rank, incarnation or generation, or it has left.
        """
        member = self._members.get(replica.rank)
        who = f"replica {replica.rank}, incarnation {replica.incarnation}"
        if member is None or not 1 <= replica.incarnation <= member.incarnation:
            joined = f"{len(self._members)} have joined" if self._members else "nobody has joined"
            raise RequestError(f"There is no {who}: {joined}. Join first.", Fault.UNKNOWN)
        newest = self._generation
        if generation > newest:
            raise RequestError(
                f"There is no generation {generation}; the newest is {newest}.", Fault.OUT_OF_RANGE
            )
        if replica.incarnation < member.incarnation:
            reason = f"{who.capitalize()}, counts no more: its time ran out, or a newer one has joined."
            return self._fenced(replica, reason)
        if generation < newest:
            reason = f"The weights were recovered: this is generation {newest}, and {generation} is void."
            return self._fenced(replica, reason)
        if not member.live:
            raise RequestError(f"{who.capitalize()} has left the job. Join again.", Fault.PRECONDITION)
        return None

    def restore(
        self,
        clocks: Mapping[int, int],
        verdicts: Mapping[int, tuple[int, Verdict]],
        members: Iterable[Member],
        begun: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """Take over what a cut says of every rank, and who counts now.

        Args:
            clocks: every rank's.
            verdicts: of every rank the sequence of its last push and what it came to.
            members: who counts.
            begun: of each rank the incarnation whose first pull has been seen.
        """
        self._last, self._begun = dict(verdicts), dict(begun)
        for member in members:
            self._members[member.rank] = member
            clock = clocks[member.rank]
            if member.live:
                self.clocks.enter(member.rank, clock)
            else:
                self.clocks.advance(member.rank, clock)

    def pulls(self, replica: Replica, clock: int) -> None:
        """Note that a replica pulls; its first pull says where it begins.

        A newcomer begins at its furthest clock over the shards, a restart at its nearest.

        Raises:
            RequestError: it has not pushed here what it would have by that clock.
        """
        rank, here = replica.rank, self.clocks[replica.rank]
        first = self._begun.get(rank) != replica.incarnation
        newcomer = first and self._members[rank].late
        if clock < 0 or (clock > here and not newcomer):
            raise RequestError(
                f"Replica {rank} pulls at clock {clock}, but shard {self._shard} has had "
                f"{here} of its pushes. Push each step on every shard before the next.",
                Fault.PRECONDITION,
            )
        if first:
            self._begun[rank] = replica.incarnation
            self.clocks.advance(rank, max(clock, here))

    def pushed(self, push: PushReceived, verdict: Verdict) -> None:
        """Note a push and what it came to; for a push of a round, again once the round is decided."""
        rank = push.replica.rank
        self.clocks.advance(rank, max(push.sequence + 1, self.clocks[rank]))
        self._last[rank] = (push.sequence, verdict)

    def verdict(self, rank: int, sequence: int) -> Verdict | None:
        """Return what this rank's push came to, if it was its last one."""
        last, verdict = self._last.get(rank, (-1, None))
        return verdict if last == sequence else None

    def verdicts(self) -> dict[int, tuple[int, Verdict]]:
        """Return of every rank the sequence of its last push and what it came to."""
        return dict(self._last)

    def members(self) -> tuple[Member, ...]:
        """Return every rank as the coordinator sees it."""
        return tuple(self._members.values())

    def begun(self) -> dict[int, int]:
        """Return of each rank the incarnation whose first pull has been seen."""
        return dict(self._begun)

    @property
    def generation(self) -> int:
        """The generation that counts."""
        return self._generation

    def _fenced(self, replica: Replica, reason: str) -> Verdict:
        clock = self.clocks[replica.rank]
        return Verdict(Outcome.FENCED, reason=reason, generation=self._generation, clock=clock)

    def applied(self, push: PushReceived) -> Verdict | None:
        """Return the first verdict, marked, if this push was applied, even if its sender counts no more."""
        member = self._members.get(push.replica.rank)
        known = member is not None and 1 <= push.replica.incarnation <= member.incarnation
        if not known or push.generation != self._generation:
            return None
        verdict = self.verdict(push.replica.rank, push.sequence)
        if verdict is None or verdict.outcome is not Outcome.APPLIED:
            return None
        return replace(verdict, duplicate=True)

    def repeated(self, push: PushReceived) -> Verdict | None:
        """Return the first verdict, marked, if this push has been here before."""
        rank = push.replica.rank
        if not 0 <= push.sequence < self.clocks[rank]:
            return None
        verdict = self.verdict(rank, push.sequence)
        if verdict is not None:
            return replace(verdict, duplicate=True)
        reason = (
            f"Push {push.sequence} of replica {rank} is too old: "
            f"shard {self._shard} has that replica at clock {self.clocks[rank]}."
        )
        return Verdict(Outcome.DROPPED, reason=reason, duplicate=True)
