"""What an auditor of the coordinator keeps of lost servers, checkpoints and generations."""

from __future__ import annotations

from paramserver import events as ev


class Interruption:
    """Whether the job waits for a server, and what it may go on from.

    Args:
        shards: how many the job has.

    Attributes:
        is_final_kept: the checkpoint that is made after the job's end is kept.
        is_going_back: the job goes back to a checkpoint, so what shards report meanwhile is void.
    """

    def __init__(self, shards: int) -> None:
        self.is_final_kept = False
        self.is_going_back = False
        self._shards = shards
        self._shards_per_server = 1
        self._kept: ev.Kept | None = None
        self._under_way: int | None = None  # the checkpoint that is being made
        self._lost: set[int] = set()  # servers
        self._behind: set[int] = set()  # shards that have not come to where the job goes on
        self._goes_on_at = 0  # the order to which they have to come
        self._reached: dict[int, int] = {}  # of each shard the last order of which it has reported
        self._last_reported = 0  # the newest order of which shards report that they have handled it

    @property
    def is_interrupted(self) -> bool:
        """Whether the job is interrupted: a server is away, or some shard is behind."""
        return bool(self._lost or self._behind)

    @property
    def rounds_kept(self) -> int:
        """Closed rounds in the newest checkpoint."""
        return self._kept.rounds if self._kept is not None else 0

    def resume(self, record: ev.JobRecord) -> None:
        """Take over what was written down; every server has to be found again."""
        self._kept = record.kept
        self.is_final_kept = record.over
        self.is_going_back = not record.job.has_journal
        self._behind = set(range(self._shards))
        self._lost = {-1}  # all of them, until the first one has said how many shards each owns

    def register(self, event: ev.ServerRegistered) -> None:
        """Note that a server is there."""
        self._shards_per_server = event.shards
        if -1 in self._lost:
            self._lost = set(range(self._shards // event.shards))
        self._lost.discard(event.server)
        if not self._lost and not self.is_going_back:
            self._goes_on_at = self._last_reported
            self._behind -= {shard for shard, order in self._reached.items() if order >= self._goes_on_at}

    def lose(self, server: int, has_journal: bool) -> None:
        """Note that a server is lost."""
        self._lost.add(server)
        self._under_way = None
        per = self._shards_per_server
        for shard in range(server * per, (server + 1) * per):
            self._behind.add(shard)
            self._reached.pop(shard, None)
        self.is_going_back = self.is_going_back or not has_journal

    def order(self, order: ev.Order) -> None:
        """Note an order."""
        match order:
            case ev.CutOrdered():
                self._under_way = order.checkpoint
            case ev.GenerationBegun():
                self._behind = set(range(self._shards))
                self._reached.clear()
                self._goes_on_at = order.number
                self.is_going_back = True
        if not isinstance(order, ev.RoundClosed):
            self._last_reported = order.number

    def keep(self, kept: ev.Kept | None) -> None:
        """Note that a checkpoint is kept; None: the one after the job's end."""
        if kept is None:
            self.is_final_kept = True
        elif kept.checkpoint == self._under_way:
            self._kept, self._under_way = kept, None

    def replace(self, torn: int, kept: ev.Kept | None) -> None:
        """Note that what was kept cannot be used, and what is in its place."""
        if self._kept is not None and self._kept.checkpoint == torn and kept is not None:
            self._kept = kept

    def fail(self, checkpoint: int | None) -> None:
        """Note that a checkpoint could not be kept; None: the one after the job's end."""
        if checkpoint == self._under_way:
            self._under_way = None

    def wrong_beginning(self, order: ev.GenerationBegun) -> str:
        """Say what is wrong with a generation that begins now; empty if nothing is."""
        if self._lost:
            return f"servers {sorted(self._lost)} are not there"
        newest = None if self._kept is None else self._kept.checkpoint
        if order.checkpoint != newest:
            return f"the newest checkpoint is {newest}, not {order.checkpoint}"
        return ""

    def is_void(self, report: ev.Report) -> bool:
        """Say whether a report is of weights that are given up."""
        if not self.is_going_back:
            return False
        if self._lost:
            return True
        begins = isinstance(report, ev.OrderHandled) and report.number == self._goes_on_at
        return report.shard in self._behind and not begins

    def handle(self, report: ev.Report) -> None:
        """Note how far a shard has come."""
        if not isinstance(report, ev.OrderHandled | ev.CaughtUp):
            return
        self._reached[report.shard] = report.number
        if not self._lost and report.number >= self._goes_on_at:
            self._behind.discard(report.shard)
        if not self.is_interrupted:
            self.is_going_back = False
