"""Another server's end of its link to the coordinator.

Reports go up, numbered orders come down, each in order. A link whose connection breaks goes on over the next
one, unless the coordinator is another one by then, or has given this server up: then it begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc import aio

from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import Order, Report
from paramserver.security import Access
from paramserver.security.channels import metadata, tls_credentials
from paramserver.security.shut import is_shut, why_shut
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.numbers import whole
from paramserver.wire.orders import decode_order, encode_report
from paramserver.wire.paramserver_pb2_grpc import InternalStub
from paramserver.wire.refusals import error_of
from server.lines import RESUME_SECONDS, Line, Send, send_plainly

log = logging.getLogger("server")

RETRY_SECONDS = 0.25
ATTEMPT_SECONDS = 5.0
"""How long one attempt to reach the coordinator may take."""

CORE_FAILED = "Internal error from Core"
"""What gRPC says where a connection broke just as a call began; a server's own sentence is longer."""

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


class Link:
    """Another server's end of its link.

    Args:
        coordinator: its address, ``host:port``.
        access: what opens the door between servers.
        server: this server's index, >= 1.
        address: this server's address for clients.
        shards: how many shards it has.
        order: takes each order, with the shard's number within this server.
        returns: this server was here before.
        orders: says of each of its shards the last order that it has; nothing where it has no journal.
        begin_anew: called whenever a coordinator is there that knows of this server what its hello has said
            and nothing else.
        send: writes messages to connections.
    """

    def __init__(
        self,
        coordinator: str,
        access: Access,
        server: int,
        address: str,
        shards: int,
        order: Callable[[int, Order], None],
        *,
        returns: bool = False,
        orders: Callable[[], Mapping[int, int]] = dict,
        begin_anew: Callable[[], None] = lambda: None,
        send: Send = send_plainly,
    ) -> None:
        self._address = coordinator
        self._access = access
        self._server = server
        self._hello = pb.Hello(server=server, address=address, shards=shards, returns=returns)
        self._shards = shards
        self._order = order
        self._orders = orders
        self._begin_anew = begin_anew
        self._send = send
        self._line = Line(pb.LinkUp)
        self._void = 0  # what was put on the line up to here means nothing to a coordinator that is new
        self._channel = self._open()
        self._call: Any = None

    def report(self, report: Report) -> None:
        """Send a report up, after all earlier ones."""
        self._line.put(encode_report(report))

    def written(self, message: pb.CheckpointWritten) -> None:
        """Say what this server has kept of the finished job."""
        self._line.put(pb.LinkUp(written=message))

    def cut_written(self, message: pb.CutWritten) -> None:
        """Say what became of a cut."""
        self._line.put(pb.LinkUp(cut_written=message))

    def stopping(self, sentence: str) -> None:
        """Say that this server has been asked to stop, so that the job ends and is saved."""
        self._line.put(pb.LinkUp(stopping=sentence))

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
                self._hello.returns = True
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
            await self._reopen()

    async def reconnect(self, seconds: float) -> None:
        """Open the link again after it broke; a coordinator that knows this server gets what it has not had.

        Args:
            seconds: give up after this long.

        Raises:
            JobError: the coordinator did not answer in time.
            RequestError: it does not want this server, and says why.
        """
        await self._reopen()
        await self.connect(seconds)

    async def run(self) -> None:
        """Carry orders and reports until the coordinator closes the link, over many connections if need be.

        Raises:
            JobError: the link broke, and could not be opened again at once.
            RequestError: the coordinator sent what this release does not know.
        """
        while True:
            try:
                return await self._carry()
            except JobError as error:
                if error.failure is not Failure.UNAVAILABLE:
                    raise
                lost = error
            try:
                await self.reconnect(RESUME_SECONDS)
            except JobError:
                raise lost from None

    async def close(self) -> None:
        """Close the link and its channel."""
        await self._channel.close()

    async def _carry(self) -> None:
        """Carry messages both ways over the present connection, to its end."""
        sender, receiver = asyncio.create_task(self._write_all()), asyncio.create_task(self._receive())
        try:
            await asyncio.wait((sender, receiver), return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()  # where writing has failed, reading does, too, and knows why
            await receiver
        finally:
            sender.cancel()
            receiver.cancel()
            self._call.cancel()

    async def _receive(self) -> None:
        try:
            while (message := await self._call.read()) is not aio.EOF:
                if self._line.take(message):
                    local = message.shard - self._server * self._shards
                    self._order(whole(local, "shard"), decode_order(message))
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                raise aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), await self._call.details())
        except aio.AioRpcError as error:
            raise self._lost(error) from error

    async def _write_all(self) -> None:
        try:
            await self._line.carry(self._send, self._call.write)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return

    def _open(self) -> aio.Channel:
        options = KEEPALIVE + QUICK_RECONNECT
        credentials = tls_credentials(self._access)
        if credentials is None:
            return aio.insecure_channel(self._address, options=options)
        return aio.secure_channel(self._address, credentials, options=options)

    async def _reopen(self) -> None:
        """Take a new channel: it looks the name up anew, and a used one would wait ever longer."""
        await self._channel.close()
        self._channel = self._open()

    async def _try_connect(self, seconds: float) -> RequestError | JobError | None:
        hello = self._hello
        hello.orders.clear()
        hello.orders.update(self._orders())
        hello.received = self._line.received
        if not hello.new_session:  # the same until it has been answered, so that a repetition is told
            hello.new_session, self._void = uuid.uuid4().hex, self._line.newest
        link: Any = InternalStub(self._channel).Link
        self._call = link(metadata=metadata(self._access))
        try:
            async with asyncio.timeout(seconds):
                await self._send(self._call.write, pb.LinkUp(hello=hello))
                answer = await self._call.read()
            if answer is not aio.EOF:
                return self._begin(answer)
        except TimeoutError:
            self._call.cancel()
            return JobError("No answer.", Failure.DEADLINE)
        except JobError as error:  # on purpose
            self._call.cancel()
            return error
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass
        code, details = await self._call.code(), await self._call.details() or "no answer"
        shut = code is grpc.StatusCode.UNAVAILABLE and is_shut(details)
        if shut and (sentence := await asyncio.to_thread(why_shut, self._address, self._access)):
            return RequestError(sentence, Fault.DENIED)
        return self._error_of(code, details)

    def _begin(self, answer: pb.LinkDown) -> RequestError | None:
        """Go on, or begin anew, as the coordinator's first message says."""
        if not answer.HasField("welcome"):
            return RequestError(
                f"The coordinator at {self._address} does not answer a link as this release does. Install "
                "the same release of paramserver on all servers."
            )
        if answer.welcome.resumes:
            log.debug("The link to the coordinator goes on over a new connection.")
            self._line.resume(whole(answer.welcome.received, "welcome.received"))
        else:
            self._hello.session = self._hello.new_session
            self._line.begin_anew(self._void)
            self._begin_anew()
        self._hello.new_session = ""
        return None

    def _lost(self, error: aio.AioRpcError) -> JobError | RequestError:
        cause = self._error_of(error.code(), error.details() or "no reason given")
        if isinstance(cause, RequestError) or cause.failure is Failure.ENDED:
            return cause
        return JobError(f"The link to the coordinator at {self._address} broke.", Failure.UNAVAILABLE)

    def _error_of(self, code: grpc.StatusCode, details: str) -> JobError | RequestError:
        if code is grpc.StatusCode.CANCELLED or (code is grpc.StatusCode.INTERNAL and details == CORE_FAILED):
            code = grpc.StatusCode.UNAVAILABLE
        return error_of(code, details, self._address)
