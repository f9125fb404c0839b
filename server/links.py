"""The coordinator's end of the links: one from each other server.

Reports come up, numbered orders go down, each in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from paramserver.errors import Fault, RequestError
from paramserver.events import Order, ServerLost, ServerRegistered
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.numbers import named
from paramserver.wire.orders import decode_report, encode_order
from server.coordination import CoordinatorHost
from server.service import Call, guarded
from server.streams import Context

log = logging.getLogger("server")

INTERNAL = pb.DESCRIPTOR.services_by_name["Internal"].full_name


class Links:
    """The links to all other servers.

    Args:
        coordinator: gets registrations, reports and losses.
        servers: how many servers the job has.
        shards: how many shards each has.

    Attributes:
        written: what each server has said of its part of the final checkpoint.
        cut_written: told what became of another server's cut.
    """

    def __init__(self, coordinator: CoordinatorHost, servers: int, shards: int) -> None:
        self._coordinator = coordinator
        self._servers = servers
        self._shards = shards
        self._queues: dict[int, asyncio.Queue[pb.LinkDown | None]] = {}
        self._news = asyncio.Event()
        self._closing = False
        self.written: dict[int, pb.CheckpointWritten] = {}
        self.all_registered = asyncio.Event()
        self._registered: set[int] = set()
        self._gone: dict[int, asyncio.Event] = {}
        self.cut_written: Callable[[pb.CutWritten], None] = lambda _: None
        self._note_registered(0)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server needs to serve links."""
        call: Call = guarded("Link", self._link)
        handler: Any = grpc.stream_stream_rpc_method_handler(call, None, pb.LinkDown.SerializeToString)
        return grpc.method_handlers_generic_handler(INTERNAL, {"Link": handler})

    async def wait_written(self, seconds: float, *, everyone: bool = False) -> list[int]:
        """Wait until every server that is still linked has written its part.

        Args:
            seconds: no longer than this.
            everyone: wait for those that are not linked, too, since they come back.

        Returns:
            The servers that have not.
        """
        others = range(1, self._servers)
        try:
            async with asyncio.timeout(seconds):
                while any(server not in self.written for server in (others if everyone else self._queues)):
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
        hello = await _read(context)
        if hello is None or hello.WhichOneof("part") != "hello":
            raise RequestError("The first message of a link has to be a hello.")
        server = self._check(hello.hello)
        await self._end_old_link(server)
        gone = self._gone[server] = asyncio.Event()
        queue: asyncio.Queue[pb.LinkDown | None] = asyncio.Queue()
        self._queues[server] = queue
        self._coordinator.connect(server, partial(self._send_order, server, queue))
        reason = "its link was closed."
        try:
            await context.send_initial_metadata(())
            address = hello.hello.address
            log.info("Server %d is up at %s.", server, address)
            self._coordinator.handle(
                ServerRegistered(server, address, hello.hello.shards, dict(hello.hello.orders) or None)
            )
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
            self.written.pop(server, None)
            self._news.set()
            gone.set()
            if not self._closing:
                self._coordinator.handle(ServerLost(server, reason))

    async def _end_old_link(self, server: int) -> None:
        """End a link that its server has given up, if this side has not noticed yet."""
        if server in self._queues:
            self._queues[server].put_nowait(None)
            await self._gone[server].wait()

    def _check(self, hello: pb.Hello) -> int:
        if not 1 <= hello.server < self._servers:
            raise RequestError(
                f"There is no server {hello.server} in this job: the coordinator was started with --servers "
                f"{self._servers}, so the others are numbered 1 to {self._servers - 1}. Start them so."
            )
        if hello.server in self._registered and not hello.returns:
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
        while (message := await _read(context)) is not None:
            if message.WhichOneof("part") == "written":
                self.written[server] = message.written
                self._news.set()
                continue
            if message.WhichOneof("part") == "cut_written":
                self.cut_written(message.cut_written)
                continue
            if message.WhichOneof("part") == "stopping":
                self._coordinator.interrupt(message.stopping)
                continue
            report = decode_report(message)
            if report is None:
                raise RequestError(f"Server {server} sent a message that this release does not know.")
            if report.shard // self._shards != server:
                raise RequestError(
                    f"Server {server} reported for shard {report.shard}, which is not its own."
                )
            self._coordinator.handle(report)


async def _read(context: Context) -> pb.LinkUp | None:
    """Return the next message; None at the end.

    It is parsed here, where an error can leave as a sentence.

    Raises:
        RequestError: the bytes are no such message.
    """
    raw = await context.read()
    if raw is aio.EOF:
        return None
    try:
        return pb.LinkUp.FromString(raw)
    except DecodeError as error:
        raise RequestError(f"A message of {len(raw):,} bytes is not a LinkUp.") from error
