"""The shards of this server: a lane to each, and what each of them owns. Confined to the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from types import MappingProxyType

from paramserver.diaries import ShardDiary, shard_row
from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import (
    CaughtUp,
    CutAsked,
    CutMade,
    CutOrdered,
    GenerationBegun,
    InitialiseReceived,
    JobAnnounced,
    JobEnded,
    Order,
    OrderHandled,
    PullCancelled,
    PushReceived,
    Report,
    Reported,
    ReportsAsked,
    RoundClosed,
    Sealed,
    ShardEffect,
    ShardEvent,
)
from paramserver.logs import fields
from paramserver.shard import Shard
from paramserver.storage.trace_file import TraceFile
from paramserver.wire.buffers import Buffers
from server.checkpoints import CutKeeper, Tasks
from server.holding import Holding
from server.host import Broken, HostStatistics, Lane, ShardHost
from server.journal import ShardJournal
from server.requests import Requests
from server.trace import ShardTrace

log = logging.getLogger("server")

CHEAP_BYTES_MAX = 64 * 1024
"""An update of so many bytes takes about 0.1 ms, which is less than the way to a thread and back."""


class Shards:
    """All shards of this server.

    Args:
        server: this server's index.
        count: how many shards it owns.
        pool: threads for what takes longer.
        requests: where answers go.
        buffers: where the shards write new weights.
        report: gets the shards' reports, in order.
        fail: called with a sentence if a shard itself breaks.
        keeper: writes and reads their cuts.
        trace: where to record what the shards do; None for nowhere.
        journals: note what the shards do, by shard; none where no run folder is.
        back: shards that know what they were, by shard.
        returns: the server was here before, so whoever asks for its shards has to wait for a checkpoint.

    Attributes:
        keeper: as given.
        ended: the reason of the job's end, once every shard has handled it; another future after `reopen`.
        reopened: set when a job that had ended goes on.
    """

    def __init__(
        self,
        server: int,
        count: int,
        pool: Executor,
        requests: Requests,
        buffers: Buffers,
        report: Callable[[Report], None],
        fail: Callable[[str], None],
        keeper: CutKeeper,
        trace: TraceFile | None = None,
        journals: Mapping[int, ShardJournal] = MappingProxyType({}),
        back: Mapping[int, Shard] = MappingProxyType({}),
        *,
        returns: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.first = server * count
        self.ended: asyncio.Future[str] = loop.create_future()
        self._loop = loop
        self._pool = pool
        self._requests = requests
        self._report = report
        self._fail = fail
        self.keeper = keeper
        self._returns = returns
        self._holdings: dict[int, Holding] = {}
        self._held_back: dict[int, list[Order]] = {}  # while a shard's cut is being read
        self._tasks = Tasks()
        self._generations: dict[int, int] = {}  # of each shard
        self.reopened = asyncio.Event()
        self._end: JobEnded | None = None
        self._going = set(range(self.first, self.first + count))
        self._lanes = [
            Lane(
                ShardHost(
                    back.get(index) or Shard(index, buffers.empty),
                    loop.time,
                    _shard_trace(trace, server, index),
                    journals.get(index),
                ),
                pool,
                loop.call_soon_threadsafe,
                self._deliver,
            )
            for index in sorted(self._going)
        ]
        self._ordered: dict[int, int] = {}  # of each shard the last order that it has
        for shard in back.values():
            self._take_back(shard)

    def __len__(self) -> int:
        return len(self._lanes)

    def check(self, shard: int) -> None:
        """Refuse the number of a shard that is not here, or is not what it was before its server ended.

        Raises:
            RequestError: ``UNKNOWN``.
            JobError: ``UNAVAILABLE``; whoever asks again is answered later.
        """
        last = self.first + len(self._lanes) - 1
        if not self.first <= shard <= last:
            own = f"shard {last}" if last == self.first else f"shards {self.first} to {last}"
            raise RequestError(
                f"Shard {shard} is not on this server, which owns {own}. Use the addresses that Join gave.",
                Fault.UNKNOWN,
            )
        if shard not in self._holdings and self._returns:
            raise JobError("This server has come back, and is waiting for its weights.", Failure.UNAVAILABLE)

    def holding(self, shard: int) -> Holding:
        """Return what a shard owns.

        Raises:
            RequestError: there is no such shard here, or no job yet.
            JobError: it has come back, and waits for its weights.
        """
        self.check(shard)
        if shard not in self._holdings:
            raise RequestError("There is no job here yet. Join first.", Fault.PRECONDITION)
        return self._holdings[shard]

    def submit(self, shard: int, event: ShardEvent) -> None:
        """Bring an event to a shard, after all earlier ones."""
        self._lanes[shard - self.first].submit(event, cheap=self._is_cheap(shard, event))

    def order(self, local: int, order: Order) -> None:
        """Bring an order to a shard, given by its number within this server."""
        shard = self.first + local
        if shard in self._held_back:
            self._held_back[shard].append(order)
            return
        if order.number <= self._ordered.get(shard, 0):
            return  # it has been sent again, and was here before
        if isinstance(order, GenerationBegun):
            if order.cut is None and order.checkpoint is not None:
                self._held_back[shard] = []
                self._tasks.begin(self._restore(shard, order))
                return
            self._generations[shard] = order.generation
            self.reopen()
        if isinstance(order, JobAnnounced | GenerationBegun):
            self._holdings[shard] = Holding.of(order.job, order.slices)
        self._ordered[shard] = order.number
        if isinstance(order, JobEnded):
            self._end = order
        self.submit(shard, order)

    def orders(self) -> dict[int, int]:
        """Return of each shard the last order that it has; nothing without a job that has a journal."""
        jobs = [holding.job for holding in self._holdings.values()]
        exact = len(jobs) == len(self._lanes) and all(job.has_journal for job in jobs)
        return dict(self._ordered) if exact else {}

    def report_again(self) -> None:
        """Let every shard report what the coordinator may not have heard, if it goes on exactly."""
        for shard in self.orders():
            self.submit(shard, ReportsAsked())

    def _take_back(self, shard: Shard) -> None:
        """Take over a shard that knows what it was."""
        record = shard.record()
        assert record is not None
        self._holdings[shard.index] = Holding.of(record.job, record.slices)
        self._generations[shard.index] = record.generation
        self._ordered[shard.index] = record.orders
        if record.ended is not None:
            self._end = JobEnded(record.orders, record.ended)
        for pull, _ in record.waiting:  # whoever waited asks again
            self.submit(shard.index, PullCancelled(pull.request))

    def generation(self, shard: int) -> int:
        """Return the generation of a shard's weights."""
        return self._generations.get(shard, 0)

    def reopen(self) -> None:
        """Take notice that a job which had ended goes on."""
        self._end = None
        self._going = set(range(self.first, self.first + len(self._lanes)))
        if self.ended.done():
            self.ended = self._loop.create_future()
            self.reopened.set()

    async def _restore(self, shard: int, order: GenerationBegun) -> None:
        """Bring a shard the order with its cut, and then what came after."""
        try:
            cut = await self.keeper.read(order, shard)
        except RequestError as error:
            del self._held_back[shard]  # what came after is of a generation that is given up
            self.keeper.refuse(order, shard, error)
            return
        later = self._held_back.pop(shard)
        self.order(shard - self.first, replace(order, cut=cut))
        for each in later:
            self.order(shard - self.first, each)

    async def statistics(self) -> list[HostStatistics]:
        """Return how the shards stand."""
        found = []
        for lane in self._lanes:
            statistics = lane.host.try_statistics()
            if statistics is None:
                statistics = await self._loop.run_in_executor(self._pool, lane.host.statistics)
            found.append(statistics)
        return found

    def patience_seconds(self) -> float:
        """Return how long the job waits for a lost server; 0 before there is a job."""
        for _, holding in self.holdings():
            return holding.job.lease_seconds + holding.job.restart_timeout_seconds
        return 0.0

    def versions(self) -> dict[int, int]:
        """Return the version of each shard that is not busy at this moment. Never blocks."""
        found = (lane.host.try_statistics() for lane in self._lanes)
        return {each.shard.shard: each.shard.version for each in found if each is not None}

    def holdings(self) -> Sequence[tuple[int, Holding]]:
        """Return what each shard owns, by number; nothing before the job is announced."""
        return sorted(self._holdings.items())

    def _is_cheap(self, shard: int, event: ShardEvent) -> bool:
        match event:
            case GenerationBegun():
                return False
            case PushReceived() | CutAsked() | CutOrdered():
                return self._holdings[shard].bytes <= CHEAP_BYTES_MAX
            case RoundClosed():
                holding = self._holdings[shard]
                return holding.bytes * holding.job.replicas <= 4 * CHEAP_BYTES_MAX
            case Sealed() | InitialiseReceived():
                return self._holdings[shard].bytes <= CHEAP_BYTES_MAX
            case _:
                return True

    def _deliver(self, effect: ShardEffect | Broken) -> None:
        match effect:
            case Reported():
                self._report(effect.report)
                self._note_end(effect.report)
            case CutMade():
                self.keeper.keep(effect, self.generation(effect.cut.shard))
            case Broken():
                self._broken(effect)
            case _:
                self._requests.settle(effect.request, effect)

    def _note_end(self, report: Report) -> None:
        if self._end is None or not isinstance(report, OrderHandled | CaughtUp):
            return
        if report.number < self._end.number:
            return
        self._going.discard(report.shard)
        if not self._going and not self.ended.done():
            self.ended.set_result(self._end.reason)

    def _broken(self, broken: Broken) -> None:
        name = type(broken.event).__name__
        where = fields(shard=broken.shard)
        log.error("Shard %d failed at %s", broken.shard, name, exc_info=broken.error, extra=where)
        number = getattr(broken.event, "request", None)
        if number is None:
            self._fail(f"A shard failed inside at {name}; the log says more.")
        else:
            self._requests.fail(number, broken.error)


def _shard_trace(trace: TraceFile | None, server: int, shard: int) -> ShardTrace | None:
    if trace is None:
        return None
    return ShardTrace(ShardDiary(server, shard, trace.recorders[shard_row(server, shard)]), trace.now)
