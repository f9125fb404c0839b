"""Joining: the job, the placement and who one is, as messages and back."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import prod

from paramserver.errors import Fault, RequestError
from paramserver.events import (
    PROTOCOL_VERSION,
    JobSpec,
    JoinGranted,
    JoinReceived,
    Replica,
    Slice,
    TensorSpec,
)
from paramserver.placement import BYTES_PER_ELEMENT
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.numbers import decode_dtype, encode_dtype, finite, named, whole
from paramserver.wire.rows import ROWS_MAX
from paramserver.wire.transfer import CHUNK_BYTES_MAX

JOB_BYTES_MAX = 1 << 40
"""Above this (a tebibyte) a job's weights are taken for a mistake unless the server was told otherwise."""


def encode_job(job: JobSpec) -> pb.JobSpec:
    """Return the message of a job.

    Raises:
        RequestError: a tensor has a dtype that cannot travel.
    """
    return pb.JobSpec(
        tensors=[
            pb.TensorSpec(
                key=tensor.key, shape=tensor.shape, dtype=encode_dtype(tensor.dtype), table=tensor.table
            )
            for tensor in job.tensors
        ],
        model=job.model,
        consistency=job.consistency,
        optimizer=job.optimizer,
        learning_rate=job.learning_rate,
        schedule=job.schedule,
        versions_total=job.versions_total,
        seed=job.seed,
        replicas=job.replicas,
        replicas_max=job.replicas_max,
        on_death=job.on_death,
        lease_seconds=job.lease_seconds,
        step_timeout_seconds=job.step_timeout_seconds,
        restart_timeout_seconds=job.restart_timeout_seconds,
        restarts_max=job.restarts_max,
        start_timeout_seconds=job.start_timeout_seconds,
        target_accuracy=job.target_accuracy,
        checkpoint_updates=job.checkpoint_updates,
        checkpoint_seconds=job.checkpoint_seconds,
        durability=job.durability,
        samples=job.samples,
        batch=job.batch,
        epochs=job.epochs,
        shares=job.shares,
    )


def decode_job(message: pb.JobSpec, bytes_max: int = JOB_BYTES_MAX) -> JobSpec:
    """Return the job of a message, each number within the range that the contract gives.

    Whether the names of rules and optimizers mean something is for the coordinator to say.

    Args:
        message: from a client.
        bytes_max: most bytes of weights that are taken.

    Raises:
        RequestError: a field is out of its range, keys are not in order, or the weights are larger than the
            limit.
    """
    if message.replicas_max < message.replicas:
        raise RequestError(
            f"The field 'job.replicas_max' has to be at least 'job.replicas' ({message.replicas}), and it is "
            f"{message.replicas_max}."
        )
    return JobSpec(
        tensors=_decode_tensors(message.tensors, bytes_max),
        model=message.model,
        consistency=message.consistency,
        optimizer=message.optimizer,
        learning_rate=finite(message.learning_rate, "job.learning_rate", above_zero=True),
        schedule=message.schedule,
        versions_total=whole(message.versions_total, "job.versions_total", 1),
        seed=whole(message.seed, "job.seed"),
        replicas=whole(message.replicas, "job.replicas", 1),
        replicas_max=message.replicas_max,
        on_death=message.on_death,
        lease_seconds=finite(message.lease_seconds, "job.lease_seconds", above_zero=True),
        step_timeout_seconds=finite(
            message.step_timeout_seconds, "job.step_timeout_seconds", above_zero=True
        ),
        restart_timeout_seconds=finite(message.restart_timeout_seconds, "job.restart_timeout_seconds"),
        restarts_max=whole(message.restarts_max, "job.restarts_max"),
        start_timeout_seconds=finite(
            message.start_timeout_seconds, "job.start_timeout_seconds", above_zero=True
        ),
        target_accuracy=finite(message.target_accuracy, "job.target_accuracy"),
        checkpoint_updates=whole(message.checkpoint_updates, "job.checkpoint_updates"),
        checkpoint_seconds=finite(message.checkpoint_seconds, "job.checkpoint_seconds"),
        durability=message.durability or "checkpoint",
        samples=whole(message.samples, "job.samples"),
        batch=whole(message.batch or 1, "job.batch", 1),
        epochs=whole(message.epochs or 1, "job.epochs", 1),
        shares=tuple(whole(share, "job.shares") for share in message.shares),
    )


def encode_slices(slices: Iterable[Slice]) -> list[pb.Slice]:
    """Return the messages of slices."""
    return [
        pb.Slice(key=part.key, row_begin=part.row_begin, row_end=part.row_end, shard=part.shard)
        for part in slices
    ]


def decode_slices(messages: Iterable[pb.Slice]) -> tuple[Slice, ...]:
    """Return the slices of messages."""
    return tuple(Slice(part.key, part.row_begin, part.row_end, part.shard) for part in messages)


def encode_replica(replica: Replica) -> pb.Replica:
    """Return the message of a replica."""
    return pb.Replica(rank=replica.rank, incarnation=replica.incarnation)


def decode_replica(message: pb.Replica) -> Replica:
    """Return the replica of a message.

    Raises:
        RequestError: the rank is negative or the incarnation below 1.
    """
    return Replica(whole(message.rank, "replica.rank"), whole(message.incarnation, "replica.incarnation", 1))


def encode_join(
    name: str,
    attempt: str,
    job: JobSpec | None,
    scores: bool = False,
    incarnation: int = 0,
    stays: bool = False,
) -> pb.JoinRequest:
    """Return a join's message; without a job it is an observer's, who may be one that scores."""
    return pb.JoinRequest(
        protocol_version=PROTOCOL_VERSION,
        name=name,
        attempt=attempt,
        job=None if job is None else encode_job(job),
        scores=scores,
        incarnation=incarnation,
        stays=stays,
    )


def decode_join(message: pb.JoinRequest, request: int, bytes_max: int = JOB_BYTES_MAX) -> JoinReceived:
    """Return the event of a join's message.

    Raises:
        RequestError: another version of the protocol, no name, no attempt, or a job out of range.
    """
    if message.protocol_version != PROTOCOL_VERSION:
        raise RequestError(
            f"This server speaks version {PROTOCOL_VERSION} of the protocol, and '{message.name}' speaks "
            f"version {message.protocol_version}. Install the same release of paramserver on both sides.",
            Fault.PRECONDITION,
        )
    job = decode_job(message.job, bytes_max) if message.HasField("job") else None
    name, attempt = named(message.name, "name"), named(message.attempt, "attempt")
    incarnation = whole(message.incarnation, "incarnation")
    return JoinReceived(request, name, attempt, job, message.scores, incarnation, message.stays)


def encode_granted(granted: JoinGranted, heartbeat_seconds: float) -> pb.JoinReply:
    """Return the answer to a join.

    Args:
        granted: what the coordinator says.
        heartbeat_seconds: how often a heartbeat is wished for.
    """
    return pb.JoinReply(
        replica=None if granted.replica is None else encode_replica(granted.replica),
        generation=granted.generation,
        clock=granted.clock,
        job=encode_job(granted.job),
        fingerprint=granted.job.fingerprint(),
        placement=encode_slices(granted.placement),
        addresses=granted.addresses,
        sealed=granted.sealed,
        heartbeat_seconds=heartbeat_seconds,
        chunk_bytes_max=CHUNK_BYTES_MAX,
        rows_max=ROWS_MAX,
        recovers=granted.recovers,
    )


def decode_granted(message: pb.JoinReply, request: int = 0) -> JoinGranted:
    """Return what the coordinator says to a join.

    ``heartbeat_seconds`` and ``chunk_bytes_max`` are to be read from the message itself.
    """
    return JoinGranted(
        request=request,
        replica=decode_replica(message.replica) if message.HasField("replica") else None,
        generation=message.generation,
        clock=message.clock,
        job=decode_job(message.job),
        placement=decode_slices(message.placement),
        addresses=tuple(message.addresses),
        sealed=message.sealed,
        recovers=message.recovers,
    )


def _decode_tensors(messages: Iterable[pb.TensorSpec], bytes_max: int) -> tuple[TensorSpec, ...]:
    tensors = []
    for message in messages:
        key, shape = named(message.key, "job.tensors.key"), tuple(message.shape)
        if any(size < 1 for size in shape):
            raise RequestError(f"Tensor '{key}' has shape {shape}, and each size has to be at least 1.")
        if message.table and not shape:
            raise RequestError(f"Tensor '{key}' is a single number and has no rows, so it is no table.")
        tensors.append(TensorSpec(key, shape, decode_dtype(message.dtype, key), message.table))
    size = sum(prod(tensor.shape) for tensor in tensors) * BYTES_PER_ELEMENT
    if size > bytes_max:
        raise RequestError(
            f"The job's tensors hold {size:,} bytes, and this server takes at most {bytes_max:,}. Check the "
            "shapes, or start the server with a larger --job-bytes-max.",
            Fault.EXHAUSTED,
        )
    for before, after in pairwise(tensors):
        if before.key.encode() >= after.key.encode():
            raise RequestError(
                f"The job's tensors have to come in key order, each key once, and '{after.key}' comes after "
                f"'{before.key}'."
            )
    return tuple(tensors)
