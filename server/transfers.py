"""Initialise, pull and push: the calls that move tensors.

To the next editor: all of this runs on the event loop, message by message, and nothing may take more than a
millisecond. A pull that waits is a future and holds no thread. Bytes of tensors come and go as ``bytes``, and
a push is received into fresh arrays of the expected size, whatever its sender declares.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from paramserver.events import (
    NOBODY,
    InitialiseReceived,
    Outcome,
    PullCancelled,
    PullFenced,
    PullGranted,
    PullParked,
    PullReceived,
    PushReceived,
    Slice,
    Verdict,
    WaitAsked,
)
from paramserver.logs import fields
from paramserver.placement import slice_shape
from paramserver.rows import Gradient, RowGradient, RowIndices
from paramserver.types import Array
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.buffers import Buffers
from paramserver.wire.jobs import decode_replica
from paramserver.wire.numbers import named, whole
from paramserver.wire.receive import (
    NotFiniteError,
    Receiver,
    bytes_of,
    check_announced,
    slice_headers,
    travelling_shape,
)
from paramserver.wire.replicas import encode_verdict
from paramserver.wire.rows import announced_rows, decode_wanted
from paramserver.wire.status import encode_waiting
from paramserver.wire.transfer import encode_transfer
from server.holding import Holding
from server.limits import Budget, Limits, Places
from server.requests import Requests, Ticket
from server.shards import Shards
from server.streams import Context, Streams

ROWS_AT_ONCE = 10_000
"""So many rows of a table are copied in about 0.1 ms, a tenth of what the event loop may take."""

log = logging.getLogger("server")

LONG_WAIT_SECONDS = 10.0
"""A wait that is worth a line in the log."""

WAITING_SECONDS = 1.0
"""How often a waiting reader hears for whom it waits."""


class Transfers:
    """The calls that move tensors, to and from the shards of this server."""

    def __init__(
        self, shards: Shards, requests: Requests, buffers: Buffers, limits: Limits, streams: Streams
    ) -> None:
        self._budget = Budget(limits.buffer_bytes_max)
        self._places = Places(limits)
        self._told_of_waits: dict[int, int] = {}  # rank -> the clock of its last long wait
        self._buffers = buffers
        self._shards = shards
        self._requests = requests
        self._loop = asyncio.get_running_loop()
        self._streams = streams

    def placed(self, call: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Any]:
        """Let a call take one of the places that its connection has."""

        async def run(request: Any, context: Context) -> Any:
            with self._places.stream(context.peer()):
                return await call(request, context)

        return run

    async def initialise(self, _: object, context: Context) -> pb.InitialiseReply:
        """Stage the first weights on one shard."""
        message, runs = await self._streams.first_message(pb.InitialiseRequest, context)
        header = message.header
        holding = self._shards.holding(header.shard)
        initialiser = named(header.initialiser, "initialiser")
        check_announced(header.slices, holding.slices, holding.shapes)
        held = self._budget.take(holding.bytes)  # until the answer; then they are the weights
        values = self._empty(holding.slices, holding)
        receiver = Receiver(values, finite_from="the initialiser")
        await self._streams.receive(pb.InitialiseRequest, runs, receiver, holding, context)
        ticket = self._requests.open()
        self._shards.submit(header.shard, InitialiseReceived(ticket.number, initialiser, values))
        effect = await self._answer(ticket)
        del held
        return pb.InitialiseReply(adopted=effect.adopted)

    async def push(self, _: object, context: Context) -> pb.Verdict:
        """Take one gradient for one shard."""
        message, runs = await self._streams.first_message(pb.PushRequest, context)
        header = message.header
        holding = self._shards.holding(header.shard)
        replica = decode_replica(header.replica)
        whole(header.generation, "generation")
        whole(header.sequence, "sequence")
        slices = () if header.refusal else holding.slices
        rows = announced_rows(header.slices, slices, holding.tables)
        check_announced(header.slices, slices, holding.shapes, rows)
        gradients = self._budget.take(
            holding.bytes if slices and not rows else bytes_of(slices, holding.shapes, rows)
        )
        arrays = self._empty(slices, holding, rows)
        try:
            largest = holding.job.gradient_max(header.samples)
            receiver = Receiver(arrays, finite_from=f"replica {replica.rank}", largest=largest)
            await self._streams.receive(pb.PushRequest, runs, receiver, holding, context)
        except NotFiniteError as error:
            # The round must not wait for a gradient that will not come: it counts as one of no samples.
            verdict = await self._push(header, {}, str(error))
            if verdict.outcome is Outcome.FENCED:
                return encode_verdict(verdict)
            raise
        for part, array in arrays.items():
            whole_shape = holding.shapes[part.key]
            gradients[part] = (
                RowGradient(rows[part], array, slice_shape(whole_shape, part)) if part in rows else array
            )
        return encode_verdict(await self._push(header, gradients, header.refusal))

    async def _push(
        self, header: pb.PushHeader, gradients: Mapping[Slice, Gradient], refusal: str
    ) -> Verdict:
        ticket = self._requests.open()
        event = PushReceived(
            request=ticket.number,
            replica=decode_replica(header.replica),
            generation=header.generation,
            sequence=header.sequence,
            version=header.version,
            samples=0 if refusal else header.samples,
            gradients=gradients,
            refusal=refusal,
        )
        self._shards.submit(header.shard, event)
        verdict: Verdict = (await self._answer(ticket)).verdict
        return verdict

    async def pull(self, message: pb.PullRequest, context: Context) -> None:
        """Send one shard's weights, after as long a wait as the consistency model wants."""
        self._shards.check(message.shard)
        replica = decode_replica(message.replica) if message.HasField("replica") else None
        rows: dict[Slice, RowIndices] = {}
        if message.rows:
            holding = self._shards.holding(message.shard)
            rows = decode_wanted(message.rows, holding.slices, holding.tables)
        ticket = self._requests.open()
        event = PullReceived(
            request=ticket.number,
            replica=replica,
            generation=whole(message.generation, "generation"),
            clock=whole(message.clock, "clock"),
            round=whole(message.round, "round") if message.HasField("round") else None,
            rows=rows,
        )
        try:
            self._shards.submit(message.shard, event)
            with self._places.waiting():
                effect = await self._wait(event, message.shard, ticket, context)
        finally:
            if self._requests.close(ticket):
                self._shards.submit(message.shard, PullCancelled(ticket.number))
        if isinstance(effect, PullFenced):
            fenced = pb.Fenced(generation=effect.generation, clock=effect.clock, reason=effect.reason)
            await context.write(pb.PullReply(fenced=fenced).SerializeToString())
        else:
            await self._send(effect, self._shards.holding(message.shard), context)

    async def _wait(self, event: PullReceived, shard: int, ticket: Ticket, context: Context) -> Any:
        """Wait for the answer to a pull; tell the reader at once, and then again and again, why it waits."""
        while not ticket.answer.done():
            if ticket.parked is not None:
                waiting = encode_waiting(ticket.parked, self._loop.time())
                self._tell_of_a_long_wait(event, ticket.parked, waiting.seconds)
                await self._streams.write(context, pb.PullReply(waiting=waiting).SerializeToString())
                if ticket.answer.done():
                    break
                await ticket.listen(WAITING_SECONDS)
                if not ticket.answer.done():
                    self._shards.submit(shard, WaitAsked(ticket.number))
            else:
                await ticket.listen(WAITING_SECONDS)
        return ticket.answer.result()

    def _tell_of_a_long_wait(self, event: PullReceived, parked: PullParked, seconds: float) -> None:
        """Say once, whatever the number of shards, for whom a wait is that takes long."""
        if event.replica is None or seconds < LONG_WAIT_SECONDS:
            return
        rank = event.replica.rank
        if self._told_of_waits.get(rank) != event.clock:
            self._told_of_waits[rank] = event.clock
            log.warning("For %.0f s replica %d %s.", seconds, rank, parked, extra=fields(rank=rank))

    async def _send(self, granted: PullGranted, holding: Holding, context: Context) -> None:
        """Stream a snapshot. It never changes, so no lock is held while its bytes travel."""
        snapshot = granted.snapshot
        header = pb.PullHeader(
            version=snapshot.version,
            rounds=snapshot.rounds,
            clock_gap=granted.clock_gap,
            verdict=None if granted.verdict is None else encode_verdict(granted.verdict),
            slices=slice_headers(holding.slices, holding.shapes, granted.rows)
            if granted.rows
            else holding.headers,
            released_by=None if granted.released_by == NOBODY else granted.released_by,
            sees=granted.sees,
        )
        # Copying many rows takes longer than the event loop may be held up.
        many = sum(map(len, granted.rows.values())) > ROWS_AT_ONCE
        values = await asyncio.to_thread(granted.values) if many else granted.values()
        arrays = [values[part] for part in holding.slices]
        await self._streams.send(context, encode_transfer(pb.PullReply(header=header), arrays))

    def _empty(
        self,
        slices: Iterable[Slice],
        holding: Holding,
        rows: Mapping[Slice, RowIndices] = MappingProxyType({}),
    ) -> dict[Slice, Array]:
        return {part: self._buffers.empty(travelling_shape(part, holding.shapes, rows)) for part in slices}

    async def _answer(self, ticket: Ticket) -> Any:
        try:
            return await ticket.answer
        finally:
            self._requests.close(ticket)
