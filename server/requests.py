"""Requests that wait for their answer, by number. Confined to the event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import Any

from paramserver.errors import Failure, JobError, RequestError
from paramserver.events import Ended, PullParked, Refused, Unavailable

ENDED_WELL = "The job is over: every replica has finished."


class Ticket:
    """One request: its number, and a future of the effect that answers it.

    Attributes:
        number: what the event says in its ``request``.
        answer: done once the effect is here; holds an error where the request was refused.
        parked: why a pull waits, as of the newest word of the shard; None while it does not.
    """

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.parked: PullParked | None = None
        self._heard = asyncio.Event()

    def park(self, parked: PullParked) -> None:
        """Keep why a pull waits. The first time wakes who listens; later words are for the next look."""
        if self.parked is None:
            self._heard.set()
        self.parked = parked

    def hear(self) -> None:
        """Wake who listens: there is an answer."""
        self._heard.set()

    async def listen(self, seconds: float) -> None:
        """Wait for an answer, or for the first word of why there is none yet, but no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        self._heard.clear()


class Requests:
    """Gives numbers to requests and brings effects to them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._numbers = count(1)
        self._tickets: dict[int, Ticket] = {}

    def open(self) -> Ticket:
        """Begin a request; it is forgotten once it is answered or closed."""
        ticket = Ticket(next(self._numbers), self._loop)
        self._tickets[ticket.number] = ticket
        return ticket

    def close(self, ticket: Ticket) -> bool:
        """Forget a request; say whether it was still without an answer."""
        return self._tickets.pop(ticket.number, None) is not None

    def settle(self, number: int, effect: Any) -> None:
        """Bring an effect to its request; nothing happens if nobody asks any more.

        Args:
            number: of the request.
            effect: ``PullParked`` is kept beside; a refusal becomes an error of the future; any other is its
                result.
        """
        if isinstance(effect, PullParked):
            if number in self._tickets:
                self._tickets[number].park(effect)
            return
        error = _error_of(effect)
        if error is not None:
            self.fail(number, error)
            return
        ticket = self._tickets.pop(number, None)
        if ticket is not None and not ticket.answer.done():
            ticket.answer.set_result(effect)
            ticket.hear()

    def fail(self, number: int, error: Exception) -> None:
        """Answer a request with an error."""
        ticket = self._tickets.pop(number, None)
        if ticket is not None and not ticket.answer.done():
            ticket.answer.set_exception(error)
            ticket.answer.exception()  # read once here, so that an asker who has gone leaves no warning
            ticket.hear()

    def fail_all(self, error: Exception) -> None:
        """Answer every open request with an error."""
        for number in list(self._tickets):
            self.fail(number, error)

    def __len__(self) -> int:
        return len(self._tickets)


def _error_of(effect: Any) -> Exception | None:
    match effect:
        case Refused():
            return RequestError(effect.message, effect.fault)
        case Unavailable():
            return JobError(effect.message, Failure.UNAVAILABLE)
        case Ended():
            return JobError(effect.reason or ENDED_WELL)
        case _:
            return None
