"""Checkpoints of a job, and what becomes of it when a server is lost.

Every shard makes its cut of a checkpoint at one place in the order of orders. When a server is lost, the job
waits for it to come back; then all shards go on from the newest checkpoint that is whole, or begin anew where
there is none yet, under a new generation, and what was computed for an earlier one is void.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from paramserver.events import CaughtUp, Cut, JobRecord, JobSpec, Kept, OrderHandled


class Recovery:
    """The checkpoints and generations of one job.

    Args:
        job: says how often a checkpoint is made, and how long a lost server is waited for.
        shards: how many there are.
        now: seconds.
        shards_per_server: how many each server owns.

    Attributes:
        generation: how many times the job's weights have been recovered.
        kept: the newest checkpoint that is whole; None before there is one.
        cuts: how many checkpoints have been ordered.
        goes_back: a generation has begun, so what shards report that have not begun it is void.
    """

    def __init__(self, job: JobSpec, shards: int, now: float, shards_per_server: int) -> None:
        self.generation = 0
        self.kept: Kept | None = None
        self.cuts = 0
        self.goes_back = False
        self._job = job
        self._shards = shards
        self._shards_per_server = shards_per_server
        self._under_way: int | None = None  # the checkpoint that is being written
        self._cut_at, self._cut_updates = now, 0
        self._lost: dict[int, float] = {}  # servers, and since when
        self._losses: dict[int, int] = {}
        self._reached: dict[int, int] = {}  # the last order of each shard, while the job is interrupted
        self._away: set[int] = set()  # servers that are or were lost, until the job goes on
        self._order = 0  # that began the newest generation, or up to which all have to come
        self._behind: set[int] = set()  # shards that have not come so far yet
        self._clocks: dict[int, dict[int, int]] = {}  # of every rank, on the shards that have

    # --------------------------------------------------------------------------------------- checkpoints

    def is_due(self, now: float, updates: int) -> bool:
        """Say whether it is time for another checkpoint.

        Args:
            now: seconds.
            updates: rounds, or without rounds steps of all replicas, so far.
        """
        if self._under_way is not None or self.is_interrupted or updates <= self._cut_updates:
            return False
        every, seconds = self._job.checkpoint_updates, self._job.checkpoint_seconds
        return bool(
            (every and updates >= self._cut_updates + every) or (seconds and now >= self._cut_at + seconds)
        )

    def cut(self, now: float, updates: int) -> int:
        """Begin a checkpoint and return its number."""
        self._under_way = self.cuts
        self.cuts += 1
        self._cut_at, self._cut_updates = now, updates
        return self._under_way

    def keep(self, kept: Kept) -> bool:
        """Note that a checkpoint is whole; return False if nobody waits for it any more."""
        if kept.checkpoint != self._under_way:
            return False
        self.kept, self._under_way = kept, None
        return True

    def fail(self, checkpoint: int) -> bool:
        """Note that a checkpoint could not be written; return False if nobody waits for it any more."""
        if checkpoint != self._under_way:
            return False
        self._under_way = None
        return True

    # -------------------------------------------------------------------------------- losses, generations

    @property
    def is_interrupted(self) -> bool:
        """Say whether a server is lost, or some shard has not come as far as it has to."""
        return bool(self._lost or self._behind)

    @property
    def lacks_servers(self) -> bool:
        """Say whether a server is lost."""
        return bool(self._lost)

    @property
    def waits(self) -> bool:
        """Say whether a server is lost, and the generation that comes tells shards what happens meanwhile."""
        return bool(self._lost) and not self._job.has_journal

    @property
    def is_going_back(self) -> bool:
        """Say whether some shard has not begun the newest generation."""
        return self.goes_back and bool(self._behind)

    def lose(self, server: int, now: float) -> bool:
        """Note the loss of a server; return False if it has been lost more often than the job allows."""
        self._lost.setdefault(server, now)
        self._losses[server] = self._losses.get(server, 0) + 1
        self._under_way = None
        self._away.add(server)
        for shard in self._shards_away():
            self._reached.pop(shard, None)
        return self._losses[server] <= self._job.restarts_max

    def restore(self, record: JobRecord, servers: Collection[int], now: float) -> None:
        """Take over what was written down; every server has to be found again."""
        self.generation, self.kept, self.cuts = record.generation, record.kept, record.cuts
        self._lost = dict.fromkeys(servers, now)
        self._away = set(servers)

    def find(self, server: int) -> bool:
        """Note that a server is there; return True if it was the last one that was lost."""
        return self._lost.pop(server, None) is not None and not self._lost

    def overdue(self, now: float, seconds: float) -> list[int]:
        """Return the servers that have been lost for so long."""
        return sorted(server for server, since in self._lost.items() if now >= since + seconds)

    def next_deadline(self, seconds: float) -> float | None:
        """Return when the first lost server is overdue; None where none is lost."""
        return min(self._lost.values(), default=0.0) + seconds if self._lost else None

    def begin(self, order: int) -> Kept | None:
        """Begin a generation with this order, and return what it goes on from; None: it begins anew."""
        self.generation += 1
        self._order, self._behind, self._clocks = order, set(range(self._shards)), {}
        self.goes_back = True
        self._reached.clear()
        self._away.clear()
        kept = self.kept
        self._cut_updates = 0 if kept is None else kept.rounds or sum(kept.clocks.values())
        return kept

    def resume(self, order: int) -> bool:
        """Go on where the job was, once the shards of the servers that were away have come to this order.

        Returns:
            Whether they have.
        """
        self._behind |= {shard for shard in self._shards_away() if self._reached.get(shard, -1) < order}
        self._order, self.goes_back = order, False
        self._away.clear()
        return not self._behind

    def is_void(self, report: object) -> bool:
        """Say whether a report is void: a generation is coming, or its shard has not begun this one."""
        if self._lost and not self._job.has_journal:
            return True
        is_behind = self.goes_back and getattr(report, "shard", None) in self._behind
        return is_behind and not (isinstance(report, OrderHandled) and report.number == self._order)

    def handled(self, report: OrderHandled | CaughtUp) -> bool:
        """Note how far a shard has come; return True if with it all have come as far as they had to."""
        if not self.is_interrupted:
            return False
        self._clocks.setdefault(report.shard, {}).update(report.clocks)
        self._reached[report.shard] = report.number
        if report.shard not in self._behind or report.number < self._order:
            return False
        self._behind.discard(report.shard)
        return not self.is_interrupted

    def _shards_away(self) -> set[int]:
        per = self._shards_per_server
        return {server * per + local for server in self._away for local in range(per)}

    def clocks(self, rank: int) -> list[int]:
        """Return the clocks of a rank on the shards that had to come to something."""
        return [clocks[rank] for clocks in self._clocks.values() if rank in clocks]


def kept(checkpoint: int, cuts: Collection[Cut]) -> Kept:
    """Say what a whole checkpoint is.

    Args:
        checkpoint: its number.
        cuts: of every shard.
    """
    rounds = max(cut.snapshot.rounds for cut in cuts)
    return Kept(checkpoint, rounds, nearest_clocks(cut.clocks for cut in cuts))


def is_void(record: JobRecord, checkpoint: int, generation: int) -> bool:
    """Say whether a checkpoint that is whole is void for a coordinator that comes back.

    The newest one that is whole need not be written down as such: the coordinator may have ended in between.
    But one of an earlier generation never will be: while it became whole a server was lost, and the job has
    gone on from the one before.

    Args:
        record: what the coordinator has written down.
        checkpoint: its number.
        generation: of its weights.
    """
    newest = -1 if record.kept is None else record.kept.checkpoint
    return checkpoint > newest and generation < record.generation


def nearest_clocks(shards: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Return every rank's smallest clock over the shards: the first step that some shard has not had.

    Example:
        >>> nearest_clocks([{0: 6, 1: 5}, {0: 4}])
        {0: 4, 1: 5}
    """
    nearest: dict[int, int] = {}
    for clocks in shards:
        for rank, clock in clocks.items():
            nearest[rank] = min(clock, nearest.get(rank, clock))
    return nearest
