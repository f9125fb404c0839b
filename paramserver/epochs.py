"""Which samples are whose: how the epochs of a job are dealt out, and what has become of every sample.

To the next editor: an epoch is divided when somebody first asks for it, among those who take part then. Each
of them has a share, which is a function of (seed, epoch, place, places): no sample is named here, and only
batches of shares are counted. What a replica has been dealt is laid out along its clock. So a step which has
to be done again, by a restart or after a roll-back, is done on the same batch.

A part of an epoch is *to do* (dealt to a replica, or free), *doing* (laid out along a clock), or *done* (the
clock has passed it). What whoever is gone had not done becomes free. Under an iid split anybody takes it;
under a skewed one a share has a fixed place, and its samples wait for whoever has that place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from paramserver import laid_out
from paramserver.errors import RequestError
from paramserver.events import Dealt, DealtRecord, JobSpec, Part, Visits


class Epochs:
    """The epochs of one job.

    Args:
        job: says how many samples and epochs there are; one without samples deals nothing.

    Attributes:
        opened: how many epochs have been divided.
    """

    def __init__(self, job: JobSpec) -> None:
        self._job = job
        self.opened = 0
        self._todo: dict[int, list[Part]] = {}  # by rank
        self._laid: dict[int, list[Dealt]] = {}  # by rank, along its clock
        self._free: list[Part] = []
        self._places: dict[int, int] = {}  # of a skewed split: by rank
        self._done: Counter[int] = Counter()  # samples by epoch, of what is counted for good
        self._counted: dict[int, int] = {}  # by rank: how many of what is laid out that is
        self._refused: dict[tuple[int, int], Part] = {}  # (rank, clock) -> its one batch
        self._repeated: Counter[int] = Counter()  # samples by epoch
        if self.deals:
            self._open(range(job.replicas))

    @property
    def deals(self) -> bool:
        """Say whether the coordinator deals samples at all; replicas of a loop of one's own choose theirs."""
        return self._job.samples > 0

    @property
    def are_skewed(self) -> bool:
        """Say whether shares have fixed places."""
        return bool(self._job.shares)

    @property
    def left(self) -> int:
        """How many epochs have not been begun."""
        return self._job.epochs - self.opened if self.deals else 0

    def has_for(self, newcomer: int) -> bool:
        """Say whether there is something for a newcomer at once: parts that nobody does."""
        if self.are_skewed:
            self._take_place(newcomer)
        return self._next_free(self._places.get(newcomer)) is not None

    def deal(self, rank: int, clock: int, present: Sequence[int]) -> Dealt | None:
        """Say what a rank does from a clock on; asked again, it says the same.

        Args:
            rank: one of those present.
            clock: the rank's.
            present: all ranks that take part in an epoch which is opened now, ascending.

        Returns:
            The part that has this clock; None if nothing is left.

        Raises:
            RequestError: the clock is before all that it was dealt.
        """
        laid = self._laid.setdefault(rank, [])
        position = bisect_right(laid, clock, key=lambda dealt: dealt.clock)
        if position and clock < laid[position - 1].end:
            return laid[position - 1]
        if position < len(laid):
            raise RequestError(f"Replica {rank} asks what to do at clock {clock}, which is before its first.")
        if self.are_skewed:
            self._take_place(rank)
        part = self._take(rank, present)
        if part is None:
            return None
        laid.append(Dealt(clock, part))
        return laid[-1]

    def steps(self, rank: int) -> int:
        """Return the clock at which a rank will have done all, as far as can be said now."""
        laid, todo = self._laid.get(rank, []), self._todo.get(rank, [])
        last = todo[-1] if todo else laid[-1].part if laid else None
        if last is None:
            return 0
        clock = (laid[-1].end if laid else 0) + sum(part.batches for part in todo)
        return clock + self.left * self._batches(last.place, last.places)

    def open(self, present: Sequence[int]) -> None:
        """Divide the next epoch among these ranks, ascending."""
        self._open(present)

    def settle(self, rank: int, clock: int) -> None:
        """Take back what a rank that is gone has not done.

        Args:
            rank: whose.
            clock: the steps that every shard had of it.
        """
        self._release(rank, clock)
        self._count(rank, clock)
        self._places.pop(rank, None)

    def refuse(self, rank: int, clock: int) -> None:
        """Note that the gradient of a step was refused, so that its samples are not seen."""
        laid = self._laid.get(rank, [])
        position = bisect_right(laid, clock, key=lambda dealt: dealt.clock)
        if position and clock < laid[position - 1].end:
            self._refused[rank, clock] = laid_out.one(laid[position - 1], clock)

    def roll_back(
        self,
        kept: Mapping[int, int],
        reached: Mapping[int, int],
        begins: Mapping[int, int],
        here: Collection[int],
    ) -> None:
        """Go back to a checkpoint: what came after it is done again, by the same ranks if they are here.

        Args:
            kept: how far every rank that is in the checkpoint had come in it.
            reached: of every rank, how far it had come since.
            begins: of every rank, where it begins anew. One that has come since the checkpoint was made
                begins with the others, and has done nothing of what it was dealt.
            here: the ranks that take part still.
        """
        self._done.clear()
        self._counted.clear()
        for rank, laid in self._laid.items():
            done = kept.get(rank, 0)
            for dealt in laid:
                undone = laid_out.between(dealt, done, reached.get(rank, 0))
                self._repeated[dealt.part.epoch] += self._samples(undone)
            if rank in here:
                self._laid[rank] = laid_out.anew(laid, done, begins.get(rank, done))
            else:
                self._release(rank, done)
        for who in [who for who in self._refused if who[1] >= kept.get(who[0], 0)]:
            del self._refused[who]

    def visits(self, reached: Mapping[int, int]) -> tuple[Visits, ...]:
        """Say of every epoch that was begun what became of its samples.

        Args:
            reached: of every rank, how many steps have been applied.
        """
        if not self.deals:
            return ()
        for rank in self._laid:
            self._count(rank, reached.get(rank, 0))
        done = Counter(self._done)
        for rank, laid in self._laid.items():
            for dealt in laid[self._counted.get(rank, 0) :]:
                done[dealt.part.epoch] += self._samples(laid_out.between(dealt, 0, reached.get(rank, 0)))
        refused: Counter[int] = Counter()
        for (rank, clock), part in self._refused.items():
            if clock < reached.get(rank, 0):
                refused[part.epoch] += self._samples(part)
        samples = sum(self._job.shares) or self._job.samples
        return tuple(
            Visits(epoch, samples, done[epoch] - refused[epoch], refused[epoch], self._repeated[epoch])
            for epoch in range(self.opened)
        )

    def record(self) -> DealtRecord:
        """Return all of it, to be written down."""
        return DealtRecord(
            self.opened,
            tuple((rank, *part) for rank, parts in self._todo.items() for part in parts),
            tuple((rank, *run) for rank, laid in self._laid.items() for run in laid_out.runs(laid)),
            tuple(tuple(part) for part in self._free),
            tuple(self._places.items()),
            tuple((*who, *part) for who, part in self._refused.items()),
            tuple(self._repeated.items()),
        )

    def restore(self, record: DealtRecord) -> None:
        """Take over what was written down."""
        self.opened = record.opened
        self._todo, self._laid = {}, {}
        for rank, *part in record.todo:
            self._todo.setdefault(rank, []).append(Part(*part))
        for rank, *run in record.laid:
            self._laid.setdefault(rank, []).extend(laid_out.unrolled(*run))
        self._free = [Part(*part) for part in record.free]
        self._places = {row[0]: row[1] for row in record.places}
        self._refused = {(rank, clock): Part(*part) for rank, clock, *part in record.refused}
        self._repeated = Counter({row[0]: row[1] for row in record.repeated})
        self._done.clear()
        self._counted.clear()

    def _open(self, present: Sequence[int]) -> None:
        """Give everyone present a share of the next epoch."""
        places = len(present)
        if self.are_skewed:
            places = len(self._job.shares)
            for rank in present:
                self._take_place(rank)
        whose = (
            {self._places.get(rank): rank for rank in present}
            if self.are_skewed
            else dict(enumerate(present))
        )
        for place in range(places):
            part = Part(self.opened, place, places, 0, self._batches(place, places))
            taker = whose.get(place)
            (self._free if taker is None else self._todo.setdefault(taker, [])).append(part)
        self.opened += 1

    def _take(self, rank: int, present: Sequence[int]) -> Part | None:
        """Take the next part of a rank: of an earlier epoch one that is free, else its own."""
        todo = self._todo.setdefault(rank, [])
        free = self._next_free(self._places.get(rank))
        if not todo and free is None and self.left:
            self._open(present)
        if free is None or (todo and todo[0].epoch <= self._free[free].epoch):
            return todo.pop(0) if todo else None
        part = self._free.pop(free)
        # Where anybody may do it, all who are there come for a piece.
        pieces = 1 if self.are_skewed else max(1, len(present))
        middle = part.begin + -(-part.batches // pieces)
        if middle < part.end:
            self._free.insert(free, part._replace(begin=middle))
        return part._replace(end=min(middle, part.end))

    def _next_free(self, place: int | None) -> int | None:
        """Return where in the free parts the first one is that may be done by whoever has this place."""
        for position, part in enumerate(self._free):
            if not self.are_skewed or part.place == place:
                return position
        return None

    def _release(self, rank: int, clock: int) -> None:
        """Make free what a rank has not done by this clock."""
        laid = self._laid.get(rank, [])
        undone = [laid_out.after(dealt, clock).part for dealt in laid]
        self._free += [part for part in (*undone, *self._todo.pop(rank, [])) if part.batches]
        self._free.sort()
        kept = [laid_out.before(dealt, clock) for dealt in laid]
        self._laid[rank] = [dealt for dealt in kept if dealt.part.batches]

    def _count(self, rank: int, clock: int) -> None:
        """Count for good what a rank has done and is past."""
        laid, counted = self._laid.get(rank, []), self._counted.get(rank, 0)
        while counted < len(laid) and laid[counted].end <= clock:
            self._done[laid[counted].part.epoch] += self._samples(laid[counted].part)
            counted += 1
        self._counted[rank] = counted

    def _take_place(self, rank: int) -> None:
        vacant = self._vacant()
        if rank not in self._places and vacant is not None:
            self._places[rank] = vacant

    def _vacant(self) -> int | None:
        """Return the first place of a skewed split that nobody has."""
        taken = set(self._places.values())
        return next((place for place in range(len(self._job.shares)) if place not in taken), None)

    def _batches(self, place: int, places: int) -> int:
        return -(-self._share(place, places) // self._job.batch)

    def _samples(self, part: Part) -> int:
        share, batch = self._share(part.place, part.places), self._job.batch
        return max(0, min(part.end * batch, share) - min(part.begin * batch, share))

    def _share(self, place: int, places: int) -> int:
        """Count the samples of a place in each epoch, as `paramserver.data.assignment` deals them."""
        if self.are_skewed:
            return self._job.shares[place]
        samples = self._job.samples
        return samples * (place + 1) // places - samples * place // places
