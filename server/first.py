"""What the first server is beside its shards: the coordinator, the end of the links, and of the job."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import grpc

from paramserver.coordinator import Coordinator
from paramserver.events import EndAsked, Report, ServerRegistered
from paramserver.storage import (
    checkpoints_begun,
    has_checkpoint,
    has_job_record,
    newest_checkpoint,
    read_job_record,
    read_kept,
    resumed,
    seconds_trained,
    write_text,
)
from paramserver.storage.journal import read_decisions
from paramserver.wire import paramserver_pb2 as pb
from server.chaos import sending
from server.checkpoints import Checkpoints
from server.coordination import CoordinatorHost
from server.decisions import DecisionJournal
from server.finish import Finish, conclude, keep_shards, say_farewell
from server.links import Links
from server.options import Options
from server.progress import Diary
from server.requests import Requests
from server.shards import Shards
from server.stops import Stops, on_loop

log = logging.getLogger("server")


class FirstServer:
    """The first server's part.

    Args:
        options: of this server.
        shards: its own.
        requests: where answers go.
        stops: told of what fails.
        stack: closes at the end what is opened here.

    Attributes:
        coordinator: of the job.
    """

    def __init__(
        self, options: Options, shards: Shards, requests: Requests, stops: Stops, stack: AsyncExitStack
    ) -> None:
        self._options = options
        self._shards = shards
        self._requests = requests
        self._stops = stops
        self._stack = stack
        self._loop = asyncio.get_running_loop()
        self._checkpoints: Checkpoints | None = None
        self._was_over = False  # when this coordinator took over from an earlier one
        if options.out is not None and options.job:
            write_text(options.out / "job.toml", options.job)
        self.coordinator = self._make_coordinator()
        self.coordinator.scorer = self.coordinator.scorer or options.expect_evaluator
        stack.callback(self.coordinator.stop)
        self.coordinator.connect(0, shards.order)
        self._links = Links(self.coordinator, options.servers, options.shards, sending(options, stack))
        self._links.cut_written = self.cut_written

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what else a gRPC server has to serve here."""
        return [self._links.handler()]

    def register(self, address: str) -> None:
        """Take part, at this address."""
        self._stack.push_async_callback(self._links.close)
        known = self._shards.orders() or None
        self.coordinator.handle(ServerRegistered(0, address, self._options.shards, known))
        self._shards.report_again()

    async def reach(self) -> None:
        """Wait until all servers are up; end the job where they do not come, or it has been ended."""
        seconds = self._options.connect_timeout_seconds
        registered = asyncio.create_task(self._links.all_registered.wait())
        await asyncio.wait(
            (registered, self._shards.ended), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if not registered.done() and not self._shards.ended.done():
            self.coordinator.handle(
                EndAsked(
                    f"{self._links.missing()} did not come up within {seconds:g} s. Start all "
                    f"{self._options.servers} servers, or raise --connect-timeout."
                )
            )
        registered.cancel()

    async def run(self) -> int:
        """Serve the job to its end, and return the exit code."""
        options, coordinator = self._options, self.coordinator
        if self._was_over and options.out is not None:
            log.info("The job was over, and its weights are kept; only the summary may be missing.")
            conclude(options.out, coordinator)
            await say_farewell(coordinator)
            return 0
        failure: str | None = None
        while failure is None:
            reason = await self._watch()
            log.info("The job is over: %s", reason or "every replica has finished.")
            own = await keep_shards(options.out, self._shards, self._requests)
            finish = Finish(
                options.out, coordinator, self._links, options.score_grace_seconds, self._checkpoints
            )
            failure = await finish.run(reason, own)
            if failure is None:
                self._shards.reopen()
        if coordinator.interrupted and failure == reason:
            where = f"saved in {options.out}" if finish.is_kept else "lost: there was no --out"
            if finish.is_kept or options.out is None:
                log.info("What there is of the run is %s.", where)
        elif failure:
            log.error("%s", failure)
        return 1 if failure else 0

    def interrupt(self, reason: str) -> bool:
        """End the job, so that it is saved; say whether there is anything to wait for."""
        self.coordinator.interrupt(reason)
        return True

    def report(self, report: Report) -> None:
        """Bring what a shard reports to the coordinator."""
        self.coordinator.handle(report)

    def cut_written(self, message: pb.CutWritten) -> None:
        """Take what became of a shard's cut."""
        if self._checkpoints is not None:
            self._checkpoints.take(message)

    async def _watch(self) -> str:
        """Wait for the job's end, keeping a diary if there is a run folder; return why it failed, if so."""
        if self._options.out is None:
            return await self._shards.ended
        diary = Diary(self._options.out, self.coordinator, self._shards)
        self._stack.callback(diary.close)
        writing = asyncio.create_task(diary.run())
        try:
            reason = await self._shards.ended
        finally:
            writing.cancel()
        diary.write_progress()
        return reason

    def _make_coordinator(self) -> CoordinatorHost:
        options = self._options
        recovers = options.recovers
        coordinator = Coordinator(options.servers, options.shards, recovers=recovers)
        host = CoordinatorHost(coordinator, self._requests, options.shards, self._stops.fail)
        if options.out is not None and recovers:
            self._keep(options.out, host, coordinator)
        return host

    def _keep(self, out: Path, host: CoordinatorHost, coordinator: Coordinator) -> None:
        """Write down what is decided, and go on with what an earlier coordinator has if that is wished."""
        options = self._options
        journal = DecisionJournal(
            out, self._stops.fail_from_thread, lambda: on_loop(self._loop, host.release)
        )
        self._stack.callback(journal.close)
        host.keep_journal(journal)
        decided = read_decisions(out) if options.recover else None
        if decided is not None or (options.recover and has_job_record(out)):
            record, orders = decided or (read_job_record(out), [])
            if record.kept is not None or has_checkpoint(out, record):
                number, problems = newest_checkpoint(out, record)
                for problem in problems:
                    log.warning("%s", problem)
                cuts = max(record.cuts, checkpoints_begun(out))
                record = replace(record, kept=read_kept(out, number), cuts=cuts)
            seconds = seconds_trained(out, record, goes_on=not options.resume)
            if seconds:
                host.began_at = self._loop.time() - seconds
            if options.resume:
                record = resumed(record, exactly=bool(self._shards.orders()))
            self._was_over = record.over
            coordinator.restore(record, self._loop.time(), orders, reopens=options.resume)
            if decided is not None:
                journal.begin(record, orders)
            if decided is not None or self._was_over:
                host.resume()
        total = options.servers * options.shards
        self._checkpoints = Checkpoints(out, host, total, options.checkpoint_keep)
        self._stack.push_async_callback(self._checkpoints.end)
        host.remember = self._checkpoints.remember
