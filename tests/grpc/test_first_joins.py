"""The first join says what a job is. Almost right ones are refused, or give a job that works."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import replace

import grpc
import pytest
from fuzzer import Mutator, resident_bytes, varint
from google.protobuf.message import DecodeError
from raw import JOB, SECONDS, ServerProcess

from paramserver import events as ev
from paramserver.coordinator import Coordinator
from paramserver.errors import RequestError
from paramserver.shard import Shard
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import decode_granted, decode_join, encode_granted, encode_join
from paramserver.wire.orders import decode_order, encode_order
from paramserver.wire.status import ServerStanding, encode_status
from server.limits import Limits

LIMITS = Limits(
    job_bytes_max=1 << 20,
    tensors_max=1000,
    replicas_max=1000,
    message_bytes_max=4 << 20,
    buffer_bytes_max=1 << 30,
    waiting_pulls_max=10,
    streams_max=10,
    connections_max=10,
    silence_seconds=60.0,
)
DEALT = replace(JOB, consistency="sync", replicas=2, replicas_max=3, samples=100, batch=10, epochs=2)
JOBS = (JOB, DEALT, replace(DEALT, shares=(30, 70), checkpoint_updates=3, durability="journal"))


def valid_joins() -> list[bytes]:
    """Return right first joins, of jobs of several kinds."""
    return [encode_join("w/0", "attempt", job).SerializeToString() for job in JOBS]


def mutated(mutator: Mutator, rng: random.Random, raw: bytes) -> bytes:
    """Return a join that is wrong in its bytes, in its fields or, mostly, in those of its job."""
    point = rng.random()
    if point < 0.2:
        return mutator.mutate(raw)
    if point < 0.4:
        return mutator.mutate_fields(raw)
    message = pb.JoinRequest.FromString(raw)
    job = mutator.mutate_fields(message.job.SerializeToString())
    message.ClearField("job")
    field = varint(pb.JoinRequest.JOB_FIELD_NUMBER << 3 | 2)
    return message.SerializeToString() + field + varint(len(job)) + job


def take(raw: bytes) -> str:
    """Let a fresh coordinator and its shards take a first join, as a server does; return what came of it."""
    try:
        message = pb.JoinRequest.FromString(raw)
    except DecodeError:
        return "no message"
    coordinator, shards = Coordinator(1, 2, recovers=True), [Shard(0), Shard(1)]
    coordinator.handle(ev.ServerRegistered(0, "127.0.0.1:1", 2), 0.0)
    try:
        LIMITS.check_job(message.job)
        event = decode_join(message, 1, LIMITS.job_bytes_max)
    except RequestError:
        return "refused as a message"
    outcome = "held back"
    events = deque[ev.CoordinatorEvent]([event])
    while events:
        for effect in coordinator.handle(events.popleft(), 1.0):
            match effect:
                case ev.Ordered(order, shard):
                    for each in shards if shard is None else [shards[shard]]:
                        told = pb.LinkDown.FromString(encode_order(order, each.index).SerializeToString())
                        done = each.handle(decode_order(told), 1.0)
                        events += [one.report for one in done if isinstance(one, ev.Reported)]
                case ev.JoinGranted():
                    outcome = "granted"
                    decode_granted(encode_granted(effect, 1.0))
                case ev.Refused():
                    outcome = "refused as a job"
                case ev.Unavailable():
                    outcome = "no job yet"
    for effect in coordinator.handle(ev.StatusReceived(2), 2.0):
        if isinstance(effect, ev.StatusAnswered):
            encode_status(effect.status, ServerStanding((), 0, 0, 0.0), 2.0)
    for seconds in (3.0, 1e6, 1e12):
        coordinator.handle(ev.TimerFired(), seconds)
    return outcome


@pytest.mark.parametrize(
    "joins",
    [
        pytest.param(3_000, id="3,000"),
        pytest.param(100_000, id="100,000", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_mutated_first_joins_break_nothing(joins: int) -> None:
    rng = random.Random(11)
    right = valid_joins()
    mutator = Mutator(rng, right)
    outcomes = Counter(take(mutated(mutator, rng, rng.choice(right))) for _ in range(joins))
    print(f"{joins:,} first joins: {dict(outcomes.most_common())}")
    assert outcomes["granted"] > joins / 20
    assert outcomes["refused as a message"] > joins / 20
    assert outcomes["refused as a job"] > joins / 100


@pytest.mark.parametrize("seed", range(3))
def test_a_server_whose_job_came_from_a_mutated_join_goes_on(seed: int) -> None:
    rng = random.Random(seed)
    right = valid_joins()
    mutator = Mutator(rng, right)
    with ServerProcess("--job-bytes-max", f"{1 << 20}") as server:
        join = server.channel.unary_unary("/paramserver.v1.ParameterServer/Join")
        memory, statuses = resident_bytes(server.process.pid), Counter[str]()
        for _ in range(100):
            try:
                join(mutated(mutator, rng, rng.choice(right)), timeout=SECONDS)
                statuses["OK"] += 1
            except grpc.RpcError as error:
                statuses[error.code().name] += 1
        assert statuses["OK"]
        assert not {"INTERNAL", "DEADLINE_EXCEEDED", "UNAVAILABLE"} & set(statuses)
        status = server.stub.Status(pb.StatusRequest(), timeout=SECONDS)
        assert status.job.HasField("job")
        assert server.process.poll() is None
        assert "Traceback" not in server.log()
        assert "failed inside" not in server.log()
        assert resident_bytes(server.process.pid) < memory + (24 << 20)
