"""Calls that go wrong on purpose where a server answers them.

What a client's own faults are to it, these are to every client, also to one that is not ours: a request that
never arrives, a reply that is lost after the server has acted, a message that comes late, or twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from paramserver.faults import Fates
from paramserver.quantities import NANOSECONDS

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

    def account(self) -> str:
        """Say what has gone wrong so far."""
        return ", ".join(f"{count} x {what}" for what, count in sorted(self.met.items())) or "nothing"
