"""The messages of a stream that moves tensors, one after the other, and for how long they may not come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import grpc

from paramserver.errors import Failure, JobError, RequestError
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.receive import Receiver
from paramserver.wire.transfer import Run, decode_transfer
from server.holding import Holding
from server.turns import Turns

Context = grpc.aio.ServicerContext[Any, Any]
Incoming = TypeVar("Incoming", pb.PushRequest, pb.InitialiseRequest)


class Streams:
    """Reads and writes the messages of all streams of this server.

    Args:
        silence_seconds: a peer that neither sends nor takes anything for so long is given up.
        turns: how many messages with tensors may come, and how many may go, at a time.

    Attributes:
        received_bytes: of the messages that brought tensors so far.
        sent_bytes: of the messages that took tensors away so far.
    """

    def __init__(self, silence_seconds: float, turns: int) -> None:
        self._coming, self._going = Turns(turns), Turns(turns)
        self._silence_seconds = silence_seconds
        self.received_bytes = 0
        self.sent_bytes = 0

    async def first_message(self, kind: type[Incoming], context: Context) -> tuple[Incoming, list[Run]]:
        """Read the message that has the header.

        Raises:
            RequestError: there is none.
        """
        raw = await self._read(context)
        if raw is grpc.aio.EOF:
            raise RequestError(
                f"The stream ended before its first {kind.DESCRIPTOR.name}, which has the header."
            )
        self.received_bytes += len(raw)
        message, runs = decode_transfer(kind, raw)
        if not message.HasField("header"):
            raise RequestError(f"The first {kind.DESCRIPTOR.name} has to have the header, and it has none.")
        return message, runs

    async def _read(self, context: Context) -> Any:
        """Take the next message.

        Raises:
            JobError: none came for long.
        """
        try:
            async with self._coming.one(), asyncio.timeout(self._silence_seconds):
                return await context.read()
        except TimeoutError:
            raise self._silent("sent") from None

    async def send(self, context: Context, messages: Iterator[bytes]) -> None:
        """Send messages with tensors; each is made only once it may go.

        Raises:
            JobError: nothing was taken for long.
        """
        while True:
            async with self._going.one():
                raw = next(messages, None)
                if raw is None:
                    return
                self.sent_bytes += len(raw)
                await self.write(context, raw)

    async def write(self, context: Context, raw: bytes) -> None:
        """Send a message.

        Raises:
            JobError: nothing was taken for long.
        """
        try:
            async with asyncio.timeout(self._silence_seconds):
                await context.write(raw)
        except TimeoutError:
            raise self._silent("taken") from None

    def _silent(self, what: str) -> JobError:
        return JobError(
            f"Nothing was {what} for {self._silence_seconds:g} s, so the stream was ended. Send it again, or "
            "raise --silence-seconds.",
            Failure.DEADLINE,
        )

    async def receive(
        self,
        kind: type[Incoming],
        runs: Iterable[Run],
        receiver: Receiver,
        holding: Holding,
        context: Context,
    ) -> None:
        """Read the chunks of a stream to its end.

        Raises:
            RequestError: they are not what was announced.
            JobError: they did not come within the job's step timeout.
        """
        seconds = holding.job.step_timeout_seconds
        receiver.feed(runs)
        try:
            async with asyncio.timeout(seconds):
                while (raw := await self._read(context)) is not grpc.aio.EOF:
                    self.received_bytes += len(raw)
                    message, more = decode_transfer(kind, raw)
                    if message.HasField("header"):
                        raise RequestError(
                            f"Only the first {kind.DESCRIPTOR.name} has a header, and another came."
                        )
                    receiver.feed(more)
        except TimeoutError:
            raise JobError(
                f"The stream did not end within the step timeout of {seconds:g} s. Send it again.",
                Failure.DEADLINE,
            ) from None
        receiver.finish()
