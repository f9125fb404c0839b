"""How the job and the shards stand, as messages and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paramserver.events import (
    JobStatus,
    MemberStatus,
    PullParked,
    ServerRegistered,
    ShardStatistics,
    Standing,
)
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import decode_job, decode_replica, encode_job, encode_replica
from paramserver.wire.parts import decode_visits, encode_visits
from paramserver.wire.replicas import (
    decode_counters,
    decode_phase,
    decode_score,
    encode_counters,
    encode_phase,
    encode_score,
)

SCORES_MAX = 100
"""How many scores a status carries; the newest."""

VISITS_MAX = 10
"""Of how many epochs a status says what became of their samples; the newest."""


@dataclass(frozen=True, slots=True)
class ShardStanding:
    """A shard's statistics and those of its lock.

    Attributes:
        statistics: the shard's own; in a decoded one ``since`` of a parked pull is minus its age in seconds.
        lock_wait_seconds: total time that callers waited for the lock.
        lock_hold_seconds: total time that it was held.
    """

    statistics: ShardStatistics
    lock_wait_seconds: float
    lock_hold_seconds: float


@dataclass(frozen=True, slots=True)
class ServerStanding:
    """How one server stands.

    Attributes:
        shards: its own, in shard order.
        received_bytes: of the messages that brought tensors.
        sent_bytes: of the messages that took tensors away.
        cpu_seconds: processor time of all its threads.
    """

    shards: tuple[ShardStanding, ...] = ()
    received_bytes: int = 0
    sent_bytes: int = 0
    cpu_seconds: float = 0.0


def encode_status(job: JobStatus | None, server: ServerStanding, now: float) -> pb.StatusReply:
    """Return a server's answer to a status.

    Args:
        job: how the job stands, from the coordinator; None elsewhere.
        server: how the server itself stands.
        now: the host's seconds.
    """
    return pb.StatusReply(
        job=None if job is None else encode_job_status(job),
        shards=encode_shards(server.shards, now),
        received_bytes=server.received_bytes,
        sent_bytes=server.sent_bytes,
        cpu_seconds=server.cpu_seconds,
    )


def decode_status(message: pb.StatusReply) -> tuple[JobStatus | None, ServerStanding]:
    """Return how the job stands, if the coordinator has answered, and how the server does.

    Raises:
        RequestError: a field is out of its range.
    """
    job = decode_job_status(message.job) if message.HasField("job") else None
    server = ServerStanding(
        decode_shards(message.shards), message.received_bytes, message.sent_bytes, message.cpu_seconds
    )
    return job, server


def encode_waiting(parked: PullParked, now: float) -> pb.Waiting:
    """Return what a waiting reader is told.

    Args:
        parked: why it waits.
        now: the host's seconds.
    """
    return pb.Waiting(
        waits_for=[pb.Laggard(rank=rank, clock=clock) for rank, clock in parked.waits_for],
        bound=parked.bound,
        seconds=max(0.0, now - parked.since),
        others=parked.others,
        wants_weights=parked.wants_weights,
    )


def decode_waiting(message: pb.Waiting, request: int = 0) -> PullParked:
    """Return why a reader waits; its ``since`` is minus the seconds that it has waited."""
    waits_for = tuple((laggard.rank, laggard.clock) for laggard in message.waits_for)
    return PullParked(
        request, waits_for, message.bound, -message.seconds, message.others, message.wants_weights
    )


def encode_shards(standings: Iterable[ShardStanding], now: float) -> list[pb.ShardStatus]:
    """Return the messages of shards' standings; ``now``: the host's seconds."""
    return [_encode_shard(standing, now) for standing in standings]


def decode_shards(messages: Iterable[pb.ShardStatus]) -> tuple[ShardStanding, ...]:
    """Return the standings of messages."""
    return tuple(
        ShardStanding(
            ShardStatistics(
                message.shard,
                message.version,
                message.rounds,
                message.bytes,
                tuple((parked.rank, decode_waiting(parked.waiting)) for parked in message.parked),
                dict(message.pushes),
                dict(message.staleness),
            ),
            message.lock_wait_seconds,
            message.lock_hold_seconds,
        )
        for message in messages
    )


def encode_job_status(status: JobStatus) -> pb.JobStatus:
    """Return the message of the job's standing."""
    return pb.JobStatus(
        job=None if status.job is None else encode_job(status.job),
        fingerprint="" if status.job is None else status.job.fingerprint(),
        generation=status.generation,
        servers=[
            pb.ServerStatus(server=server.server, address=server.address, shards=server.shards)
            for server in status.servers
        ],
        servers_expected=status.servers_expected,
        started=status.started,
        sealed=status.sealed,
        ended=status.ended,
        reason=status.reason,
        rounds=status.rounds,
        members=[_encode_member(member) for member in status.members],
        scores=[encode_score(score) for score in status.scores[-SCORES_MAX:]],
        visits=[encode_visits(visits) for visits in status.visits[-VISITS_MAX:]],
        trouble=status.trouble,
    )


def decode_job_status(message: pb.JobStatus) -> JobStatus:
    """Return the job's standing.

    Raises:
        RequestError: a field is out of its range.
    """
    return JobStatus(
        job=decode_job(message.job) if message.HasField("job") else None,
        generation=message.generation,
        servers=tuple(
            ServerRegistered(server.server, server.address, server.shards) for server in message.servers
        ),
        servers_expected=message.servers_expected,
        started=message.started,
        sealed=message.sealed,
        ended=message.ended,
        reason=message.reason,
        rounds=message.rounds,
        members=tuple(_decode_member(member) for member in message.members),
        scores=tuple(decode_score(score) for score in message.scores),
        visits=tuple(decode_visits(visits) for visits in message.visits),
        trouble=message.trouble,
    )


def _encode_shard(standing: ShardStanding, now: float) -> pb.ShardStatus:
    statistics = standing.statistics
    return pb.ShardStatus(
        shard=statistics.shard,
        version=statistics.version,
        rounds=statistics.rounds,
        bytes=statistics.bytes,
        parked=[
            pb.ParkedPull(rank=rank, waiting=encode_waiting(parked, now))
            for rank, parked in statistics.parked
        ],
        pushes=statistics.pushes,
        lock_wait_seconds=standing.lock_wait_seconds,
        lock_hold_seconds=standing.lock_hold_seconds,
        staleness=statistics.staleness,
    )


def _encode_member(member: MemberStatus) -> pb.MemberStatus:
    return pb.MemberStatus(
        replica=encode_replica(member.replica),
        name=member.name,
        standing=member.standing.value,
        clock=member.clock,
        steps=member.steps,
        phase=encode_phase(member.phase),
        heard_seconds=member.heard_seconds,
        counters=encode_counters(member.counters),
    )


def _decode_member(message: pb.MemberStatus) -> MemberStatus:
    return MemberStatus(
        decode_replica(message.replica),
        message.name,
        Standing(message.standing),
        message.clock,
        message.steps,
        decode_phase(message.phase),
        message.heard_seconds,
        decode_counters(message.counters),
    )
