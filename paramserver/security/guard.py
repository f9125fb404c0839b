"""The guard at a server's door: who brings no token, or a wrong one, comes no further.

To the next editor: the guard stands before every call, also of services that are added later, so a call is
open only if it is named here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from paramserver.security.channels import AUTHORIZATION, BEARER
from paramserver.security.doors import Doors
from paramserver.security.secrets import is_same

log = logging.getLogger("server")

OPEN_SERVICES = ("/grpc.health.v1.Health/",)
"""Anybody may ask whether a server is up."""

QUIET_SECONDS = 60.0
"""Between two log lines about the same peer."""

BROKEN_SECONDS = 0.02
"""After so long it is known of a call that its connection is broken. Who guesses is slower for it, too."""

PEERS_MAX = 1000
"""So many peers are remembered; a flood of addresses forgets the oldest, and costs no more memory."""


class Guard(grpc.aio.ServerInterceptor):
    """Lets calls through that bring the right secret, and refuses all others with UNAUTHENTICATED.

    Args:
        doors: the secrets. Where there is no token, none is asked for.
        internal: service that only servers may call.
        clock: seconds, for the log.
    """

    def __init__(self, doors: Doors, internal: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._token = doors.token
        self._internal_token = doors.internal_token
        self._asks = bool(doors.token or doors.internal_token)
        self._internal = f"/{internal}/"
        self._clock = clock
        self._told: OrderedDict[str, float] = OrderedDict()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Give the handler of a call, or one that refuses it."""
        sentence = self.refusal(handler_call_details.method, handler_call_details.invocation_metadata)
        if not sentence:
            return await continuation(handler_call_details)

        async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            peer = context.peer()
            # Where a connection broke within a call's headers, gRPC gives those that came, maybe without the
            # token. Such a call is cancelled in the next moment, and is nothing to tell of.
            await asyncio.sleep(BROKEN_SECONDS)
            self._tell(peer, sentence)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, sentence)

        # Whatever the call is: this kind reads nothing before it answers.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def refusal(self, method: str, metadata: Any) -> str:
        """Say why a call is refused; empty where it is not.

        Args:
            method: ``/package.Service/Method``.
            metadata: pairs of name and value.
        """
        if not self._asks or method.startswith(OPEN_SERVICES):
            return ""
        internal = method.startswith(self._internal)
        if internal and not self._internal_token:
            return (
                "This server has no secret for calls between servers. Start all servers with the same "
                "--internal-token-file, or PARAMSERVER_INTERNAL_TOKEN."
            )
        if not internal and not self._token:
            return ""
        expected = self._internal_token if internal else self._token
        brought = [value for name, value in metadata or () if name == AUTHORIZATION]
        if len(brought) == 1 and isinstance(brought[0], str) and brought[0].startswith(BEARER):
            if is_same(brought[0].removeprefix(BEARER), expected):
                return ""
            return (
                "The token that came with this call is not that of this job's servers. Give theirs with "
                "--internal-token-file or PARAMSERVER_INTERNAL_TOKEN."
                if internal
                else "The token that came with this call is not this job's. Give the job's with "
                "--token-file, or in PARAMSERVER_TOKEN."
            )
        return (
            "This call is for the job's servers alone, and no token came with it. Give theirs with "
            "--internal-token-file or PARAMSERVER_INTERNAL_TOKEN."
            if internal
            else "This server asks for the job's token, and none came with this call. Give it with "
            "--token-file, or in PARAMSERVER_TOKEN; a run keeps it in its folder, as the file 'token'."
        )

    def _tell(self, peer: str, sentence: str) -> None:
        """Log a refusal, for each machine once a minute."""
        host = peer.rpartition(":")[0] or peer
        now = self._clock()
        if now < self._told.get(host, -QUIET_SECONDS) + QUIET_SECONDS:
            return
        self._told[host] = now
        self._told.move_to_end(host)
        if len(self._told) > PEERS_MAX:
            self._told.popitem(last=False)
        log.warning("A call from %s was refused. %s", host, sentence)
