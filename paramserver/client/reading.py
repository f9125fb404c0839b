"""Reading one shard's part of a pull, message by message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from paramserver.client.channels import Channels, Server
from paramserver.errors import JobError, RequestError
from paramserver.events import NOBODY, PullGranted, PullParked, PullReceived, Snapshot
from paramserver.session import Pulled, PullExchange, Session
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import encode_replica
from paramserver.wire.receive import Receiver, check_announced
from paramserver.wire.replicas import decode_verdict
from paramserver.wire.rows import encode_wanted
from paramserver.wire.status import decode_waiting
from paramserver.wire.transfer import decode_transfer

OnWaiting = Callable[[PullParked | None], None]
"""Told why a pull waits, again and again while it does, and None once it waits no more."""


class FencedError(JobError):
    """This replica counts no more: begin anew.

    Attributes:
        generation: to work for from now on.
        clock: to begin at.
    """

    def __init__(self, reason: str, generation: int, clock: int) -> None:
        super().__init__(reason)
        self.generation = generation
        self.clock = clock


class Waits:
    """Tells why a pull waits, and that it waits no more once none of its shards makes it wait.

    Args:
        on_waiting: told so.

    Example:
        >>> waits = Waits(lambda parked: print("goes on" if parked is None else parked.waits_for))
        >>> waits.wait(0, PullParked(0, ((1, 4),), "ssp:2", 0.0))
        ((1, 4),)
        >>> waits.wait(1, PullParked(1, ((2, 4),), "ssp:2", 0.0))
        ((2, 4),)
        >>> waits.end(0); waits.end(2); waits.end(1)
        goes on
    """

    def __init__(self, on_waiting: OnWaiting) -> None:
        self._on_waiting = on_waiting
        self._shards: set[int] = set()

    def wait(self, shard: int, parked: PullParked) -> None:
        """Note why a shard makes the pull wait."""
        self._shards.add(shard)
        self._on_waiting(parked)

    def end(self, shard: int) -> None:
        """Note that a shard has answered."""
        if shard in self._shards:
            self._shards.remove(shard)
            if not self._shards:
                self._on_waiting(None)


class ShardRead:
    """One shard's part of a pull.

    Attributes:
        header: what the shard said of the weights; set once it has come.
    """

    header: PullGranted

    def __init__(
        self,
        channels: Channels,
        server: Server,
        session: Session,
        exchange: PullExchange,
        request: PullReceived,
        seconds: float,
        waits: Waits,
    ) -> None:
        self._channels = channels
        self._address = server.address
        self._session = session
        self._exchange = exchange
        self._shard = request.request
        self._rows = request.rows
        self._waits = waits
        self._receiver: Receiver | None = None
        message = pb.PullRequest(
            shard=self._shard,
            replica=None if request.replica is None else encode_replica(request.replica),
            generation=request.generation,
            clock=request.clock,
            round=request.round,
            rows=encode_wanted(request.rows),
        )
        with channels.errors(server.address):
            self._call: Any = server.pull(message, timeout=seconds)

    def cancel(self) -> None:
        """Want no more; nothing happens if all has come."""
        self._call.cancel()

    def advance(self) -> bool:
        """Take the next message, once it is here; say whether more may come."""
        with self._channels.errors(self._address):
            raw = next(self._call, None)
        try:
            if raw is not None:
                self._take(raw)
                return True
            if self._receiver is None:
                raise RequestError("It ended without a header.")
            self._receiver.finish()
            return False
        except RequestError as error:
            raise JobError(f"What the server at {self._address} sent cannot be read. {error}") from error

    def _take(self, raw: bytes) -> None:
        message, runs = decode_transfer(pb.PullReply, raw)
        part = message.WhichOneof("part")
        if part == "waiting":
            self._waits.wait(self._shard, decode_waiting(message.waiting, self._shard))
        elif part == "fenced":
            fenced = message.fenced
            raise FencedError(fenced.reason, fenced.generation, fenced.clock)
        elif part == "header":
            self._begin(message.header)
        if runs:
            if self._receiver is None:
                raise RequestError("Chunks came before their header.")
            self._receiver.feed(runs)

    def _begin(self, header: pb.PullHeader) -> None:
        self._waits.end(self._shard)
        slices = self._session.slices(self._shard)
        check_announced(header.slices, slices, self._session.shapes, self._rows)
        self._receiver = Receiver({part: self._exchange.destination(part) for part in slices})
        self.header = PullGranted(
            request=self._shard,
            snapshot=Snapshot(header.version, header.rounds, {}),
            clock_gap=header.clock_gap,
            verdict=decode_verdict(header.verdict) if header.HasField("verdict") else None,
            released_by=header.released_by if header.HasField("released_by") else NOBODY,
            sees=tuple(header.sees),
        )


def receive_all(exchange: PullExchange, headers: Mapping[int, PullGranted]) -> Pulled:
    """Give the headers of all shards to the exchange, and return what was pulled."""
    pulled = None
    for shard, header in headers.items():
        pulled = exchange.receive(shard, header)
    assert pulled is not None
    return pulled
