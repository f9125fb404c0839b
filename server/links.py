"""The coordinator's end of the links: one from each other server.

Reports come up, numbered orders go down, each in order. A link whose connection breaks goes on over the next
one; only if there is none for some seconds, or its server has been started anew, is that server lost.
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
from paramserver.wire.numbers import named, whole
from paramserver.wire.orders import decode_report, encode_order
from server.coordination import CoordinatorHost
from server.lines import RESUME_SECONDS, Line, Send, send_plainly
from server.service import Call, guarded
from server.streams import Context

log = logging.getLogger("server")

INTERNAL = pb.DESCRIPTOR.services_by_name["Internal"].full_name

CLOSE_SECONDS = 2.0
"""How long the links may take, at the end, to carry what is still to be said."""


class Links:
    """The links to all other servers.

    Args:
        coordinator: gets registrations, reports and losses.
        servers: how many servers the job has.
        shards: how many shards each has.
        send: writes messages to connections.

    Attributes:
        written: what each server has said of its part of the final checkpoint.
        cut_written: told what became of another server's cut.
    """

    def __init__(
        self, coordinator: CoordinatorHost, servers: int, shards: int, send: Send = send_plainly
    ) -> None:
        self._coordinator = coordinator
        self._servers = servers
        self._shards = shards
        self._send = send
        self._ends: dict[int, _End] = {}
        self._news = asyncio.Event()
        self._closing = False
        self.written: dict[int, pb.CheckpointWritten] = {}
        self.all_registered = asyncio.Event()
        self._registered: set[int] = set()
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
                while any(server not in self.written for server in (others if everyone else self._ends)):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return [server for server in range(1, self._servers) if server not in self.written]

    def missing(self) -> str:
        """Name the servers that have not registered, such as ``Server 1``."""
        missing = [str(server) for server in range(self._servers) if server not in self._registered]
        return f"Server{'s' if len(missing) > 1 else ''} {', '.join(missing)}"

    async def close(self) -> None:
        """Close all links once they have carried what there is: the other servers then stop, too."""
        self._closing = True
        for end in self._ends.values():
            end.line.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                for end in list(self._ends.values()):
                    await end.closed.wait()
        except TimeoutError:
            log.debug("Not every link was there to be closed.")

    async def _link(self, messages: Any, context: Context) -> None:
        message = await _read(context)
        if message is None or message.WhichOneof("part") != "hello":
            raise RequestError("The first message of a link has to be a hello.")
        hello = message.hello
        server = self._check(hello)
        end = await self._end_of(server, hello)
        resumes = end.session == hello.session
        reason = "its link was closed."
        try:
            if not end.is_known:
                self._register(server, end, hello)
            end.line.resume(whole(hello.received, "hello.received") if resumes else 0)
            welcome = pb.Welcome(resumes=resumes, received=end.line.received)
            await self._send(context.write, pb.LinkDown(welcome=welcome))
            await self._carry(server, end, context)
        except asyncio.CancelledError:
            reason = "its connection broke. It has ended, or the network has."
            raise
        except RequestError as error:
            self._lose(server, end, str(error))
            raise
        finally:
            lose = partial(self._lose, server, end, reason)
            end.deadline = asyncio.get_running_loop().call_later(RESUME_SECONDS, lose)
            end.free.set()

    async def _carry(self, server: int, end: _End, context: Context) -> None:
        """Carry messages both ways until the connection ends, or has to give way to another one."""
        sender = asyncio.create_task(end.line.carry(self._send, context.write))
        receiver = asyncio.create_task(self._receive(server, end.line, context))
        giving_way = asyncio.create_task(end.gives_way.wait())
        tasks: tuple[asyncio.Task[Any], ...] = (sender, receiver, giving_way)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if sender in done:  # it ends only once the line is closed and has carried all
                end.closed.set()
        finally:
            for task in tasks:
                task.cancel()

    async def _end_of(self, server: int, hello: pb.Hello) -> _End:
        """Return this side's end of a link, with no connection to it but the one at hand."""
        while (end := self._ends.get(server)) is not None and not end.free.is_set():
            end.gives_way.set()  # the other side has given its old connection up
            await end.free.wait()
        if end is not None and end.session not in (hello.session, hello.new_session):
            self._lose(server, end, "it was started again.")
            end = None
        if end is None:
            end = self._ends[server] = _End(named(hello.new_session, "hello.new_session"))
        if end.deadline is not None:
            end.deadline.cancel()
        end.free.clear()
        end.gives_way.clear()
        return end

    def _register(self, server: int, end: _End, hello: pb.Hello) -> None:
        end.is_known = True
        self._coordinator.connect(server, partial(self._send_order, server, end.line))
        log.info("Server %d is up at %s.", server, hello.address)
        self._coordinator.handle(
            ServerRegistered(server, hello.address, hello.shards, dict(hello.orders) or None)
        )
        self._note_registered(server)

    def _lose(self, server: int, end: _End, reason: str) -> None:
        """Take a server for lost, unless it is linked anew."""
        if self._ends.get(server) is not end:
            return
        del self._ends[server]
        self._coordinator.disconnect(server)
        self.written.pop(server, None)
        self._news.set()
        if end.is_known and not self._closing:
            self._coordinator.handle(ServerLost(server, reason))

    def _check(self, hello: pb.Hello) -> int:
        if not 1 <= hello.server < self._servers:
            raise RequestError(
                f"There is no server {hello.server} in this job: the coordinator was started with --servers "
                f"{self._servers}, so the others are numbered 1 to {self._servers - 1}. Start them so."
            )
        end = self._ends.get(hello.server)
        is_repeated = end is not None and end.session == hello.new_session
        if hello.server in self._registered and not hello.returns and not is_repeated:
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

    def _send_order(self, server: int, line: Line, local: int, order: Order) -> None:
        line.put(encode_order(order, server * self._shards + local))

    async def _receive(self, server: int, line: Line, context: Context) -> None:
        while (message := await _read(context)) is not None:
            if line.take(message):
                self._take(server, message)

    def _take(self, server: int, message: pb.LinkUp) -> None:
        match message.WhichOneof("part"):
            case "written":
                self.written[server] = message.written
                self._news.set()
            case "cut_written":
                self.cut_written(message.cut_written)
            case "stopping":
                self._coordinator.interrupt(message.stopping)
            case _:
                report = decode_report(message)
                if report is None:
                    raise RequestError(f"Server {server} sent a message that this release does not know.")
                if report.shard // self._shards != server:
                    raise RequestError(
                        f"Server {server} reported for shard {report.shard}, which is not its own."
                    )
                self._coordinator.handle(report)


class _End:
    """This side's end of one link.

    Attributes:
        session: what the other server calls its end.
        line: what goes over it.
        is_known: the coordinator has been told of the server.
        free: set while no connection carries it.
        closed: set once all has been carried, and it was closed.
        gives_way: asks the present connection to end.
        deadline: when a server without a connection is lost.
    """

    def __init__(self, session: str) -> None:
        self.session = session
        self.line: Line = Line(pb.LinkDown)
        self.is_known = False
        self.free = asyncio.Event()
        self.closed = asyncio.Event()
        self.gives_way = asyncio.Event()
        self.deadline: asyncio.TimerHandle | None = None


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
