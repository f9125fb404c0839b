"""Who does what: the coordinator's part that deals out the epochs, and lets newcomers in.

A newcomer takes part from the next epoch that is divided. It comes in at once where somebody who is gone has
left something to do, or where nobody else is left who would begin the next epoch. Until then it is a member
that nobody waits for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from paramserver.epochs import Epochs
from paramserver.errors import Fault, RequestError
from paramserver.events import Dealt, JobSpec, OrderHandled, PartAsked, PartGiven, Visits
from paramserver.membership import Membership


class Dealing:
    """The dealing of one job.

    Args:
        job: what is dealt.
        members: who is there.
        shards: how many there are.

    Attributes:
        epochs: what everybody has been dealt.
    """

    def __init__(self, job: JobSpec, members: Membership, shards: int) -> None:
        self.epochs = Epochs(job)
        self._job = job
        self._members = members
        self._shards = shards
        self._leaving: dict[int, tuple[int, dict[int, int]]] = {}  # order -> rank, its clock by shard
        self._reached: dict[int, int] = {}  # how far every rank was when the weights were lost

    def answer(self, event: PartAsked, begins: int | None) -> tuple[PartGiven, list[int]]:
        """Say what a replica does, which may divide the next epoch.

        Args:
            event: its question.
            begins: the clock at which this incarnation begins; None while not every shard knows it.

        Returns:
            The answer, and the ranks that enter by it.

        Raises:
            RequestError: it is no member of the job, or the job's replicas choose their own samples.
        """
        if not self.epochs.deals:
            raise RequestError("This job's replicas choose their own samples.", Fault.PRECONDITION)
        rank = event.replica.rank
        if begins is None or rank in self._members.waiting():
            return PartGiven(event.request, None, waits=self._why(rank)), []
        if not self._members.counts(rank):  # it has left, and has nothing to do again
            return PartGiven(event.request, None, self.epochs.steps(rank)), []
        before = self.epochs.opened
        dealt: Dealt | None = self.epochs.deal(rank, max(event.clock, begins), self._members.present())
        entering = self._members.waiting() if self.epochs.opened > before else []
        return PartGiven(event.request, dealt, self.epochs.steps(rank)), entering

    def admit(self) -> list[int]:
        """Return who may enter now, without waiting for an epoch to begin."""
        if not self.epochs.deals or not self._members.started:
            return []
        waiting = self._members.waiting()
        entering = [rank for rank in waiting if self.epochs.has_for(rank)]
        if waiting and not entering and self._members.finished() and not self._leaving and self.epochs.left:
            self.epochs.open(waiting)
            return waiting
        return entering

    @property
    def goes_on(self) -> bool:
        """Say whether somebody waits who will have something to do when all is known of those who left."""
        return bool(self._leaving and self._members.waiting())

    def gone(self, rank: int, order: int) -> None:
        """Note that a rank does not go on, and the order that tells the shards."""
        if self.epochs.deals:
            self._leaving[order] = (rank, {})

    def handled(self, report: OrderHandled) -> bool:
        """Note that a shard has handled an order; return True if now it is known how far somebody came."""
        if report.number not in self._leaving:
            return False
        rank, clocks = self._leaving[report.number]
        clocks.setdefault(report.shard, report.clocks.get(rank, 0))
        if len(clocks) < self._shards:
            return False
        del self._leaving[report.number]
        # What only some shards had of a step does not count: it is done again.
        self.epochs.settle(rank, min(clocks.values()))
        return True

    def leaving(self) -> tuple[tuple[int, int], ...]:
        """Return the ranks that do not go on and are not settled, each with the order that says so."""
        return tuple((rank, order) for order, (rank, _) in self._leaving.items())

    def waits_for(self, shard: int, order: int) -> list[int]:
        """Return the orders up to this one that say who is gone, and that a shard has not handled."""
        return sorted(
            each for each, (_, clocks) in self._leaving.items() if each <= order and shard not in clocks
        )

    def lose(self, rounds: int | None) -> None:
        """Note how far everybody is: the weights are about to go back to a checkpoint."""
        # Where the checkpoint turned out to be torn, this is the second time before all have gone back.
        applied = self._applied(rounds)
        self._reached = {rank: max(clock, self._reached.get(rank, 0)) for rank, clock in applied.items()}
        self._leaving.clear()

    def roll_back(
        self, begins: Mapping[int, int], kept: Mapping[int, int], anew: Collection[int] = ()
    ) -> None:
        """Go back to a checkpoint.

        Args:
            begins: of every rank, where it begins anew.
            kept: of every rank that is in the checkpoint, its clock there; what the open round had is void.
            anew: ranks that begin as newcomers, so that what they had is for others.
        """
        if self.epochs.deals:
            done = {rank: min(clock, kept[rank]) for rank, clock in begins.items() if rank in kept}
            here = set(self._members.required()).difference(anew)
            self.epochs.roll_back(done, self._reached, begins, here)
        self._reached = {}

    def visits(self, rounds: int | None) -> tuple[Visits, ...]:
        """Say what became of every epoch's samples.

        Args:
            rounds: closed ones; None in a mode without.
        """
        return self.epochs.visits(self._applied(rounds))

    def _applied(self, rounds: int | None) -> dict[int, int]:
        clocks = self._members.clocks()
        return clocks if rounds is None else {rank: min(clock, rounds) for rank, clock in clocks.items()}

    def _why(self, rank: int) -> str:
        if self.epochs.left:
            return f"Replica {rank} takes part from epoch {self.epochs.opened + 1} of {self._job.epochs} on."
        return f"All epochs are dealt out, so replica {rank} has nothing to do unless somebody leaves."
