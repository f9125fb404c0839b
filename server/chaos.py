"""What goes wrong on purpose at a server: calls of clients, where it answers them, and its links to others.

What a client's own faults are to it, these are to every client, also to one that is not ours: a request that
never arrives, a reply that is lost after the server has acted, a message that comes late, or twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc

from paramserver.chaos.plan import LINK, SERVER, parse_own_faults
from paramserver.errors import Failure, JobError, RequestError
from paramserver.faults import Fates
from paramserver.quantities import NANOSECONDS
from server.lines import Send, Write, send_plainly
from server.options import Options

log = logging.getLogger("server")

LATE = ("delay", "reorder")


class FaultyService(grpc.aio.ServerInterceptor):
    """Lets the calls of one service go wrong.

    Args:
        fates: in which order what happens.
        service: whose calls: health and the links between servers are left alone.

    Attributes:
        met: how often what has happened, such as ``lose reply``.
    """

    def __init__(self, fates: Fates, service: str) -> None:
        self.met: Counter[str] = Counter()
        self._fates = fates
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Give the handler of a call, which may go wrong."""
        handler = await continuation(handler_call_details)
        if handler is None or not str(handler_call_details.method).startswith(self._prefix):
            return handler
        kinds = (
            (handler.unary_unary, grpc.unary_unary_rpc_method_handler, True),
            (handler.unary_stream, grpc.unary_stream_rpc_method_handler, False),
            (handler.stream_unary, grpc.stream_unary_rpc_method_handler, False),
        )
        for call, wrap, is_whole in kinds:
            if call is not None:
                faulty = self._faulty(call, is_whole)
                return wrap(faulty, handler.request_deserializer, handler.response_serializer)
        return handler

    def _faulty(self, call: Callable[[Any, Any], Awaitable[Any]], is_whole: bool) -> Any:
        """Return a call that may go wrong; only one whose request is whole can be handled twice."""

        async def run(request: Any, context: Any) -> Any:
            if await self._meet("request", context) == "duplicate" and is_whole:
                await call(request, context)
            answer = await call(request, context)
            await self._meet("reply", context)
            return answer

        return run

    async def _meet(self, what: str, context: Any) -> str:
        kind, late = self._fates.next()
        if kind:
            self.met[f"{kind} {what}"] += 1
        if kind in LATE:
            await asyncio.sleep(late / NANOSECONDS)
        elif kind in ("lose", "cut"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"A {what} was lost on purpose.")
        return kind


class FaultyLink:
    """Lets the messages that a server sends to other servers go wrong.

    A connection keeps its order, so nothing overtakes: what is late holds up what follows. A message is lost
    when the connection breaks before it, and cut off when it breaks after it.

    Args:
        fates: in which order what happens.

    Attributes:
        met: how often what has happened, such as ``lose message``.
    """

    def __init__(self, fates: Fates) -> None:
        self.met: Counter[str] = Counter()
        self._fates = fates

    async def send(self, write: Write, message: Any) -> None:
        """Write a message to a connection.

        Raises:
            JobError: the connection breaks here, on purpose.
        """
        kind, late = self._fates.next()
        if kind:
            self.met[f"{kind} message"] += 1
        if kind in LATE:
            await asyncio.sleep(late / NANOSECONDS)
        elif kind == "lose":
            raise JobError("A message was lost on purpose.", Failure.UNAVAILABLE)
        elif kind == "duplicate":
            await write(message)
        await write(message)
        if kind == "cut":
            raise JobError("A connection was cut on purpose.", Failure.UNAVAILABLE)


def faulty_calls(options: Options, service: str, stack: AsyncExitStack) -> list[FaultyService]:
    """Return what lets the calls of a service go wrong, if that is wished; at the end it is said what has.

    Raises:
        RequestError: what is wished is something else.
    """
    if not options.chaos:
        return []
    faulty = FaultyService(_fates(options, options.chaos, SERVER), service)
    stack.callback(lambda: log.info("Gone wrong on purpose: %s.", _account(faulty.met)))
    return [faulty]


def sending(options: Options, stack: AsyncExitStack) -> Send:
    """Return what sends the messages of links, which go wrong if that is wished.

    Raises:
        RequestError: what is wished is something else.
    """
    if not options.chaos_links:
        return send_plainly
    faulty = FaultyLink(_fates(options, options.chaos_links, LINK))
    stack.callback(lambda: log.info("Gone wrong on purpose on links: %s.", _account(faulty.met)))
    return faulty.send


def _fates(options: Options, chaos: str, what: int) -> Fates:
    faults = parse_own_faults(chaos)
    if faults.blows:
        raise RequestError(
            f"Of a server only calls and links go wrong, but found '{faults.blows[0]}'. Say it to a worker."
        )
    return Fates(faults.chances, options.chaos_seed, (what, options.server))


def _account(met: Counter[str]) -> str:
    """Say what has gone wrong so far, such as ``3 x lose message``."""
    return ", ".join(f"{count} x {what}" for what, count in sorted(met.items())) or "nothing"
