"""The client on a network that loses answers: what is repeated counts once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import numpy as np
import pytest
from proxy import CUT_STREAM, LOSE_ANSWER, Proxy
from raw import JOB, ServerProcess

from paramserver.client import Connection, ReplicaClient
from paramserver.errors import Failure, JobError
from paramserver.events import JobSpec, Outcome, TensorSpec
from paramserver.types import Tensors
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.transfer import PULL

BIG = replace(JOB, tensors=(TensorSpec("table", (800, 1000)),))


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    address = free_address()
    options = ["--shards", "2", "--listen", address]
    with Proxy() as proxy, ServerProcess(*options, "--advertise", proxy.address):
        proxy.lead_to(address)
        yield proxy


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[Connection]:
    with Connection(proxy.address) as connection:
        yield connection


def constant(replica: ReplicaClient, value: float) -> Tensors:
    return {key: np.full(shape, value, np.float32) for key, shape in replica.session.shapes.items()}


@pytest.mark.parametrize("job", [JOB, BIG], ids=["one message", "many messages"])
def test_a_push_whose_answer_is_lost_is_repeated_and_applied_once(
    proxy: Proxy, connection: Connection, job: JobSpec
) -> None:
    replica = connection.join("w/0", job)
    replica.initialise(constant(replica, 1.0))
    replica.pull(0)
    proxy.faults["Push"].append(LOSE_ANSWER)
    verdict = replica.push(0, constant(replica, 1.0), samples=1)
    assert (verdict.outcome, verdict.version, verdict.duplicate) == (Outcome.APPLIED, 1, True)
    assert proxy.calls["Push"] == 3, "two shards, and one of them again"
    pulled = replica.pull(1)
    assert pulled.versions == (1, 1)
    assert all((value == 0.5).all() for value in pulled.values.values())


def test_an_initialise_whose_answer_is_lost_is_repeated(proxy: Proxy, connection: Connection) -> None:
    replica = connection.join("w/0", JOB)
    proxy.faults["Initialise"].append(LOSE_ANSWER)
    replica.initialise(constant(replica, 1.0))
    assert (replica.pull(0).values["scale"] == 1.0).all()


def test_a_join_whose_answer_is_lost_costs_no_incarnation(proxy: Proxy, connection: Connection) -> None:
    proxy.faults["Join"].append(LOSE_ANSWER)
    replica = connection.join("w/0", JOB)
    assert proxy.calls["Join"] == 2
    assert (replica.rank, replica.replica.incarnation) == (0, 1)


@pytest.mark.parametrize("fault", [LOSE_ANSWER, CUT_STREAM])
def test_a_pull_that_breaks_begins_again(proxy: Proxy, connection: Connection, fault: str) -> None:
    replica = connection.join("w/0", BIG)
    rng = np.random.Generator(np.random.PCG64(2))
    first = {"table": rng.standard_normal((800, 1000), np.float32)}
    replica.initialise(first)
    replica.pull(0)
    proxy.faults["Pull"].append(fault)
    assert replica.pull(0).values["table"].tobytes() == first["table"].tobytes()
    assert proxy.calls["Pull"] > 4


def test_a_leave_whose_answer_is_lost_is_repeated(proxy: Proxy, connection: Connection) -> None:
    job = replace(JOB, replicas=2, replicas_max=2)
    replica = connection.join("w/0", job)
    connection.join("w/1", job)
    proxy.faults["Leave"].append(LOSE_ANSWER)
    replica.leave()
    assert proxy.calls["Leave"] == 2
    status = connection.status().job
    assert status is not None
    assert [member.standing.value for member in status.members] == ["left", "live"]


def test_repetitions_come_to_an_end(
    proxy: Proxy, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paramserver.client.channels.PAUSES_SECONDS", (0.0, 0.01))
    replica = connection.join("w/0", JOB)
    replica.initialise(constant(replica, 1.0))
    replica.pull(0)
    proxy.faults["Push"].extend([LOSE_ANSWER] * 100)
    with pytest.raises(JobError, match="does not answer") as failed:
        replica.push(0, constant(replica, 1.0), samples=1)
    assert failed.value.failure is Failure.UNAVAILABLE
    assert proxy.calls["Push"] == 2 * (1 + 2), "two shards, each once and twice again"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ([], "ended without a header"),
        ([pb.PullReply(chunks=[pb.Chunk(data=b"1234")])], "before their header"),
        ([pb.PullReply(header=pb.PullHeader(slices=[pb.SliceHeader(key="nix")]))], "no tensor 'nix'"),
        ([b"\xff\xff"], "not a PullReply"),
    ],
)
def test_a_server_that_answers_nonsense_is_named(answer: list[object], sentence: str) -> None:
    messages = [each if isinstance(each, bytes) else each.SerializeToString() for each in answer]  # type: ignore[attr-defined]
    name, _, method = PULL.strip("/").rpartition("/")
    handler = grpc.unary_stream_rpc_method_handler(lambda request, context: iter(messages))
    nonsense = grpc.server(
        ThreadPoolExecutor(2), handlers=[grpc.method_handlers_generic_handler(name, {method: handler})]
    )
    address = f"127.0.0.1:{nonsense.add_insecure_port('127.0.0.1:0')}"
    nonsense.start()
    try:
        coordinator = free_address()
        with (
            ServerProcess("--listen", coordinator, "--advertise", address),
            Connection(coordinator) as connection,
        ):
            replica = connection.join("w/0", JOB)
            with pytest.raises(JobError, match=sentence) as failed:
                replica.pull(0)
            assert address in str(failed.value)
    finally:
        nonsense.stop(None).wait()


def free_address() -> str:
    """Return an address that nobody uses: a server that advertises another one does not say its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"
