"""What a replica and an observer call, once they have joined."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from paramserver.client.channels import PAUSES_SECONDS, Channels, Limits
from paramserver.client.reading import FencedError, OnWaiting, receive_all
from paramserver.client.transfers import Transfers
from paramserver.consistency import parse_consistency
from paramserver.errors import Fault, JobError, RequestError
from paramserver.events import Beat, Counters, JobSpec, JoinGranted, PartGiven, Phase, Replica, Verdict
from paramserver.rows import Gradients, RowsByKey
from paramserver.session import Pulled, Session
from paramserver.types import Tensors
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.buffers import Buffers
from paramserver.wire.jobs import decode_granted, encode_join

if TYPE_CHECKING:
    from paramserver.client.connection import Connection

OBSERVE_ATTEMPTS = 20
"""How often an observer begins again because the rounds it asked for were replaced meanwhile."""


def _not_told(_: object) -> None:
    """Take no notice of a wait."""


class _Client:
    """What a replica and an observer have in common.

    Attributes:
        granted: what the coordinator answered to the join.
        job: what is trained.
        sealed: at the join the first weights were in place.
        heartbeat_seconds: how often the servers wish for a heartbeat.
    """

    def __init__(
        self, connection: Connection, channels: Channels, reply: pb.JoinReply, limits: Limits
    ) -> None:
        self.heartbeat_seconds: float = reply.heartbeat_seconds
        self.connection = connection
        self._channels = channels
        self._limits = limits
        self._take(reply)

    def _take(self, reply: pb.JoinReply) -> None:
        """Be what the coordinator says."""
        self.granted: JoinGranted = decode_granted(reply)
        self.job: JobSpec = self.granted.job
        self.sealed = self.granted.sealed
        self.session = Session(self.granted, Buffers().empty)
        self._transfers = Transfers(self._channels, self.session, self._limits)


class ReplicaClient(_Client):
    """One replica's calls. One thread uses it; several of them share a connection.

    Attributes:
        replica: rank and incarnation.
        rank: the rank.
        clock: finished steps at the beginning.
    """

    def __init__(
        self,
        connection: Connection,
        channels: Channels,
        reply: pb.JoinReply,
        limits: Limits,
        name: str,
        attempt: str,
        stays: bool,
    ) -> None:
        super().__init__(connection, channels, reply, limits)
        self._name = name
        self._attempt = attempt
        self._stays = stays

    def _take(self, reply: pb.JoinReply) -> None:
        super()._take(reply)
        if self.granted.replica is None:
            raise JobError(f"The server at {self.connection.coordinator} gave a replica no rank.")
        self.replica: Replica = self.granted.replica
        self.rank = self.replica.rank
        self.clock = self.granted.clock

    def rejoin(self, generation: int) -> None:
        """Take part again after having been fenced, or after the weights were recovered.

        What `replica`, `clock` and the placement are may change. Blocks until the job goes on, or as long as
        it would wait for a lost server.

        Args:
            generation: the newest that was heard of.

        Raises:
            RequestError: another process has taken this replica's place meanwhile.
            JobError: nobody answered, or the job is over.
        """
        incarnation = 0
        if generation <= self.granted.generation:
            # It was believed dead. Unless somebody else is there by now, it is its own replacement.
            self._attempt, incarnation = uuid.uuid4().hex, self.replica.incarnation
        message = encode_join(self._name, self._attempt, self.job, incarnation=incarnation, stays=self._stays)
        seconds = max(self.granted.patience_seconds, self._limits.call)
        self._take(self.connection.ask_to_join(message, seconds))

    def initialise(self, values: Tensors) -> bool:
        """Stage the first weights on every shard.

        Args:
            values: float32 by key, of the job's shapes.

        Returns:
            False if weights were in place already, and these are not used.

        Raises:
            RequestError: a key, shape or dtype is not the job's, or a value is not finite.
            JobError: a server did not answer, or the job is over.
        """
        return self._transfers.initialise(self.session.initialise(uuid.uuid4().hex, values))

    def pull(self, clock: int, on_waiting: OnWaiting = _not_told, rows: RowsByKey | None = None) -> Pulled:
        """Read the weights from all shards; blocks while the consistency model makes this clock wait.

        Args:
            clock: finished steps of this replica.
            on_waiting: told for whom the read waits, about once a second, and None once it waits no more.
            rows: for tables the rows that suffice, ``(n,) int64``, ascending; every other tensor is read
                whole.

        Returns:
            Fresh arrays by key, ``RowValues`` where rows were named, with their versions; in a synchronous
            mode what became of the last push.

        Raises:
            FencedError: this replica counts no more.
            RequestError: the clock is not this replica's, or there are no such rows.
            JobError: a server did not answer, or the job is over.
        """
        return self._transfers.pull(
            lambda note: self._transfers.read_all(self.session.pull(clock, rows), note), on_waiting
        )

    def push(self, sequence: int, gradients: Gradients, samples: int) -> Verdict:
        """Send a gradient to all shards; blocks until all have answered, which they do at once.

        A shard that did not answer is sent the same push again: its id makes that safe.

        Args:
            sequence: the clock of the step.
            gradients: mean gradient by key, float32; of a table a ``RowGradient`` of the touched rows will
                do. Not to be changed before this returns. One that is not finite goes out as a refusal, which
                counts as no samples.
            samples: how many samples it is the mean over, >= 1.

        Returns:
            What became of it over all shards.

        Raises:
            RequestError: a key, shape, dtype or number does not fit; nothing has been applied.
            JobError: a server did not answer, or the job is over.
        """
        return self._transfers.push(self.session.push(sequence, gradients, samples))

    def next_part(self, clock: int) -> PartGiven:
        """Ask what to do from a clock on; any thread may ask, and is answered at once.

        Args:
            clock: that there is no batch for yet; asked again, the answer is the same.

        Returns:
            A part of an epoch and the clock of its first batch; or why to ask again a little later; or that
            nothing is left.

        Raises:
            FencedError: this replica counts no more.
            RequestError: this job's replicas choose their own samples.
            JobError: the coordinator does not answer, or the job is over.
        """
        replica, generation = self.replica, self.granted.generation
        try:
            given = self.connection.next_part(replica, generation, clock, self.granted.patience_seconds)
        except RequestError as error:
            if error.fault is not Fault.UNKNOWN:
                raise
            raise FencedError(str(error), generation, clock) from error
        if given.generation != generation:
            raise FencedError("The weights were recovered.", given.generation, clock)
        return given

    def beat(self, clock: int = 0, steps: int = 0, phase: Phase = Phase.IDLE) -> Beat:
        """Return a heartbeat's part for this replica, with no counters."""
        return Beat(self.replica, clock, steps, phase, Counters())

    def leave(
        self,
        counters: Counters = Counters(),  # noqa: B008 - it is frozen
        failure: str = "",
        *,
        goes: bool = False,
        clock: int = 0,
    ) -> None:
        """End this replica's part.

        Args:
            counters: what it has done.
            failure: empty if it leaves in good order; else a sentence, and the job ends with it.
            goes: it leaves before its last step, and does not stay for the end of the job.
            clock: its finished steps, if no heartbeat has said so.

        Raises:
            RequestError: this replica counts no more.
            JobError: the coordinator does not answer.
        """
        generation = self.granted.generation
        self.connection.leave(self.replica, counters, failure, generation, goes=goes, clock=clock)


class ObserverClient(_Client):
    """An observer's calls: it is never counted and never waits."""

    def pull(self) -> Pulled:
        """Read the newest weights that all shards have; in a synchronous mode those of one round.

        Raises:
            JobError: there are no weights yet (``UNAVAILABLE``), or a server did not answer.
        """
        gathers = parse_consistency(self.job.consistency).gathers
        return self._transfers.pull(self._pull_round if gathers else self._pull_newest, _not_told)

    def _pull_newest(self, on_waiting: OnWaiting) -> Pulled:
        return self._transfers.read_all(self.session.observe(), on_waiting)

    def _pull_round(self, on_waiting: OnWaiting) -> Pulled:
        for _ in range(OBSERVE_ATTEMPTS):
            try:
                return self._pull_one_round(on_waiting)
            except RequestError as error:
                if error.fault is not Fault.OUT_OF_RANGE:
                    raise
            self._channels.pause(PAUSES_SECONDS[0])
        raise JobError(
            f"The rounds went on too fast to read one from all shards in {OBSERVE_ATTEMPTS} attempts."
        )

    def _pull_one_round(self, on_waiting: OnWaiting) -> Pulled:
        """Learn the newest round from the first shard, and read that round from the others."""
        exchange = self.session.observe()
        first, *others = exchange.requests.values()
        headers = self._transfers.read(exchange, [first], on_waiting)
        newest = headers[first.request].snapshot.rounds
        headers |= self._transfers.read(
            exchange, [replace(request, round=newest) for request in others], on_waiting
        )
        return receive_all(exchange, headers)
