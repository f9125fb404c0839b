"""Turns: of the messages that carry tensors, only some come or go at a time. Confined to the event loop."""

from __future__ import annotations

import asyncio

SLOW_SECONDS = 1.0
"""A message of 1 MiB that takes longer comes over less than 10 Mbit/s: then others need not wait for it."""


class Turns:
    """Lets so many messages be under way at a time.

    gRPC takes in all of a message for which the program waits, and holds all of one that it was given: with
    a thousand connections that were gigabytes. A message of which nobody has a turn stays where it comes
    from. One that takes long does not count any more, so that slow connections do not hold up the others.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._loop = asyncio.get_running_loop()

    def one(self) -> _Turn:
        """Return a turn for an ``async with`` block, which waits for those who came before."""
        return _Turn(self._free, self._loop)


class _Turn:
    __slots__ = ("_free", "_is_held", "_loop", "_timer")

    def __init__(self, free: asyncio.Semaphore, loop: asyncio.AbstractEventLoop) -> None:
        self._free = free
        self._loop = loop

    async def __aenter__(self) -> None:
        await self._free.acquire()
        self._is_held = True
        self._timer = self._loop.call_later(SLOW_SECONDS, self._give_back)

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        self._give_back()

    def _give_back(self) -> None:
        if self._is_held:
            self._is_held = False
            self._free.release()
