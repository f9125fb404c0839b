"""One server process, from its first port to its last sentence."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import NoReturn

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from paramserver.diaries import shard_row
from paramserver.errors import JobError, RequestError
from paramserver.events import Report
from paramserver.logs import announce
from paramserver.security.guard import Guard
from paramserver.shard import Shard
from paramserver.storage import sync_names
from paramserver.storage.trace_file import TraceFile
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.buffers import Buffers
from server.chaos import faulty_calls
from server.checkpoints import CutKeeper
from server.comeback import come_back
from server.ended import TOLD_SECONDS, Ending, ending_of
from server.first import FirstServer
from server.journal import ShardJournal
from server.linked import LinkedServer
from server.links import INTERNAL
from server.listening import SERVER_OPTIONS, bind
from server.metrics import Metrics
from server.options import Options
from server.requests import Requests
from server.service import SERVICE, Service
from server.shards import Shards
from server.stops import Stop, Stops

log = logging.getLogger("server")

POOL_THREADS = 4
"""Threads for updates, each in one shard at a time; NumPy works without the interpreter's lock."""

STOP_SECONDS = 1.0
"""How long calls that are under way may take to end once the server stops."""


async def serve(options: Options) -> int:
    """Serve until the job is over or something ends it.

    The first signal ends the job in order: every server writes its slices, and the coordinator manifest and
    summary. The second ends this process at once. A server that comes back ends at once with SIGTERM, and the
    job waits for it.

    Returns:
        The exit code: 0 the job finished, 1 it failed, 130 or 143 interrupted.

    Raises:
        RequestError: the options cannot be met: a port in use, a run folder that cannot be.
        JobError: the coordinator cannot be reached.
    """
    stops = Stops(options.exit_with_parent)
    if options.restarts and (ending := ending_of(options.out)) is not None:
        return await _tell_ending(options, ending, stops)
    async with AsyncExitStack() as stack:
        server = _Server(options, stops, stack)
        await server.start()
        running = asyncio.create_task(server.run())
        try:
            stop = await stops.before(running)
            if stop is None:
                return running.result()
            if stop.number is signal.SIGTERM and options.comes_back:
                _go_away(stop)
            log.log(logging.INFO if stop.number else logging.ERROR, "%s", stop.sentence)
            if stop.number is not None and server.interrupt(stop.number):
                await stops.before(running)
            server.tell_all(stop.sentence)
            return stop.code
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, JobError, RequestError):
                await running


async def _tell_ending(options: Options, ending: Ending, stops: Stops) -> int:
    """Say to whoever still comes that the run is over, for a while; return the exit code."""
    async with AsyncExitStack() as stack:
        if options.server == 0:
            server = _Server(replace(options, out=None, trace=None, recover=False), stops, stack)
            await server.start()
            server.end(ending.sentence)
        log.log(logging.ERROR if ending.code else logging.INFO, "%s", ending.sentence)
        if options.server == 0:
            await stops.before(asyncio.create_task(asyncio.sleep(TOLD_SECONDS, ending.code)))
    return ending.code


def _go_away(stop: Stop) -> NoReturn:
    """End at once, as kill -9 would end it: all that has to be there for a comeback is on the disk."""
    log.info("%s The job waits for it to be started again.", stop.sentence)
    logging.shutdown()
    os._exit(stop.code)


class _Server:
    """What one process consists of: its shards, a port, and its part in the job, as the first or linked."""

    def __init__(self, options: Options, stops: Stops, stack: AsyncExitStack) -> None:
        self._options = options
        self._stops = stops
        self._stack = stack
        self._requests = Requests(asyncio.get_running_loop())
        self._buffers = Buffers()
        self._part: FirstServer | LinkedServer | None = None
        self._health = health.aio.HealthServicer()
        pool = ThreadPoolExecutor(POOL_THREADS, "shard")
        self._trace = _open_trace(options)
        stack.callback(self._write_trace)
        stack.callback(pool.shutdown, wait=True)
        journals = _open_journals(options, stops, stack)
        back = _come_back(options, self._buffers) if options.recover else {}
        for index, shard in back.items():
            journals[index].resume(shard)
        self._shards = Shards(
            options.server,
            options.shards,
            pool,
            self._requests,
            self._buffers,
            self._report,
            stops.fail,
            CutKeeper(options.out, options.servers * options.shards, self._cut_written, journals),
            self._trace,
            journals,
            back,
            returns=options.recover,
        )

    async def start(self) -> None:
        """Bind the port, take part in the job, and say where this server listens."""
        options = self._options
        if options.out is not None:
            try:
                options.out.mkdir(parents=True, exist_ok=True)
                sync_names(options.out)
            except OSError as error:
                raise RequestError(f"--out {options.out} cannot be made: {error.strerror}.") from error
        part = self._part = self._make_part()
        service = Service(
            self._shards,
            self._requests,
            self._buffers,
            part.coordinator,
            options.coordinator,
            options.limits,
        )
        server = self._make_server([service.handler(), *part.handlers()])
        address = options.advertised(bind(server, options.listen, options.doors))
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        self._stack.push_async_callback(server.stop, STOP_SECONDS)
        part.register(address)
        metrics = None
        if options.metrics_port is not None:
            metrics = Metrics(service.status, options.metrics_listen, options.metrics_port, options.doors)
            self._stack.callback(metrics.close)
        gc.freeze()  # what is here by now stays, so the collector need not look at it again
        announce(f"listening {address}")
        log.info("Server %d of %d listens at %s.", options.server, options.servers, address)
        if metrics is not None:
            announce(f"metrics {metrics.url}")
            log.info("Metrics are served at %s.", metrics.url)

    async def run(self) -> int:
        """Serve the job to its end, and return the exit code."""
        assert self._part is not None, "it has been started"
        await self._part.reach()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return await self._part.run()

    def interrupt(self, number: signal.Signals) -> bool:
        """End the job, so that it is saved; say whether there is anything to wait for."""
        return self.end(
            f"The job was interrupted: server {self._options.server} was stopped by {number.name}."
        )

    def end(self, reason: str) -> bool:
        """End the job, or what might have become one; say whether there is anything to wait for."""
        return self._part is not None and self._part.interrupt(reason)

    def tell_all(self, sentence: str) -> None:
        """Answer whoever still waits."""
        self._requests.fail_all(JobError(sentence))

    def _make_part(self) -> FirstServer | LinkedServer:
        if self._options.server:
            return LinkedServer(self._options, self._shards, self._requests, self._stack)
        return FirstServer(self._options, self._shards, self._requests, self._stops, self._stack)

    def _make_server(self, handlers: Sequence[grpc.GenericRpcHandler]) -> aio.Server:
        options = self._options
        server = aio.server(
            interceptors=[Guard(options.doors, INTERNAL), *faulty_calls(options, SERVICE, self._stack)],
            options=SERVER_OPTIONS + options.limits.grpc_options(),
        )
        server.add_generic_rpc_handlers(handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, *(() if options.server else (INTERNAL,)), "grpc.health.v1.Health")
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
        return server

    def _report(self, report: Report) -> None:
        if self._part is not None:
            self._part.report(report)

    def _cut_written(self, message: pb.CutWritten) -> None:
        if self._part is not None:
            self._part.cut_written(message)

    def _write_trace(self) -> None:
        """Write what was recorded, at the very end and whatever that is."""
        if self._trace is None:
            return
        coordinator = None if self._part is None else self._part.coordinator
        try:
            self._trace.write(None if coordinator is None else coordinator.began_at)
        except JobError as error:
            log.error("%s", error)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)


def _open_trace(options: Options) -> TraceFile | None:
    if options.trace is None:
        return None
    rows = [shard_row(options.server, shard) for shard in options.own_shards]
    return TraceFile(options.trace, rows)


def _open_journals(options: Options, stops: Stops, stack: AsyncExitStack) -> dict[int, ShardJournal]:
    """Begin the journal of each shard; none without a run folder."""
    if options.out is None:
        return {}
    bytes_max = options.journal_bytes_max // options.shards
    journals = {
        shard: ShardJournal(options.out, shard, bytes_max, stops.fail_from_thread)
        for shard in options.own_shards
    }
    for journal in journals.values():
        stack.callback(journal.close)
    return journals


def _come_back(options: Options, buffers: Buffers) -> dict[int, Shard]:
    """Return the shards of this server as their journals have them; none unless all can be had."""
    assert options.out is not None, "the options have been checked"
    shards: dict[int, Shard] = {}
    for index in options.own_shards:
        shard = come_back(options.out, index, options.servers * options.shards, buffers.empty)
        if shard is None:
            return {}
        record = shard.record()
        if options.resume and record is not None and record.ended:
            return {}  # what ended before its time goes on from what was kept then
        shards[index] = shard
    return shards
