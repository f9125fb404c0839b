"""Moving tensors: one exchange of a session over the channels of all its shards at once.

All calls are begun before the first answer is looked at. Chunks are copied once on the way in, from the
message into the rows where they belong, and once on the way out, from the gradient into the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from paramserver.client.channels import Channels, Limits, may_repeat, pauses
from paramserver.client.reading import OnWaiting, ShardRead, Waits, receive_all
from paramserver.errors import JobError, RequestError
from paramserver.events import InitialiseReceived, PullGranted, PullReceived, PushReceived, Verdict
from paramserver.rows import RowGradient
from paramserver.session import Pulled, PullExchange, PushExchange, Session
from paramserver.types import Array
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import encode_replica
from paramserver.wire.receive import slice_headers
from paramserver.wire.replicas import decode_verdict
from paramserver.wire.transfer import encode_transfer

Bodies = Mapping[int, tuple[pb.PushRequest | pb.InitialiseRequest, list[Array]]]
"""For each shard the first message, with the header, and the arrays that follow."""


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
        reads: dict[int, ShardRead] = {}
        waits = Waits(on_waiting)
        try:
            for request in requests:
                server = self._channels.server(self._addresses[request.request])
                reads[request.request] = ShardRead(
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

    def _advance(self, read: ShardRead) -> bool:
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
