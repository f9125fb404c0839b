"""What users call: join a job, then pull, push and leave; or observe it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain, cycle
from types import TracebackType
from typing import TypeVar

from paramserver.client.channels import (
    PAUSES_SECONDS,
    Channels,
    Limits,
    OpenChannel,
    may_repeat,
    pauses,
)
from paramserver.client.transfers import FencedError, OnWaiting, Transfers, receive_all
from paramserver.consistency import parse_consistency
from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import (
    Beat,
    Counters,
    HeartbeatAnswered,
    JobSpec,
    JobStatus,
    JoinGranted,
    PartGiven,
    Phase,
    Replica,
    Score,
    Verdict,
)
from paramserver.rows import Gradients, RowsByKey
from paramserver.security import Access, read_access
from paramserver.security.channels import open_channel
from paramserver.session import Pulled, Session
from paramserver.types import Tensors
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.buffers import Buffers
from paramserver.wire.jobs import decode_granted, encode_join
from paramserver.wire.parts import decode_part_given, encode_part_asked
from paramserver.wire.replicas import decode_heartbeat_answer, encode_heartbeat, encode_leave, encode_score
from paramserver.wire.status import ShardStanding, decode_job_status, decode_shards

log = logging.getLogger("client")

JOIN_PAUSE_SECONDS = 1.0
"""Longest pause between two attempts to join."""

JOIN_NEWS_SECONDS = 3.0
"""How often whoever waits to join says so in the log."""

OBSERVE_ATTEMPTS = 20
"""How often an observer begins again because the rounds it asked for were replaced meanwhile."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Status:
    """How a job stands.

    Attributes:
        job: as its coordinator sees it; None if the server that was asked has no coordinator.
        shards: those of the server that was asked.
        cpu_seconds: processor time that this server has used, all its threads.
    """

    job: JobStatus | None
    shards: tuple[ShardStanding, ...]
    cpu_seconds: float = 0.0


def _not_told(_: object) -> None:
    """Take no notice of a wait."""


class Connection:
    """A connection to the servers of one job; any thread may use it, and all share its channels.

    Args:
        coordinator: address of the first server, ``host:port``; the others are learnt at the join.
        limits: how long things may take.
        access: what opens the servers' doors; None: what the environment says.
        opens: opens each channel.

    Raises:
        RequestError: what the environment says cannot be read.

    Example:
        >>> with Connection("127.0.0.1:1") as connection:  # where nobody listens
        ...     connection.observe("me", deadline_seconds=0.1)
        Traceback (most recent call last):
        paramserver.errors.JobError: 'me' could not join the job at 127.0.0.1:1 within 0.1 s. ...
    """

    def __init__(
        self,
        coordinator: str,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        access: Access | None = None,
        opens: OpenChannel = open_channel,
    ) -> None:
        self.coordinator = coordinator
        self._limits = limits
        self._channels = Channels(coordinator, read_access() if access is None else access, opens)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def join(
        self, name: str, job: JobSpec, deadline_seconds: float = 60.0, *, stays: bool = False
    ) -> ReplicaClient:
        """Take part as a replica.

        Blocks until the coordinator has answered, for which all servers must be up, or the deadline.

        Args:
            name: who it is, such as ``worker0/1``; the same name again is a restart of the same rank.
            job: what to train; every replica says the same.
            deadline_seconds: how long to try while servers are not up.
            stays: after it has left, heartbeats go on until they are answered with the job's end.

        Raises:
            RequestError: the job differs from the one that is trained, or cannot be.
            JobError: no server answered in time, or the job is over.
        """
        attempt = uuid.uuid4().hex
        reply = self.ask_to_join(encode_join(name, attempt, job, stays=stays), deadline_seconds)
        return ReplicaClient(self, self._channels, reply, self._limits, name, attempt, stays)

    def observe(self, name: str, deadline_seconds: float = 60.0, *, scores: bool = False) -> ObserverClient:
        """Take part as an observer, who only reads; blocks until there is a job, or the deadline.

        Args:
            name: who it is, for people.
            deadline_seconds: how long to try while there is no job.
            scores: it will send the score of the final weights, so that the servers wait for it.

        Raises:
            JobError: there was no job in time, or it is over.
        """
        reply = self.ask_to_join(encode_join(name, uuid.uuid4().hex, None, scores), deadline_seconds)
        return ObserverClient(self, self._channels, reply, self._limits)

    def heartbeat(
        self, beats: Iterable[Beat], deadline_seconds: float | None = None, *, repeat: bool = False
    ) -> HeartbeatAnswered:
        """Say that replicas are alive; blocks until the coordinator has answered, or the deadline.

        Args:
            beats: what to say of each.
            deadline_seconds: how long one attempt may take.
            repeat: say it again where there is no answer; else the next heartbeat will do.

        Raises:
            JobError: it has not.
        """
        seconds = min(self._limits.call, deadline_seconds or self._limits.call)
        message = encode_heartbeat(beats)
        reply = self._repeated(
            lambda: self._channels.control.Heartbeat(message, timeout=seconds),
            PAUSES_SECONDS if repeat else (),
        )
        return decode_heartbeat_answer(reply)

    def score(self, score: Score) -> None:
        """Tell the coordinator how good some weights are.

        Raises:
            JobError: it does not answer.
            RequestError: a number is out of its range.
        """
        message = encode_score(score)
        self._repeated(lambda: self._channels.control.Score(message, timeout=self._limits.call))

    def status(self, *, repeat: bool = True) -> Status:
        """Ask how the job stands, and the first server's shards.

        Args:
            repeat: ask again where there is no answer.

        Raises:
            JobError: the coordinator does not answer.
        """
        reply = self._repeated(
            lambda: self._channels.control.Status(pb.StatusRequest(), timeout=self._limits.call),
            PAUSES_SECONDS if repeat else (),
        )
        job = decode_job_status(reply.job) if reply.HasField("job") else None
        return Status(job, decode_shards(reply.shards), reply.cpu_seconds)

    def leave(
        self,
        replica: Replica,
        counters: Counters,
        failure: str = "",
        generation: int = 0,
        *,
        goes: bool = False,
        clock: int = 0,
    ) -> None:
        """End a replica's part in a generation; see ``ReplicaClient.leave``."""
        message = encode_leave(replica, counters, failure, generation, goes, clock)
        # A failure is told once: whoever fails because the servers are gone need not look for them for long.
        again = () if failure else PAUSES_SECONDS
        self._repeated(lambda: self._channels.control.Leave(message, timeout=self._limits.call), again)

    def next_part(
        self, replica: Replica, generation: int, clock: int, patience_seconds: float = 0.0
    ) -> PartGiven:
        """Ask what a replica does from a clock on; see ``ReplicaClient.next_part``."""
        message = encode_part_asked(replica, generation, clock)
        reply = self._repeated(
            lambda: self._channels.control.NextPart(message, timeout=self._limits.call),
            pauses(patience_seconds),
        )
        return decode_part_given(reply)

    def pause(self, seconds: float) -> None:
        """Wait, unless the connection is stopped meanwhile.

        Raises:
            JobError: it has been stopped.
        """
        self._channels.pause(seconds)

    def stop(self, reason: str) -> None:
        """End every join, pull and push, under way and to come, with a ``JobError`` of this sentence.

        Any thread may call. Leaving, heartbeats and status still work until ``close``.
        """
        self._channels.stop(reason)

    def close(self) -> None:
        """End all calls and close the channels."""
        self._channels.close()

    def ask_to_join(self, message: pb.JoinRequest, deadline_seconds: float) -> pb.JoinReply:
        """Send a join until it is answered; what `join`, `observe` and `ReplicaClient.rejoin` do."""
        name = message.name
        told = time.monotonic()
        deadline = told + deadline_seconds
        for pause in chain(PAUSES_SECONDS, cycle([JOIN_PAUSE_SECONDS])):
            left = max(0.01, deadline - time.monotonic())
            try:
                with self._channels.errors(self.coordinator), self._channels.knock() as server:
                    reply: pb.JoinReply = server.join(message, timeout=min(self._limits.call, left))
                    return reply
            except JobError as error:
                if not may_repeat(error):
                    raise
                if time.monotonic() >= deadline:
                    raise JobError(
                        f"'{name}' could not join the job at {self.coordinator} within "
                        f"{deadline_seconds:g} s. {error}",
                        Failure.UNAVAILABLE,
                    ) from error
                if time.monotonic() >= told + JOIN_NEWS_SECONDS:
                    told = time.monotonic()
                    left = deadline - told
                    log.info("%s still waits to join, for at most %.0f s more. %s", name, left, error)
            self._channels.pause(min(pause, JOIN_PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))
        raise AssertionError("The pauses never end.")

    def _repeated(self, call: Callable[[], Answer], again: Iterable[float] = PAUSES_SECONDS) -> Answer:
        """Make a call on the coordinator's own lane, again where it failed without an answer."""
        for pause in chain(again, [None]):
            try:
                with self._channels.errors(self.coordinator):
                    return call()
            except JobError as error:
                if pause is None or not may_repeat(error) or self._channels.wait(pause):
                    raise
        raise AssertionError("The last attempt returns or raises.")


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
