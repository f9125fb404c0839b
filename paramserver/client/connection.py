"""A connection to the servers of a job: joining it, and all that goes to the coordinator."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, cycle
from types import TracebackType
from typing import TypeVar

from paramserver.client.channels import PAUSES_SECONDS, Channels, Limits, OpenChannel, may_repeat, pauses
from paramserver.client.clients import ObserverClient, ReplicaClient
from paramserver.errors import Failure, JobError
from paramserver.events import (
    Beat,
    Counters,
    HeartbeatAnswered,
    JobSpec,
    JobStatus,
    PartGiven,
    Replica,
    Score,
)
from paramserver.security import Access, read_access
from paramserver.security.channels import open_channel
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import encode_join
from paramserver.wire.parts import decode_part_given, encode_part_asked
from paramserver.wire.replicas import decode_heartbeat_answer, encode_heartbeat, encode_leave, encode_score
from paramserver.wire.status import ShardStanding, decode_job_status, decode_shards

log = logging.getLogger("client")

JOIN_PAUSE_SECONDS = 1.0
"""Longest pause between two attempts to join."""

JOIN_NEWS_SECONDS = 3.0
"""How often whoever waits to join says so in the log."""

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
        self,
        beats: Iterable[Beat],
        deadline_seconds: float | None = None,
        *,
        repeat: bool = False,
        heard_end: bool = False,
    ) -> HeartbeatAnswered:
        """Say that replicas are alive; blocks until the coordinator has answered, or the deadline.

        Args:
            beats: what to say of each.
            deadline_seconds: how long one attempt may take.
            repeat: say it again where there is no answer; else the next heartbeat will do.
            heard_end: it is the last one, since an answer has said that the job is over.

        Raises:
            JobError: it has not.
        """
        seconds = min(self._limits.call, deadline_seconds or self._limits.call)
        message = encode_heartbeat(beats, heard_end=heard_end)
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
