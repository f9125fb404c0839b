"""Moving tensors: one exchange of a session over the channels of all its shards at once.

All calls are begun before the first answer is looked at. Chunks are copied once on the way in, from the
message into the rows where they belong, and once on the way out, from the gradient into the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from paramserver.client.channels import Channels, Limits, Server, may_repeat, pauses
from paramserver.errors import JobError, RequestError
from paramserver.events import (
    NOBODY,
    InitialiseReceived,
    PullGranted,
    PullParked,
    PullReceived,
    PushReceived,
    Snapshot,
    Verdict,
)
from paramserver.rows import RowGradient
from paramserver.session import Pulled, PullExchange, PushExchange, Session
from paramserver.types import Array
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import encode_replica
from paramserver.wire.receive import Receiver, check_announced, slice_headers
from paramserver.wire.replicas import decode_verdict
from paramserver.wire.rows import encode_wanted
from paramserver.wire.status import decode_waiting
from paramserver.wire.transfer import decode_transfer, encode_transfer

OnWaiting = Callable[[PullParked | None], None]
"""Told why a pull waits, again and again while it does, and None once it waits no more."""

Bodies = Mapping[int, tuple[pb.PushRequest | pb.InitialiseRequest, list[Array]]]
"""For each shard the first message, with the header, and the arrays that follow."""


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


class Transfers:
    """Moves tensors between this process and the shards of one job.

    Args:
        channels: to the servers.
        session: of the replica or observer.
        limits: how long things may take.
    """

    def __init__(self, channels: Channels, session: Session, limits: Limits) -> None:
        self._channels = channels
        self._session = session
        self._limits = limits
        self._addresses = session.granted.addresses
        self._patience_seconds = session.granted.patience_seconds
        self._heard = False  # something of the pull that is under way
        self._announced = {
            shard: slice_headers(session.slices(shard), session.shapes) for shard in range(session.shards)
        }

    def pull(self, attempt: Callable[[OnWaiting], Pulled], on_waiting: OnWaiting) -> Pulled:
        """Attempt a pull, again from the beginning where a connection broke: a read changes nothing.

        Args:
            attempt: begins an exchange, reads, and returns what came.
            on_waiting: told about waits.

        Raises:
            FencedError: this replica counts no more.
            JobError: no answer, or the job has ended.
            RequestError: a server refused.
        """
        rests = pauses(self._patience_seconds)
        while True:
            self._heard = False
            try:
                return attempt(on_waiting)
            except JobError as error:
                if self._heard:  # Servers that say something are alive, so the patience begins anew.
                    rests = pauses(self._patience_seconds)
                self._pause_before_repeating(error, rests)

    def read_all(self, exchange: PullExchange, on_waiting: OnWaiting) -> Pulled:
        """Read all shards at once, one time."""
        return receive_all(exchange, self.read(exchange, exchange.requests.values(), on_waiting))

    def read(
        self, exchange: PullExchange, requests: Iterable[PullReceived], on_waiting: OnWaiting
    ) -> dict[int, PullGranted]:
        """Read some shards at once, one time, into the exchange's destinations.

        Returns:
            The header of each.
        """
        reads: dict[int, _Read] = {}
        waits = Waits(on_waiting)
        try:
            for request in requests:
                server = self._channels.server(self._addresses[request.request])
                reads[request.request] = _Read(
                    self._channels, server, self._session, exchange, request, self._limits.pull, waits
                )
            open_reads = list(reads.values())
            # A message of each in turn, so that the shards' bytes travel side by side.
            while open_reads:
                open_reads = [read for read in open_reads if self._advance(read)]
        except BaseException:
            for read in reads.values():
                read.cancel()
            raise
        return {shard: read.header for shard, read in reads.items()}

    def _advance(self, read: _Read) -> bool:
        more = read.advance()
        self._heard = True
        return more

    def push(self, exchange: PushExchange) -> Verdict:
        """Send a gradient to all shards; what got no answer is sent again, unchanged.

        Raises:
            JobError: no answer, or the job has ended.
            RequestError: a server refused.
        """
        bodies = {}
        for shard, request in exchange.requests.items():
            arrays, announced = self._unpacked(shard, request)
            header = pb.PushHeader(
                shard=shard,
                replica=encode_replica(request.replica),
                generation=request.generation,
                sequence=request.sequence,
                version=request.version,
                samples=request.samples,
                slices=None if request.refusal else announced,
                refusal=request.refusal,
            )
            bodies[shard] = (pb.PushRequest(header=header), arrays)
        whole = None
        for shard, raw in self._send(bodies).items():
            whole = exchange.receive(shard, decode_verdict(pb.Verdict.FromString(raw)))
        assert whole is not None
        return whole

    def initialise(self, requests: Mapping[int, InitialiseReceived]) -> bool:
        """Stage first weights on all shards.

        Returns:
            False where weights were in place already.

        Raises:
            JobError: no answer, or the job has ended.
            RequestError: a server refused.
        """
        bodies = {}
        for shard, request in requests.items():
            header = pb.InitialiseHeader(
                shard=shard, initialiser=request.initialiser, slices=self._announced[shard]
            )
            bodies[shard] = (pb.InitialiseRequest(header=header), list(request.values.values()))
        replies = self._send(bodies).values()
        return not any(pb.InitialiseReply.FromString(raw).adopted for raw in replies)

    def _unpacked(self, shard: int, request: PushReceived) -> tuple[list[Array], list[pb.SliceHeader]]:
        """Return the arrays of a push that travel, and their announcement."""
        gradients, shapes = request.gradients, self._session.shapes
        arrays = [each.rows if isinstance(each, RowGradient) else each for each in gradients.values()]
        rows = {part: each.indices for part, each in gradients.items() if isinstance(each, RowGradient)}
        announced = slice_headers(gradients, shapes, rows, name_rows=True) if rows else self._announced[shard]
        return arrays, announced

    def _send(self, bodies: Bodies) -> dict[int, bytes]:
        """Send to all shards at once; send again what failed without an answer, after a pause."""
        replies: dict[int, bytes] = {}
        rests = pauses(self._patience_seconds)
        missing = dict(bodies)
        while missing:
            calls = {shard: self._begin_sending(shard, *body) for shard, body in missing.items()}
            final: RequestError | JobError | None = None
            unanswered: JobError | None = None
            for shard, finish in calls.items():
                try:
                    replies[shard] = finish()
                    del missing[shard]
                except RequestError as error:
                    final = final or error
                except JobError as error:
                    if may_repeat(error):
                        unanswered = error
                    else:
                        final = final or error
            if final is not None:
                raise final
            if unanswered is not None:
                if len(missing) < len(calls):  # Servers that answer are alive, so the patience begins anew.
                    rests = pauses(self._patience_seconds)
                self._pause_before_repeating(unanswered, rests)
        return replies

    def _begin_sending(
        self, shard: int, first: pb.PushRequest | pb.InitialiseRequest, arrays: list[Array]
    ) -> Callable[[], bytes]:
        """Begin to send to one shard, and return a function that waits for the answer."""
        server = self._channels.server(self._addresses[shard])
        pushes = isinstance(first, pb.PushRequest)
        messages = encode_transfer(first, arrays)
        beginning = [next(messages), *(message for message in [next(messages, None)] if message is not None)]
        seconds = self._limits.push
        with self._channels.errors(server.address):
            if len(beginning) == 1:
                short: Any = server.push_short if pushes else server.initialise_short
                answers = short(beginning[0], timeout=seconds)
            else:
                long: Any = server.push if pushes else server.initialise
                future = long.future(chain(beginning, messages), timeout=seconds)

        def finish() -> bytes:
            with self._channels.errors(server.address):
                if len(beginning) > 1:
                    whole: bytes = future.result()
                    return whole
                found = list(answers)
            if len(found) != 1:
                raise JobError(f"The server at {server.address} gave {len(found)} answers to one request.")
            return bytes(found[0])

        return finish

    def _pause_before_repeating(self, error: JobError, rests: Iterator[float]) -> None:
        """Wait a little; raise the error where it is final or there were enough attempts."""
        pause = next(rests, None) if may_repeat(error) else None
        if pause is None:
            raise error
        self._channels.pause(pause)


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


class _Read:
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
