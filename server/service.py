"""The service that clients call: what the coordinator answers, what the shards do, and how errors leave."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import JobStatus, ScoreReceived
from paramserver.logs import fields
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.buffers import Buffers
from paramserver.wire.jobs import decode_join, encode_granted
from paramserver.wire.parts import decode_part_asked, encode_part_given
from paramserver.wire.refusals import LATER, status_of
from paramserver.wire.replicas import (
    decode_heartbeat,
    decode_leave,
    decode_score,
    encode_heartbeat_answer,
)
from paramserver.wire.status import ServerStanding, ShardStanding, encode_status
from server.coordination import CoordinatorHost
from server.limits import Limits
from server.requests import Requests, Ticket
from server.shards import Shards
from server.streams import Context, Streams
from server.transfers import Transfers

log = logging.getLogger("server")

HEARTBEAT_SECONDS = 1.0
"""How often a heartbeat is wished for: often enough that progress moves. Less than a third of any lease."""

DETAILS_BYTES_MAX = 2000
"""Longest message of a status; gRPC takes 8 KiB of headers, and writes a byte beyond ASCII in three."""

SERVICE = pb.DESCRIPTOR.services_by_name["ParameterServer"].full_name

Call = Callable[[Any, Context], Awaitable[Any]]


class Service:
    """The calls of ``paramserver.v1.ParameterServer``.

    Args:
        shards: of this server.
        requests: where answers come from.
        buffers: where received arrays go.
        coordinator: in the first server; else None.
        coordinator_address: where the coordinator is, for those who ask in the wrong place.
        limits: what is taken at most.
    """

    def __init__(
        self,
        shards: Shards,
        requests: Requests,
        buffers: Buffers,
        coordinator: CoordinatorHost | None,
        coordinator_address: str,
        limits: Limits,
    ) -> None:
        self._shards = shards
        self._requests = requests
        self._coordinator = coordinator
        self._coordinator_address = coordinator_address
        self._limits = limits
        self._streams = Streams(limits.silence_seconds, limits.turns)
        self._transfers = Transfers(shards, requests, buffers, limits, self._streams)

    async def status(self) -> tuple[JobStatus | None, ServerStanding]:
        """Return how the job stands, if the coordinator is here, and how this server does."""
        shards = tuple(await standings(self._shards))
        standing = ServerStanding(
            shards, self._streams.received_bytes, self._streams.sent_bytes, time.process_time()
        )
        return None if self._coordinator is None else self._coordinator.status(), standing

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server needs to serve these calls."""
        transfers = self._transfers
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Join": _unary("Join", self._join, pb.JoinRequest),
                "Leave": _unary("Leave", self._leave, pb.LeaveRequest),
                "NextPart": _unary("NextPart", self._next_part, pb.PartRequest),
                "Heartbeat": _unary("Heartbeat", self._heartbeat, pb.HeartbeatRequest),
                "Score": _unary("Score", self._score, pb.ScoreRequest),
                "Status": _unary("Status", self._status, pb.StatusRequest),
                # Without a serialiser gRPC passes bytes, which are then read and written by hand.
                "Initialise": grpc.stream_unary_rpc_method_handler(
                    guarded("Initialise", transfers.placed(transfers.initialise)), None, _serialised
                ),
                "Push": grpc.stream_unary_rpc_method_handler(
                    guarded("Push", transfers.placed(transfers.push)), None, _serialised
                ),
                "Pull": grpc.unary_stream_rpc_method_handler(
                    guarded("Pull", _parsed(transfers.placed(transfers.pull), pb.PullRequest)), None, None
                ),
            },
        )

    async def _join(self, message: pb.JoinRequest, _: Context) -> pb.JoinReply:
        ticket = self._requests.open()
        self._limits.check_job(message.job)
        event = decode_join(message, ticket.number, self._limits.job_bytes_max)
        granted = await self._ask(event, ticket)
        if granted.replica is not None:
            who = (event.name, granted.replica.rank, granted.replica.incarnation, granted.clock)
            rank = fields(rank=granted.replica.rank)
            log.info("%s joined as replica %d, incarnation %d, at clock %d.", *who, extra=rank)
        seconds = min(HEARTBEAT_SECONDS, granted.job.lease_seconds / 4)
        return encode_granted(granted, seconds)

    async def _leave(self, message: pb.LeaveRequest, _: Context) -> pb.LeaveReply:
        ticket = self._requests.open()
        await self._ask(decode_leave(message, ticket.number), ticket)
        return pb.LeaveReply()

    async def _next_part(self, message: pb.PartRequest, _: Context) -> pb.PartReply:
        ticket = self._requests.open()
        return encode_part_given(await self._ask(decode_part_asked(message, ticket.number), ticket))

    async def _heartbeat(self, message: pb.HeartbeatRequest, _: Context) -> pb.HeartbeatReply:
        ticket = self._requests.open()
        event = decode_heartbeat(message, ticket.number)
        if message.heard_end and self._coordinator is not None:
            self._coordinator.heard_end(beat.replica for beat in event.beats)
        return encode_heartbeat_answer(await self._ask(event, ticket))

    async def _score(self, message: pb.ScoreRequest, _: Context) -> pb.ScoreReply:
        ticket = self._requests.open()
        await self._ask(ScoreReceived(ticket.number, decode_score(message)), ticket)
        return pb.ScoreReply()

    async def _status(self, _: pb.StatusRequest, __: Context) -> pb.StatusReply:
        return encode_status(*await self.status(), asyncio.get_running_loop().time())

    async def _ask(self, event: Any, ticket: Ticket) -> Any:
        """Bring an event to the coordinator and wait for its answer."""
        try:
            if self._coordinator is None:
                raise RequestError(
                    f"This server has no coordinator. Send this to {self._coordinator_address}.",
                    Fault.PRECONDITION,
                )
            self._coordinator.handle(event)
            return await ticket.answer
        finally:
            self._requests.close(ticket)


async def standings(shards: Shards) -> list[ShardStanding]:
    """Return how the shards of this server and their locks stand."""
    return [
        ShardStanding(each.shard, each.lock_wait_seconds, each.lock_hold_seconds)
        for each in await shards.statistics()
    ]


def guarded(name: str, call: Call) -> Call:
    """Let a call's errors leave as statuses with a sentence, and never as a traceback."""

    async def run(request: Any, context: Context) -> Any:
        try:
            return await call(request, context)
        except (RequestError, JobError) as error:
            code = status_of(error)
            log.debug("%s: %s: %s", name, code.name, error)
            later = LATER if isinstance(error, JobError) and error.failure is Failure.BUSY else ()
            await context.abort(code, str(error).encode()[:DETAILS_BYTES_MAX].decode(errors="ignore"), later)
        except Exception:
            if context.done():  # the peer has gone, so there is nobody to tell
                log.debug("%s: the peer has gone.", name)
                return None
            log.exception("%s failed", name)
            sentence = f"The server failed inside at {name}; its log says more."
            await context.abort(grpc.StatusCode.INTERNAL, sentence)

    return run


def _unary(name: str, call: Call, kind: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(guarded(name, _parsed(call, kind)), None, _serialised)


def _parsed(call: Call, kind: Any) -> Call:
    """Parse a request here, where an error can leave as a sentence."""

    async def run(raw: bytes, context: Context) -> Any:
        try:
            message = kind.FromString(raw)
        except DecodeError as error:
            raise RequestError(f"A message of {len(raw):,} bytes is not a {kind.DESCRIPTOR.name}.") from error
        return await call(message, context)

    return run


def _serialised(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
