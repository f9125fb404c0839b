"""The link between servers: reports flow up to the coordinator, numbered orders flow down, each in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from grpc import aio

from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import Order, Report, ServerLost, ServerRegistered
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.numbers import named, whole
from paramserver.wire.orders import decode_order, decode_report, encode_order, encode_report
from paramserver.wire.paramserver_pb2_grpc import InternalStub
from paramserver.wire.refusals import error_of
from server.coordination import CoordinatorHost
from server.service import Call, guarded
from server.transfers import Context

log = logging.getLogger("server")

INTERNAL = pb.DESCRIPTOR.services_by_name["Internal"].full_name
RETRY_SECONDS = 0.25
ATTEMPT_SECONDS = 5.0
"""How long one attempt to reach the coordinator may take."""

KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""A machine that vanishes without closing its connections is noticed within 20 s."""

QUICK_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
"""Servers of a job start together, and by default gRPC would soon pause for seconds between attempts."""

Written = dict[int, pb.CheckpointWritten]


class LinkService:
    """The coordinator's end: one link from each other server.

    Args:
        coordinator: gets registrations, reports and losses.
        servers: how many servers the job has.
        shards: how many shards each has.

    Attributes:
        written: what each server has said of its part of the final checkpoint.
    """

    def __init__(self, coordinator: CoordinatorHost, servers: int, shards: int) -> None:
        self._coordinator = coordinator
        self._servers = servers
        self._shards = shards
        self._queues: dict[int, asyncio.Queue[pb.LinkDown | None]] = {}
        self._news = asyncio.Event()
        self._closing = False
        self.written: Written = {}
        self.all_registered = asyncio.Event()
        self._registered: set[int] = set()
        self._note_registered(0)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server needs to serve links."""
        call: Call = guarded("Link", self._link)
        handler: Any = grpc.stream_stream_rpc_method_handler(
            call, pb.LinkUp.FromString, pb.LinkDown.SerializeToString
        )
        return grpc.method_handlers_generic_handler(INTERNAL, {"Link": handler})

    async def wait_written(self, seconds: float) -> list[int]:
        """Wait until every server that is still linked has written its part.

        Args:
            seconds: no longer than this.

        Returns:
            The servers that have not.
        """
        try:
            async with asyncio.timeout(seconds):
                while any(server not in self.written for server in self._queues):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return [server for server in range(1, self._servers) if server not in self.written]

    def missing(self) -> str:
        """Name the servers that have not registered, such as ``Server 1``."""
        missing = [str(server) for server in range(self._servers) if server not in self._registered]
        return f"Server{'s' if len(missing) > 1 else ''} {', '.join(missing)}"

    def close(self) -> None:
        """Close all links: the other servers then stop, too."""
        self._closing = True
        for queue in self._queues.values():
            queue.put_nowait(None)

    async def _link(self, messages: Any, context: Context) -> None:
        hello = await context.read()
        if hello is aio.EOF or hello.WhichOneof("part") != "hello":
            raise RequestError("The first message of a link has to be a hello.")
        server = self._check(hello.hello)
        queue: asyncio.Queue[pb.LinkDown | None] = asyncio.Queue()
        self._queues[server] = queue
        self._coordinator.connect(server, partial(self._send_order, server, queue))
        reason = "its link was closed."
        try:
            await context.send_initial_metadata(())
            address = hello.hello.address
            log.info("Server %d is up at %s.", server, address)
            self._coordinator.handle(ServerRegistered(server, address, hello.hello.shards))
            self._note_registered(server)
            sender = asyncio.create_task(self._send(queue, context))
            receiver = asyncio.create_task(self._receive(server, context))
            done, pending = await asyncio.wait((sender, receiver), return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            for task in done:
                task.result()
        except asyncio.CancelledError:
            reason = "its connection broke. It has ended, or the network has."
            raise
        except RequestError as error:
            reason = str(error)
            raise
        finally:
            del self._queues[server]
            self._coordinator.disconnect(server)
            self._news.set()
            if not self._closing:
                self._coordinator.handle(ServerLost(server, reason))

    def _check(self, hello: pb.Hello) -> int:
        if not 1 <= hello.server < self._servers:
            raise RequestError(
                f"There is no server {hello.server} in this job: the coordinator was started with --servers "
                f"{self._servers}, so the others are numbered 1 to {self._servers - 1}. Start them so."
            )
        if hello.server in self._registered:
            raise RequestError(
                f"Server {hello.server} has registered already. Give each server its own --server.",
                Fault.PRECONDITION,
            )
        if hello.shards != self._shards:
            raise RequestError(
                f"Server {hello.server} has {hello.shards} shards, and the coordinator has {self._shards}. "
                "Start all servers with the same --shards."
            )
        named(hello.address, "hello.address")
        return hello.server

    def _note_registered(self, server: int) -> None:
        self._registered.add(server)
        if len(self._registered) == self._servers:
            self.all_registered.set()

    def _send_order(
        self, server: int, queue: asyncio.Queue[pb.LinkDown | None], local: int, order: Order
    ) -> None:
        queue.put_nowait(encode_order(order, server * self._shards + local))

    async def _send(self, queue: asyncio.Queue[pb.LinkDown | None], context: Context) -> None:
        while (message := await queue.get()) is not None:
            await context.write(message)

    async def _receive(self, server: int, context: Context) -> None:
        while (message := await context.read()) is not aio.EOF:
            if message.WhichOneof("part") == "written":
                self.written[server] = message.written
                self._news.set()
                continue
            report = decode_report(message)
            if report is None:
                raise RequestError(f"Server {server} sent a message that this release does not know.")
            if report.shard // self._shards != server:
                raise RequestError(
                    f"Server {server} reported for shard {report.shard}, which is not its own."
                )
            self._coordinator.handle(report)


class Link:
    """Another server's end of its link.

    Args:
        coordinator: its address, ``host:port``.
        server: this server's index, >= 1.
        address: this server's address for clients.
        shards: how many shards it has.
        order: takes each order, with the shard's number within this server.
    """

    def __init__(
        self, coordinator: str, server: int, address: str, shards: int, order: Callable[[int, Order], None]
    ) -> None:
        self._address = coordinator
        self._server = server
        self._hello = pb.Hello(server=server, address=address, shards=shards)
        self._shards = shards
        self._order = order
        self._up: asyncio.Queue[pb.LinkUp] = asyncio.Queue()
        self._channel = aio.insecure_channel(coordinator, options=KEEPALIVE + QUICK_RECONNECT)
        self._call: Any = None

    def report(self, report: Report) -> None:
        """Send a report up, after all earlier ones."""
        self._up.put_nowait(encode_report(report))

    def written(self, message: pb.CheckpointWritten) -> None:
        """Say what this server has kept of the finished job."""
        self._up.put_nowait(pb.LinkUp(written=message))

    async def connect(self, seconds: float) -> None:
        """Open the link, trying again while the coordinator is not up.

        Args:
            seconds: give up after this long.

        Raises:
            JobError: the coordinator did not answer in time.
            RequestError: it does not want this server, and says why.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            error = await self._try_connect(min(ATTEMPT_SECONDS, max(0.1, deadline - loop.time())))
            if error is None:
                return
            if isinstance(error, RequestError) or error.failure is Failure.ENDED:
                raise error
            if loop.time() + RETRY_SECONDS > deadline:
                raise JobError(
                    f"The coordinator at {self._address} did not answer within {seconds:g} s. Is it running, "
                    "and is --coordinator its address?",
                    Failure.UNAVAILABLE,
                )
            await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Carry orders and reports until the coordinator closes the link.

        Raises:
            JobError: the link broke.
            RequestError: the coordinator sent what this release does not know.
        """
        sender = asyncio.create_task(self._send())
        try:
            while (message := await self._call.read()) is not aio.EOF:
                local = message.shard - self._server * self._shards
                self._order(whole(local, "shard"), decode_order(message))
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                raise aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), await self._call.details())
        except aio.AioRpcError as error:
            raise self._lost(error) from error
        finally:
            sender.cancel()

    async def close(self) -> None:
        """Close the link and its channel."""
        await self._channel.close()

    async def _try_connect(self, seconds: float) -> RequestError | JobError | None:
        link: Any = InternalStub(self._channel).Link
        self._call = link()
        try:
            async with asyncio.timeout(seconds):
                await self._call.write(pb.LinkUp(hello=self._hello))
                await self._call.initial_metadata()
        except TimeoutError:
            self._call.cancel()
            return JobError("No answer.", Failure.DEADLINE)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass
        if not self._call.done():
            return None
        return error_of(await self._call.code(), await self._call.details() or "no answer", self._address)

    async def _send(self) -> None:
        while True:
            message = await self._up.get()
            try:
                await self._call.write(message)
            except (aio.AioRpcError, asyncio.InvalidStateError):
                return  # the reader learns of it, too, and with the reason

    def _lost(self, error: aio.AioRpcError) -> JobError | RequestError:
        cause = error_of(error.code(), error.details() or "no reason given", self._address)
        if isinstance(cause, RequestError) or cause.failure is Failure.ENDED:
            return cause
        return JobError(f"The link to the coordinator at {self._address} broke, so the job is lost.")
