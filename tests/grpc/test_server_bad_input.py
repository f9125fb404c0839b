"""Every bad input: its status, its sentence, nothing applied, and the server goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from raw import JOB, SECONDS, RawReplica, ServerProcess, chunks

from paramserver.events import TensorSpec
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import encode_job, encode_join
from paramserver.wire.transfer import CHUNK_BYTES_MAX, PULL, PUSH

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
BIAS, WEIGHT, SCALE = range(3)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture(scope="module")
def replica(server: ServerProcess) -> Iterator[RawReplica]:
    replica = RawReplica(server)
    replica.initialise()
    yield replica
    replica.close()


def refusal_of(call: Callable[[], Any]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


def assert_sentence(error: grpc.RpcError, status: grpc.StatusCode, words: tuple[str, ...]) -> None:
    details = error.details()
    assert error.code() is status, details
    for word in words:
        assert word in details
    assert details[0].isupper()
    assert details[-1] in ".?"
    assert "Traceback" not in details


def with_slice(replica: RawReplica, index: int, **fields: Any) -> pb.PushRequest:
    """Return a push whose header announces one slice wrongly."""
    message = pb.PushRequest(header=replica.push_header(), chunks=chunks(replica.constant(0, 1.0)))
    for name, value in fields.items():
        if name == "shape":
            message.header.slices[index].shape[:] = value
        else:
            setattr(message.header.slices[index], name, value)
    return message


SLICES = {
    "misspelt key": (
        WEIGHT,
        {"key": "dense/weigth"},
        NOT_FOUND,
        ("no tensor 'dense/weigth'", "Did you mean 'dense/weight'?"),
    ),
    "another key": (BIAS, {"key": "scale"}, INVALID, ("tensor 'dense/bias'", "tensor 'scale'")),
    "other rows": (WEIGHT, {"row_end": 3}, INVALID, ("rows 0 to 3", "rows 0 to 2", "'dense/weight'")),
    "transposed": (WEIGHT, {"shape": (3, 4)}, INVALID, ("(4, 3)", "(3, 4)", "'dense/weight'")),
    "broadcastable": (WEIGHT, {"shape": (1, 3)}, INVALID, ("(4, 3)", "(1, 3)", "broadcast")),
    "flat": (WEIGHT, {"shape": (12,)}, INVALID, ("(4, 3)", "(12,)")),
    "a number as a row": (SCALE, {"shape": (1,)}, INVALID, ("()", "(1,)", "'scale'")),
    "huge": (WEIGHT, {"shape": (1 << 40, 1 << 20)}, INVALID, ("(4, 3)", "1099511627776")),
    "float64": (WEIGHT, {"dtype": pb.DTYPE_FLOAT64}, INVALID, ("float32", "float64", "'dense/weight'")),
    "no dtype": (BIAS, {"dtype": pb.DTYPE_UNSPECIFIED}, INVALID, ("without a dtype", "'dense/bias'")),
    "unheard dtype": (BIAS, {"dtype": 99}, INVALID, ("float32", "99", "'dense/bias'")),
}


@pytest.mark.parametrize("name", SLICES)
def test_a_wrongly_announced_slice_is_refused(replica: RawReplica, name: str) -> None:
    index, fields, status, words = SLICES[name]
    before = replica.pull()
    error = refusal_of(lambda: replica.send([with_slice(replica, index, **fields)]))
    assert_sentence(error, status, words)
    assert replica.pull() == before


def chunked(replica: RawReplica, *parts: tuple[int, int, bytes]) -> list[pb.PushRequest]:
    header = pb.PushRequest(header=replica.push_header())
    return [header, *(pb.PushRequest(chunks=[pb.Chunk(slice=s, offset=o, data=d)]) for s, o, d in parts)]


BIAS_BYTES, WEIGHT_BYTES, SCALE_BYTES = bytes(12), bytes(48), bytes(4)
CHUNKS: dict[str, tuple[list[tuple[int, int, bytes]], grpc.StatusCode, tuple[str, ...]]] = {
    "no bytes": ([], INVALID, ("'dense/bias'", "expected 12 bytes", "found 0")),
    "truncated": (
        [(0, 0, BIAS_BYTES), (1, 0, WEIGHT_BYTES[:40])],
        INVALID,
        ("'dense/weight'", "expected 48 bytes", "found 40"),
    ),
    "surplus": (
        [(0, 0, BIAS_BYTES), (1, 0, WEIGHT_BYTES), (2, 0, SCALE_BYTES), (2, 4, SCALE_BYTES)],
        INVALID,
        ("after the last expected byte",),
    ),
    "a slice too long": ([(0, 0, bytes(16))], INVALID, ("'dense/bias'", "expected 12", "found 16")),
    "disordered": ([(1, 0, WEIGHT_BYTES)], INVALID, ("out of order", "slice 0", "found slice 1")),
    "a gap": ([(0, 4, bytes(8))], INVALID, ("out of order", "byte 0", "byte 4", "'dense/bias'")),
    "a repeated chunk": (
        [(0, 0, bytes(8)), (0, 0, bytes(8))],
        INVALID,
        ("byte 8", "found slice 0 at byte 0"),
    ),
    "a negative place": ([(-1, -4, bytes(8))], INVALID, ("slice -1 at byte -4",)),
    "half a number": ([(0, 0, bytes(6))], INVALID, ("6 bytes", "multiple of 4")),
    "an empty chunk": ([(0, 0, b"")], INVALID, ("0 bytes", "multiple of 4")),
    "a huge chunk": ([(0, 0, bytes(CHUNK_BYTES_MAX + 4))], EXHAUSTED, ("1,048,580", "1,048,576")),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_wrong_chunks_are_refused(replica: RawReplica, name: str) -> None:
    parts, status, words = CHUNKS[name]
    before = replica.pull()
    assert_sentence(refusal_of(lambda: replica.send(chunked(replica, *parts))), status, words)
    assert replica.pull() == before


FIELDS: dict[str, tuple[dict[str, Any], grpc.StatusCode, tuple[str, ...]]] = {
    "a missing slice": ({"slices": []}, INVALID, ("Expected 3 slices", "found 0", "'dense/bias'")),
    "an unknown replica": ({"replica": pb.Replica(rank=7, incarnation=1)}, NOT_FOUND, ("replica 7",)),
    "no replica": ({"replica": None}, INVALID, ("replica.incarnation",)),
    "a replica from the future": (
        {"replica": pb.Replica(rank=0, incarnation=9)},
        NOT_FOUND,
        ("incarnation 9",),
    ),
    "a negative version": ({"version": -1}, INVALID, ("version -1",)),
    "a version from the future": ({"version": 9}, OUT_OF_RANGE, ("version 9", "version 0")),
    "a generation from the future": ({"generation": 4}, OUT_OF_RANGE, ("generation 4",)),
    "a negative sequence": ({"sequence": -1}, INVALID, ("'sequence'", "-1")),
    "a sequence from the future": ({"sequence": 5}, PRECONDITION, ("sequence 5", "expects 0")),
    "no samples": ({"samples": 0}, INVALID, ("0 samples",)),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_header_is_refused(replica: RawReplica, name: str) -> None:
    fields, status, words = FIELDS[name]
    before = replica.pull()
    assert_sentence(refusal_of(lambda: replica.push(**fields)), status, words)
    assert replica.pull() == before


def test_a_push_to_an_unknown_shard_is_refused(replica: RawReplica) -> None:
    header = replica.push_header()
    header.shard = 5
    error = refusal_of(lambda: replica.send([pb.PushRequest(header=header)]))
    assert_sentence(error, NOT_FOUND, ("Shard 5", "shard 0"))


def test_a_push_without_header_is_refused(replica: RawReplica) -> None:
    error = refusal_of(lambda: replica.send([pb.PushRequest(chunks=chunks(replica.constant(0, 1.0)))]))
    assert_sentence(error, INVALID, ("PushRequest", "header"))
    assert_sentence(refusal_of(lambda: replica.send([])), INVALID, ("PushRequest", "header"))


def test_a_second_header_is_refused(replica: RawReplica) -> None:
    header = pb.PushRequest(header=replica.push_header())
    assert_sentence(refusal_of(lambda: replica.send([header, header])), INVALID, ("Only the first",))


def test_bytes_that_are_no_message_are_refused(server: ServerProcess) -> None:
    push = server.channel.stream_unary(PUSH)
    for raw in (b"\xff", b"\x12\xff\xff\xff\x01", bytes(range(256)), b"\x0a\x02\xff\xff"):
        error = refusal_of(lambda raw=raw: push(iter([raw]), timeout=SECONDS))
        assert_sentence(error, INVALID, ("is not a PushRequest",))
    pull = server.channel.unary_stream(PULL)
    error = refusal_of(lambda: list(pull(b"\xff\xff", timeout=SECONDS)))
    assert_sentence(error, INVALID, ("is not a PullRequest",))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_and_counts_as_no_samples(
    replica: RawReplica, value: float
) -> None:
    before = replica.pull()
    gradient = replica.constant(0, 1.0)
    list(gradient.values())[WEIGHT][2, 1] = value
    message = pb.PushRequest(header=replica.push_header(), chunks=chunks(gradient))
    error = refusal_of(lambda: replica.send([message]))
    assert_sentence(error, INVALID, ("'dense/weight'", "replica 0", f"{value}", "element 7"))
    repeated = refusal_of(lambda: replica.send([message]))
    assert_sentence(repeated, INVALID, ("'dense/weight'", "replica 0"))
    replica.clock += 1
    header, values = replica.pull()
    assert (header.version, values) == (before[0].version, before[1])


def test_a_gradient_too_large_for_the_sum_is_refused_and_its_round_goes_on() -> None:
    job = replace(JOB, consistency="sync", replicas=2, replicas_max=2)
    with ServerProcess() as server, ExitStack() as stack:
        replicas = [RawReplica(server, job, f"w/{number}") for number in range(2)]
        for replica in replicas:
            stack.callback(replica.close)
        replicas[0].initialise(1.0)
        for replica in replicas:
            replica.pull()
        error = refusal_of(lambda: replicas[0].push(value=1e38, samples=2))
        assert_sentence(error, INVALID, ("replica 0", "1e+38", "at most 8.5e+37"))
        assert replicas[1].push(value=8e37, samples=2).outcome == pb.OUTCOME_BUFFERED
        replicas[1].clock += 1
        header, values = replicas[1].pull()
        assert header.version == 1
        for raw in values.values():
            weights = np.frombuffer(raw, np.float32)
            np.testing.assert_allclose(weights, np.float32(-4e37), rtol=1e-6)


PULLS: dict[str, tuple[dict[str, Any], grpc.StatusCode, tuple[str, ...]]] = {
    "an unknown shard": ({"shard": 3}, NOT_FOUND, ("Shard 3", "shard 0")),
    "a negative shard": ({"shard": -1}, NOT_FOUND, ("Shard -1",)),
    "a negative clock": ({"clock": -2}, INVALID, ("'clock'", "-2")),
    "a clock from the future": ({"clock": 9}, PRECONDITION, ("clock 9",)),
    "an unknown replica": ({"replica": pb.Replica(rank=3, incarnation=1)}, NOT_FOUND, ("replica 3",)),
    "a round that is not kept": ({"replica": None, "round": 77}, OUT_OF_RANGE, ("round 77",)),
    "a negative round": ({"replica": None, "round": -1}, INVALID, ("'round'",)),
}


@pytest.mark.parametrize("name", PULLS)
def test_a_wrong_pull_is_refused(replica: RawReplica, name: str) -> None:
    fields, status, words = PULLS[name]
    request = replica.pull_request(**{**fields, "shard": fields.get("shard", 0)})
    error = refusal_of(lambda: list(replica.coordinator.Pull(request, timeout=SECONDS)))
    assert_sentence(error, status, words)


JOBS: dict[str, tuple[dict[str, Any], grpc.StatusCode, tuple[str, ...]]] = {
    "another job": ({"learning_rate": 0.25}, PRECONDITION, ("learning_rate", "0.5", "0.25")),
    "huge": ({"tensors": (TensorSpec("w", (1 << 24, 1 << 20)),)}, EXHAUSTED, ("70,368,744,177,664",)),
    "overflowing": ({"tensors": (TensorSpec("w", (1 << 62, 1 << 62)),)}, EXHAUSTED, ("bytes",)),
    "an empty tensor": ({"tensors": (TensorSpec("w", (0, 4)),)}, INVALID, ("'w'", "(0, 4)")),
    "float64": ({"tensors": (TensorSpec("w", (4,), "float64"),)}, INVALID, ("'w'", "float64", "float32")),
    "disordered": ({"tensors": (TensorSpec("b", (1,)), TensorSpec("a", (1,)))}, INVALID, ("'a'", "'b'")),
    "a repeated key": ({"tensors": (TensorSpec("b", (1,)), TensorSpec("b", (1,)))}, INVALID, ("'b'",)),
    "a NaN": ({"learning_rate": float("nan")}, INVALID, ("learning_rate", "nan")),
    "no replicas": ({"replicas": 0}, INVALID, ("replicas", "0")),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_wrong_job_is_refused(server: ServerProcess, replica: RawReplica, name: str) -> None:
    fields, status, words = JOBS[name]
    request = encode_join("w/1", "a", replace(JOB, **fields))
    assert_sentence(refusal_of(lambda: server.stub.Join(request, timeout=SECONDS)), status, words)


def test_another_protocol_and_missing_names_are_refused(server: ServerProcess) -> None:
    join = server.stub.Join
    request = pb.JoinRequest(protocol_version=2, name="w/9", attempt="a", job=encode_job(JOB))
    error = refusal_of(lambda: join(request, timeout=SECONDS))
    assert_sentence(error, PRECONDITION, ("version 1", "version 2", "'w/9'"))
    request = pb.JoinRequest(protocol_version=1, attempt="a", job=encode_job(JOB))
    assert_sentence(refusal_of(lambda: join(request, timeout=SECONDS)), INVALID, ("'name'",))


def test_wrong_heartbeats_scores_and_leaves_are_refused(server: ServerProcess, replica: RawReplica) -> None:
    beat = pb.Beat(replica=pb.Replica(rank=0, incarnation=1), clock=-1)
    error = refusal_of(lambda: server.stub.Heartbeat(pb.HeartbeatRequest(beats=[beat]), timeout=SECONDS))
    assert_sentence(error, INVALID, ("'beat.clock'", "-1"))
    score = pb.ScoreRequest(split="test", accuracy=1.5, samples=3)
    error = refusal_of(lambda: server.stub.Score(score, timeout=SECONDS))
    assert_sentence(error, INVALID, ("'accuracy'", "1.5"))
    leave = pb.LeaveRequest(replica=pb.Replica(rank=6, incarnation=1))
    assert_sentence(refusal_of(lambda: server.stub.Leave(leave, timeout=SECONDS)), NOT_FOUND, ("Replica 6",))


def test_after_all_of_it_a_right_push_is_applied(server: ServerProcess, replica: RawReplica) -> None:
    before = replica.pull()[0].version
    assert replica.push().outcome == pb.OUTCOME_APPLIED
    replica.clock += 1
    header, values = replica.pull()
    assert header.version == before + 1
    assert np.frombuffer(values["dense/bias"], "<f4").tolist() == [-0.5, -0.5, -0.5]
    assert "Traceback" not in server.log()


def test_everything_before_a_job_and_before_weights_is_the_wrong_moment() -> None:
    with ServerProcess() as server:
        observer = pb.PullRequest(shard=0)
        error = refusal_of(lambda: list(server.stub.Pull(observer, timeout=SECONDS)))
        assert_sentence(error, grpc.StatusCode.UNAVAILABLE, ("no weights yet",))
        push = pb.PushRequest(header=pb.PushHeader(replica=pb.Replica(rank=0, incarnation=1)))
        error = refusal_of(lambda: server.stub.Push(iter([push]), timeout=SECONDS))
        assert_sentence(error, PRECONDITION, ("no job here yet",))
        error = refusal_of(lambda: server.stub.Join(encode_join("observer", "a", None), timeout=SECONDS))
        assert_sentence(error, grpc.StatusCode.UNAVAILABLE, ("no job yet",))
        replica = RawReplica(server)
        assert_sentence(refusal_of(replica.push), PRECONDITION, ("no weights yet",))
        wrong = replica.initialise_messages(0)
        wrong[0].header.slices[WEIGHT].shape[:] = (3, 4)
        initialise = server.stub.Initialise
        error = refusal_of(lambda: initialise(iter(wrong), timeout=SECONDS))
        assert_sentence(error, INVALID, ("(4, 3)", "(3, 4)", "'dense/weight'"))
        wrong = replica.initialise_messages(0, value=np.inf)
        error = refusal_of(lambda: initialise(iter(wrong), timeout=SECONDS))
        assert_sentence(error, INVALID, ("the initialiser", "'dense/bias'"))
        assert replica.initialise() == [False]
        assert replica.push().outcome == pb.OUTCOME_APPLIED
        assert replica.initialise(initialiser="late") == [True]
        replica.close()
