"""One server process, from its first port to its last sentence."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from paramserver.chaos.plan import SERVER, parse_own_faults
from paramserver.coordinator import Coordinator
from paramserver.diaries import shard_row
from paramserver.errors import Failure, JobError, RequestError
from paramserver.events import EndAsked, Order, Report, ServerRegistered
from paramserver.faults import Fates
from paramserver.logs import announce
from paramserver.security.doors import Doors
from paramserver.security.guard import Guard
from paramserver.shard import Shard
from paramserver.storage import (
    has_checkpoint,
    has_job_record,
    newest_checkpoint,
    read_job_record,
    read_kept,
    resumed,
    seconds_trained,
    write_job_record,
    write_text,
)
from paramserver.storage.journal import read_decisions
from paramserver.storage.trace_file import TraceFile
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.buffers import Buffers
from server.chaos import FaultyService
from server.checkpoints import Checkpoints, CutKeeper
from server.comeback import come_back
from server.coordination import CoordinatorHost
from server.decisions import DecisionJournal
from server.finish import CHECKPOINT_SECONDS, Finish, conclude, keep_shards
from server.journal import ShardJournal
from server.link import KEEPALIVE, Link
from server.links import INTERNAL, Links
from server.metrics import Metrics
from server.options import Options
from server.progress import Diary
from server.requests import Requests
from server.service import SERVICE, Service
from server.shards import Shards

log = logging.getLogger("server")

POOL_THREADS = 4
"""Threads for updates, each in one shard at a time; NumPy works without the interpreter's lock."""

STOP_SECONDS = 1.0
"""How long calls that are under way may take to end once the server stops."""

PENDING_CALLS_MAX = 50_000
"""Calls that gRPC holds until the event loop takes them; above it, calls are cancelled."""

SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else two servers could share a port, and nobody would know
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # From 1,000 calls that the program has not taken yet, gRPC would cancel some of them at random.
    ("grpc.server.max_pending_requests", PENDING_CALLS_MAX),
    ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS_MAX),
    # Who connects and says nothing, or nothing that is HTTP/2, is cut; and who makes no call for long.
    ("grpc.server_handshake_timeout_ms", 20_000),
    # What may be under way on a stream before the program has read it. By itself gRPC lets that grow with the
    # speed of the network: 200 clients that pushed at once had 2.6 GB under way, and now a quarter of it.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    ("grpc.max_connection_idle_ms", 600_000),
    *KEEPALIVE,
)

INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True, slots=True)
class Stop:
    """Something ends this server before the job does.

    Attributes:
        sentence: why, for people.
        code: exit code of the process.
        number: the signal, if it was one: then the run is saved first.
    """

    sentence: str
    code: int
    number: signal.Signals | None = None


async def serve(options: Options) -> int:
    """Serve until the job is over or something ends it.

    The first signal ends the job in order: every server writes its slices, and the coordinator manifest and
    summary. The second ends this process at once.

    Returns:
        The exit code: 0 the job finished, 1 it failed, 130 or 143 interrupted.

    Raises:
        RequestError: the options cannot be met: a port in use, a run folder that cannot be.
        JobError: the coordinator cannot be reached.
    """
    stops = _listen_for_stops(options.exit_with_parent)
    async with AsyncExitStack() as stack:
        server = _Server(options, stops, stack)
        await server.start()
        running = asyncio.create_task(server.run())
        try:
            stop = await _first_of(running, stops)
            if stop is None:
                return running.result()
            log.log(logging.INFO if stop.number else logging.ERROR, "%s", stop.sentence)
            if stop.number is not None and server.interrupt(stop.number):
                await _first_of(running, stops)
            server.tell_all(stop.sentence)
            return stop.code
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, JobError, RequestError):
                await running


async def _first_of(running: asyncio.Task[int], stops: asyncio.Queue[Stop]) -> Stop | None:
    """Wait for the server's own end, which gives None, or for something that ends it."""
    stopping = asyncio.create_task(stops.get())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        return stopping.result()
    stopping.cancel()
    return None


class _Server:
    """What one process consists of."""

    def __init__(self, options: Options, stops: asyncio.Queue[Stop], stack: AsyncExitStack) -> None:
        self._options = options
        self._stops = stops
        self._stack = stack
        self._loop = asyncio.get_running_loop()
        self._requests = Requests(self._loop)
        self._buffers = Buffers()
        self._coordinator: CoordinatorHost | None = None
        self._links: Links | None = None
        self._link: Link | None = None
        self._is_linked = False
        self._was_over = False  # when this coordinator took over from an earlier one
        self._health = health.aio.HealthServicer()
        pool = ThreadPoolExecutor(POOL_THREADS, "shard")
        self._trace = _open_trace(options)
        stack.callback(self._write_trace)
        stack.callback(pool.shutdown, wait=True)
        self._checkpoints: Checkpoints | None = None
        self._keeper = CutKeeper(options.out, options.servers * options.shards, self._cut_written)
        journals = _open_journals(options, self._fail_from_thread, stack)
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
            self._fail,
            self._keeper,
            self._trace,
            journals,
            back,
            returns=options.recover,
        )

    async def start(self) -> None:
        """Bind the port, reach the coordinator, and say where this server listens."""
        options = self._options
        if options.out is not None:
            try:
                options.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RequestError(f"--out {options.out} cannot be made: {error.strerror}.") from error
        if options.server == 0:
            self._keep_job()
            self._coordinator = self._make_coordinator()
            self._coordinator.scorer = options.expect_evaluator
            self._stack.callback(self._coordinator.stop)
            self._coordinator.connect(0, self._shards.order)
            self._links = Links(self._coordinator, options.servers, options.shards)
            self._links.cut_written = self._cut_written
        server = aio.server(
            interceptors=[Guard(options.doors, INTERNAL), *self._faulty()],
            options=SERVER_OPTIONS + options.limits.grpc_options(),
        )
        service = Service(
            self._shards,
            self._requests,
            self._buffers,
            self._coordinator,
            options.coordinator,
            options.limits,
        )
        handlers = [service.handler()]
        if self._links is not None:
            handlers.append(self._links.handler())
        server.add_generic_rpc_handlers(handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, *((INTERNAL,) if self._links else ()), "grpc.health.v1.Health")
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
        port = _bind(server, options.listen, options.doors)
        address = options.advertised(port)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        self._stack.push_async_callback(server.stop, STOP_SECONDS)
        if self._links is not None:
            self._stack.callback(self._links.close)
        if self._coordinator is not None:
            known = self._shards.orders() or None
            self._coordinator.handle(ServerRegistered(0, address, options.shards, known))
            self._shards.report_again()
        else:
            self._link = Link(
                options.coordinator,
                options.doors.of_link(),
                options.server,
                address,
                options.shards,
                self._order,
                returns=options.recover,
                orders=self._shards.orders,
            )
            self._stack.push_async_callback(self._link.close)
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

    def _faulty(self) -> list[FaultyService]:
        """Return what lets calls go wrong on purpose; at the end it is said what has."""
        if not self._options.chaos:
            return []
        faults = parse_own_faults(self._options.chaos)
        if faults.blows:
            raise RequestError(
                f"Of a server only calls go wrong, but found '{faults.blows[0]}'. Say it to a worker."
            )
        fates = Fates(faults.chances, self._options.chaos_seed, (SERVER, self._options.server))
        faulty = FaultyService(fates, SERVICE)
        self._stack.callback(lambda: log.info("Gone wrong on purpose: %s.", faulty.account()))
        return [faulty]

    async def run(self) -> int:
        """Serve the job to its end, and return the exit code."""
        options = self._options
        if self._link is not None:
            await self._link.connect(options.connect_timeout_seconds)
            self._shards.report_again()
            self._is_linked = True
        elif self._links is not None:
            await self._wait_for_servers(self._links)
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        if self._link is not None:
            return await self._run_linked(self._link)
        assert self._coordinator is not None
        assert self._links is not None
        if self._was_over and options.out is not None:
            log.info("The job was over, and its weights are kept; only the summary may be missing.")
            conclude(options.out, self._coordinator)
            return 0
        failure: str | None = None
        while failure is None:
            reason = await self._watch(self._coordinator)
            log.info("The job is over: %s", reason or "every replica has finished.")
            own = await keep_shards(options.out, self._shards, self._requests, options.servers)
            finish = Finish(options.out, self._coordinator, self._links, options.score_grace_seconds)
            failure = await finish.run(reason, own)
            if failure is None:
                self._shards.reopen()
        if self._coordinator.interrupted and failure == reason:
            where = f"saved in {options.out}" if options.out else "lost: there was no --out"
            log.info("What there is of the run is %s.", where)
        elif failure:
            log.error("%s", failure)
        return 1 if failure else 0

    async def _watch(self, coordinator: CoordinatorHost) -> str:
        """Wait for the job's end, keeping a diary if there is a run folder; return why it failed, if so."""
        if self._options.out is None:
            return await self._shards.ended
        diary = Diary(self._options.out, coordinator, self._shards)
        self._stack.callback(diary.close)
        writing = asyncio.create_task(diary.run())
        try:
            reason = await self._shards.ended
        finally:
            writing.cancel()
        diary.write_progress()
        return reason

    async def _run_linked(self, link: Link) -> int:
        """Serve the job to its end in a server that is not the first, over one link after the other."""
        while True:
            carrying = asyncio.create_task(link.run())
            try:
                return await self._serve_link(link, carrying)
            except JobError as error:
                patience = self._shards.patience_seconds()
                if error.failure is not Failure.UNAVAILABLE or not self._options.recovers or not patience:
                    raise
                log.warning("%s Looking for it for up to %g s.", error, patience)
                await link.reconnect(patience)
                self._shards.report_again()
            finally:
                carrying.cancel()

    async def _serve_link(self, link: Link, carrying: asyncio.Task[None]) -> int:
        options, shards = self._options, self._shards
        while True:
            await asyncio.wait((carrying, shards.ended), return_when=asyncio.FIRST_COMPLETED)
            if not shards.ended.done():
                carrying.result()
                raise JobError(f"The coordinator at {options.coordinator} stopped before the job was over.")
            reason = shards.ended.result()
            shards.reopened.clear()
            log.info("The job is over: %s", reason or "every replica has finished.")
            own = await keep_shards(options.out, shards, self._requests, options.servers)
            link.written(own)
            reopened = asyncio.create_task(shards.reopened.wait())
            await asyncio.wait(
                (carrying, reopened),
                timeout=CHECKPOINT_SECONDS + options.score_grace_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            reopened.cancel()
            if carrying.done():
                carrying.result()
                return 1 if reason or own.failure else 0
            if not shards.reopened.is_set():
                raise JobError(f"The coordinator at {options.coordinator} did not end the job.")

    def _make_coordinator(self) -> CoordinatorHost:
        """Return the coordinator, with what an earlier one has written down if it is to go on with that."""
        options, out = self._options, self._options.out
        recovers = options.recovers
        coordinator = Coordinator(options.servers, options.shards, recovers=recovers)
        host = CoordinatorHost(coordinator, self._requests, options.shards, self._fail, recovers=recovers)
        if out is None or not recovers:
            return host
        journal = DecisionJournal(out, self._fail_from_thread, lambda: self._on_loop(host.release))
        self._stack.callback(journal.close)
        host.keep_journal(journal)
        decided = read_decisions(out) if options.recover else None
        if decided is not None or (options.recover and has_job_record(out)):
            record, orders = decided or (read_job_record(out), [])
            if decided is None or has_checkpoint(out):
                number, problems = newest_checkpoint(out)
                for problem in problems:
                    log.warning("%s", problem)
                record = replace(record, kept=read_kept(out, number), cuts=max(record.cuts, number + 1))
            seconds = seconds_trained(out, record, goes_on=not options.resume)
            if seconds:
                host.began_at = asyncio.get_running_loop().time() - seconds
            if options.resume:
                record = resumed(record)
            self._was_over = record.over
            coordinator.restore(record, self._loop.time(), orders)
            if decided is not None:
                journal.begin(record, orders)
                host.resume()
        host.remember = partial(write_job_record, out)
        total = options.servers * options.shards
        self._checkpoints = Checkpoints(out, host, total, options.checkpoint_keep)
        return host

    def _cut_written(self, message: pb.CutWritten) -> None:
        if self._checkpoints is not None:
            self._checkpoints.take(message)
        elif self._link is not None:
            self._link.cut_written(message)

    def interrupt(self, number: signal.Signals) -> bool:
        """End the job, so that it is saved; say whether there is anything to wait for."""
        reason = f"The job was interrupted: server {self._options.server} was stopped by {number.name}."
        if self._coordinator is not None:
            self._coordinator.interrupt(reason)
        elif self._link is not None and self._is_linked:
            self._link.stopping(reason)
        return self._coordinator is not None or self._is_linked

    def tell_all(self, sentence: str) -> None:
        """Answer whoever still waits."""
        self._requests.fail_all(JobError(sentence))

    def _order(self, local: int, order: Order) -> None:
        self._shards.order(local, order)

    def _report(self, report: Report) -> None:
        if self._coordinator is not None:
            self._coordinator.handle(report)
        elif self._link is not None:
            self._link.report(report)

    def _fail_from_thread(self, sentence: str) -> None:
        self._on_loop(partial(self._fail, sentence))

    def _on_loop(self, call: Callable[[], object]) -> None:
        """Have something done on the event loop, from any thread."""
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(call)

    def _fail(self, sentence: str) -> None:
        self._stops.put_nowait(Stop(sentence, 1))

    def _write_trace(self) -> None:
        """Write what was recorded, at the very end and whatever that is."""
        if self._trace is None:
            return
        try:
            self._trace.write(None if self._coordinator is None else self._coordinator.began_at)
        except JobError as error:
            log.error("%s", error)

    async def _wait_for_servers(self, links: Links) -> None:
        """Wait until all servers are up; end the job where they do not come, or it has been ended."""
        assert self._coordinator is not None
        seconds = self._options.connect_timeout_seconds
        registered = asyncio.create_task(links.all_registered.wait())
        await asyncio.wait(
            (registered, self._shards.ended), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if not registered.done() and not self._shards.ended.done():
            self._coordinator.handle(
                EndAsked(
                    f"{links.missing()} did not come up within {seconds:g} s. Start all "
                    f"{self._options.servers} servers, or raise --connect-timeout."
                )
            )
        registered.cancel()

    def _keep_job(self) -> None:
        if self._options.out is not None and self._options.job:
            write_text(self._options.out / "job.toml", self._options.job)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)


def _open_trace(options: Options) -> TraceFile | None:
    if options.trace is None:
        return None
    first = options.server * options.shards
    return TraceFile(
        options.trace, [shard_row(options.server, shard) for shard in range(first, first + options.shards)]
    )


def _open_journals(
    options: Options, fail: Callable[[str], None], stack: AsyncExitStack
) -> dict[int, ShardJournal]:
    """Begin the journal of each shard; none without a run folder."""
    if options.out is None:
        return {}
    first, bytes_max = options.server * options.shards, options.journal_bytes_max // options.shards
    journals = {
        shard: ShardJournal(options.out, shard, bytes_max, fail)
        for shard in range(first, first + options.shards)
    }
    for journal in journals.values():
        stack.callback(journal.close)
    return journals


def _come_back(options: Options, buffers: Buffers) -> dict[int, Shard]:
    """Return the shards of this server as their journals have them; none unless all can be had."""
    assert options.out is not None, "the options have been checked"
    first = options.server * options.shards
    shards: dict[int, Shard] = {}
    for index in range(first, first + options.shards):
        shard = come_back(options.out, index, buffers.empty)
        if shard is None:
            return {}
        shards[index] = shard
    return shards


def _bind(server: aio.Server, address: str, doors: Doors) -> int:
    credentials = doors.credentials()
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        port = 0
    if not port:
        raise RequestError(
            f"{address} cannot be listened on: another program uses that port, or the host is not of this "
            "machine. Choose another with --listen."
        )
    return port


def _listen_for_stops(exit_with_parent: bool) -> asyncio.Queue[Stop]:
    """Return a queue of what ends this server: signals, and the end of the parent."""
    loop = asyncio.get_running_loop()
    stops: asyncio.Queue[Stop] = asyncio.Queue()
    for number, code in INTERRUPTED.items():
        stop = Stop(f"The server was stopped by {number.name}.", code, number)
        loop.add_signal_handler(number, stops.put_nowait, stop)
    if exit_with_parent:

        def watch() -> None:
            while os.read(sys.stdin.fileno(), 4096):
                pass
            stop = Stop("The process that started this server has ended.", 1)
            with suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(stops.put_nowait, stop)

        threading.Thread(target=watch, name="parent", daemon=True).start()
    return stops
