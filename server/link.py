"""Another server's end of its link to the coordinator.

Reports go up, numbered orders come down, each in order.
"""

from __future__ import annotations

import asyncio
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
    ) -> None:
        self._address = coordinator
        self._access = access
        self._server = server
        self._hello = pb.Hello(server=server, address=address, shards=shards, returns=returns)
        self._shards = shards
        self._order = order
        self._orders = orders
        self._up: asyncio.Queue[pb.LinkUp] = asyncio.Queue()
        self._channel = self._open()
        self._call: Any = None

    def report(self, report: Report) -> None:
        """Send a report up, after all earlier ones."""
        self._up.put_nowait(encode_report(report))

    def written(self, message: pb.CheckpointWritten) -> None:
        """Say what this server has kept of the finished job."""
        self._up.put_nowait(pb.LinkUp(written=message))

    def cut_written(self, message: pb.CutWritten) -> None:
        """Say what became of a cut."""
        self._up.put_nowait(pb.LinkUp(cut_written=message))

    def stopping(self, sentence: str) -> None:
        """Say that this server has been asked to stop, so that the job ends and is saved."""
        self._up.put_nowait(pb.LinkUp(stopping=sentence))

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
        self._hello.orders.clear()
        self._hello.orders.update(self._orders())
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
            # A new channel looks the name up anew. A used one would wait ever longer, up to two minutes.
            await self._channel.close()
            self._channel = self._open()

    async def reconnect(self, seconds: float) -> None:
        """Open the link again after it broke; what was to be reported is void by then.

        Args:
            seconds: give up after this long.

        Raises:
            JobError: the coordinator did not answer in time.
            RequestError: it does not want this server, and says why.
        """
        while not self._up.empty():
            self._up.get_nowait()
        self._hello.returns = True
        await self._channel.close()
        self._channel = self._open()
        await self.connect(seconds)

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

    def _open(self) -> aio.Channel:
        options = KEEPALIVE + QUICK_RECONNECT
        credentials = tls_credentials(self._access)
        if credentials is None:
            return aio.insecure_channel(self._address, options=options)
        return aio.secure_channel(self._address, credentials, options=options)

    async def _try_connect(self, seconds: float) -> RequestError | JobError | None:
        link: Any = InternalStub(self._channel).Link
        self._call = link(metadata=metadata(self._access))
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
        code, details = await self._call.code(), await self._call.details() or "no answer"
        shut = code is grpc.StatusCode.UNAVAILABLE and is_shut(details)
        if shut and (sentence := await asyncio.to_thread(why_shut, self._address, self._access)):
            return RequestError(sentence, Fault.DENIED)
        return error_of(code, details, self._address)

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
        return JobError(f"The link to the coordinator at {self._address} broke.", Failure.UNAVAILABLE)
