"""One end of a link between two servers, which outlives the connections that carry it.

Every message has its place on the line, from 1 and without gap. What the other end has not said it has is
kept, and is sent again over the next connection; what comes twice is left out. So a connection may break with
all that was under way and be opened again, and nobody above notices more than the time it took.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from paramserver.errors import Failure, JobError, RequestError
from paramserver.wire import paramserver_pb2 as pb

RESUME_SECONDS = 3.0
"""How long a link whose connection broke may take to go on over another one; then its server counts as lost.

A handshake of TLS takes some milliseconds, on a machine that is busy a hundred times as many. A server that
was killed and comes back is told by its first words, so nobody waits for this.
"""

ACKNOWLEDGE_EVERY = 64
"""After so many messages the other end is told that they are here, if there is nothing else to say."""

Message = pb.LinkUp | pb.LinkDown

Write = Callable[[Any], Awaitable[Any]]
Send = Callable[[Write, Any], Awaitable[None]]
"""Writes a message to a connection; on purpose it may go wrong there."""


async def send_plainly(write: Write, message: Any) -> None:
    """Write a message, once and at once."""
    await write(message)


class Line:
    """What one end of a link remembers from one connection to the next. Confined to the event loop.

    Args:
        empty: makes a message of those that this end sends, which says nothing.

    Attributes:
        received: how many messages of the other end are here.
        newest: the place of the newest message for it.
    """

    def __init__(self, empty: Callable[[], Message]) -> None:
        self.received = 0
        self.newest = 0
        self._empty = empty
        self._kept: deque[Message] = deque()  # which the other end has not said it has
        self._written = 0  # the place of the last that the present connection was given
        self._told = 0  # how many messages the other end knows to be here
        self._closed = False
        self._news = asyncio.Event()

    def put(self, message: Message) -> None:
        """Send a message, after all earlier ones."""
        self.newest += 1
        message.place = self.newest
        self._kept.append(message)
        self._news.set()

    def close(self) -> None:
        """Send no more than there is."""
        self._closed = True
        self._news.set()

    def resume(self, received: int) -> None:
        """Go on over a new connection.

        Args:
            received: how many messages the other end has.

        Raises:
            RequestError: there never were so many.
        """
        self._forget(received)
        self._written = received

    def begin_anew(self, void: int) -> None:
        """Begin with an other end that knows nothing of this one.

        Args:
            void: the place of the last message that means nothing to it; later ones are sent as the first.
        """
        kept = [message for message in self._kept if message.place > void]
        self._kept.clear()
        self.received = self.newest = self._written = self._told = 0
        for message in kept:
            self.put(message)

    async def carry(self, send: Send, write: Write) -> None:
        """Write what there is and what comes to a connection, until the line is closed or that fails."""
        while True:
            while self._written < self.newest:
                message = self._kept[self._written - self.newest]
                self._written += 1
                await self._write(send, write, message)
            if self._owes():
                await self._write(send, write, self._empty())
            if self._written < self.newest:
                continue
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()

    def take(self, message: Message) -> bool:
        """Take in what came; say whether it is a message that was not here before.

        Raises:
            JobError: one before it is missing.
            RequestError: it makes no sense.
        """
        self._forget(message.received)
        if message.place <= self.received:
            return False
        if message.place > self.received + 1:
            raise JobError("A message on the link between two servers is missing.", Failure.UNAVAILABLE)
        self.received += 1
        if self._owes():
            self._news.set()
        return True

    def _owes(self) -> bool:
        return self.received >= self._told + ACKNOWLEDGE_EVERY

    async def _write(self, send: Send, write: Write, message: Message) -> None:
        message.received = self._told = self.received
        await send(write, message)

    def _forget(self, received: int) -> None:
        """Forget what the other end has."""
        if received > self.newest:
            raise RequestError(
                f"The other end of a link says that it has {received} messages, and was sent {self.newest}."
            )
        self._written = max(self._written, received)
        while self._kept and self._kept[0].place <= received:
            self._kept.popleft()
