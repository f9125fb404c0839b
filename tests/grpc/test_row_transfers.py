"""Rows of tables over real channels: few bytes, the same weights, and every wrong row named."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from proxy import Proxy
from raw import RawReplica, ServerProcess, chunks
from test_client_faults import free_address
from test_worker_pool import Running, finished, in_one_loop

from paramserver.client import Connection, ObserverClient, ReplicaClient
from paramserver.datasets.flights import load_flights
from paramserver.errors import RequestError
from paramserver.events import JobSpec, Outcome, TensorSpec
from paramserver.job import Job
from paramserver.models import build_model
from paramserver.rows import RowGradient, RowIndices, RowValues
from paramserver.types import tensors_sha256
from paramserver.wire import paramserver_pb2 as pb
from paramserver.workload import load_workload
from worker.program import task_of

ROWS = 1 << 18
BATCH, FIELDS = 256, 4
TABLE_BYTES = ROWS * 4
CLICKS = JobSpec(
    tensors=(TensorSpec("bias", (1,)), TensorSpec("table", (ROWS, 1), table=True)),
    consistency="async",
    learning_rate=0.5,
)
SMALL = replace(CLICKS, tensors=(TensorSpec("bias", (1,)), TensorSpec("table", (6, 2), table=True)))


def rows_of_batch(source: str) -> RowIndices:
    """Return the rows that a batch touches: of real flights, or the worst case, in which no two are alike."""
    if source == "flights":
        try:
            inputs = load_flights().train.inputs[:BATCH]
        except RequestError as error:
            pytest.skip(str(error))
        return build_model("logistic", FIELDS, 2, ROWS).rows(inputs)["linear/weight"]
    return np.sort(np.random.default_rng(0).choice(ROWS, BATCH * FIELDS, replace=False))


@pytest.mark.parametrize("source", ["flights", "no two alike"])
def test_a_batch_carries_less_than_a_hundredth_of_its_table(source: str) -> None:
    rows = rows_of_batch(source)
    address = free_address()
    with (
        Proxy() as proxy,
        ServerProcess("--shards", "2", "--listen", address, "--advertise", proxy.address),
    ):
        proxy.lead_to(address)
        with Connection(proxy.address) as connection:
            replica = connection.join("me", CLICKS)
            first = {"bias": np.zeros(1, np.float32), "table": np.zeros((ROWS, 1), np.float32)}
            replica.initialise(first)
            pulled = replica.pull(0, rows={"table": rows})
            assert pulled.values["table"].rows.shape == (len(rows), 1)
            values = np.ones((len(rows), 1), np.float32)
            gradient = {"bias": np.ones(1, np.float32), "table": RowGradient(rows, values, (ROWS, 1))}
            assert replica.push(0, gradient, BATCH).outcome is Outcome.APPLIED
            assert (proxy.calls["Pull"], proxy.calls["Push"]) == (2, 2)
            pushed, asked = proxy.sent["Push"], proxy.sent["Pull"]
            print(f"pull {asked} and {proxy.answered['Pull']} bytes, push {pushed}, table {TABLE_BYTES}")
            assert len(rows) * 8 < pushed < 0.01 * TABLE_BYTES
            assert asked + proxy.answered["Pull"] < 0.01 * TABLE_BYTES
            after = replica.pull(1).values["table"]
            assert after[rows].tolist() == [[-0.5]] * len(rows)
            assert np.count_nonzero(after) == len(rows)


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--shards", "3", "--score-grace-seconds", "30") as process:
        yield process


@pytest.mark.parametrize("model", ["logistic", "embedding:200,4,8:dropout=0.3"])
def test_a_synchronous_job_ends_with_the_bytes_of_one_loop(server: ServerProcess, model: str) -> None:
    data = "synthetic:clicks,n=700,fields=3,values=60"
    job = Job(data=data, model=model, batch=16, epochs=2, optimizer="adam", lr=0.05).resolved()
    workload = load_workload(job)
    spec, task = workload.spec, task_of(workload)
    assert [tensor.table for tensor in spec.tensors].count(True) == 1
    with Connection(server.address) as one, Connection(server.address) as two:
        running = [Running(one, spec, task, 0), Running(two, spec, task, 1)]
        observer: ObserverClient = one.observe("eye", scores=True)
        assert [each.wait() for each in running] == [None, None]
        finished(two)
        final = observer.pull()
    assert tensors_sha256(final.values) == tensors_sha256(in_one_loop(job, spec, task, workload.steps))


def test_what_is_dropped_is_a_matter_of_seed_rank_and_step() -> None:
    job = Job(data="synthetic:spirals,n=200", model="mlp:32:dropout=0.5", batch=16, epochs=2).resolved()
    samples = load_workload(job).step(0).batch_at(0)

    def loss_of(seed: int, rank: int, clock: int) -> float:
        """Return the loss of the same samples under the same weights: only what is dropped differs."""
        workload = load_workload(replace(job, seed=seed))
        weights = workload.model.initial(0)
        return workload.step(rank).gradient(weights, samples._replace(clock=clock))[0]

    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    losses = {place: loss_of(*place) for place in places}
    assert len(set(losses.values())) == len(places)
    assert losses == {place: loss_of(*place) for place in places}


def table_replica(server: ServerProcess, name: str = "w/0") -> RawReplica:
    replica = RawReplica(server, SMALL, name)
    replica.initialise()
    return replica


def table_part(replica: RawReplica) -> tuple[int, Any]:
    """Return a shard that owns rows of the table, and which."""
    for shard in replica.shards:
        for part in replica.slices[shard]:
            if part.key == "table" and part.row_end - part.row_begin >= 2:
                return shard, part
    raise AssertionError("no shard has two rows of the table")


def push_of_rows(replica: RawReplica, numbers: tuple[int, ...], **fields: Any) -> pb.PushRequest:
    """Return a push of single rows of one shard's slice of the table, with the header's fields changed."""
    shard, part = table_part(replica)
    values = replica.constant(shard, 1.0)
    values[part] = np.ones((len(numbers), 2), np.float32)
    message = pb.PushRequest(header=replica.push_header(shard), chunks=chunks(values))
    header = message.header.slices[replica.slices[shard].index(part)]
    header.rows = struct.pack(f"<{len(numbers)}I", *numbers)
    header.shape[:] = (len(numbers), 2)
    for name, value in fields.items():
        if name == "shape":
            header.shape[:] = value
        else:
            setattr(header, name, value)
    return message


@pytest.mark.parametrize(
    ("numbers", "fields", "words"),
    [
        ((0, 7), {}, ("tensor 'table'", "from 0 to", "found 7")),
        ((1, 0), {}, ("tensor 'table'", "ascending", "0 after 1")),
        ((1, 1), {}, ("tensor 'table'", "each once", "1 after 1")),
        ((1,), {"rows": b"\1\0"}, ("tensor 'table'", "2 bytes", "multiple of 4")),
        ((0, 1), {"shape": (1, 2)}, ("tensor 'table'", "(2, 2)", "2 of which are named", "(1, 2)")),
        ((0,), {"shape": (1, 3)}, ("tensor 'table'", "(1, 2)", "(1, 3)")),
    ],
)
def test_wrong_rows_of_a_push_are_refused_and_nothing_has_changed(
    server: ServerProcess, numbers: tuple[int, ...], fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    replica = table_replica(server)
    shard, _ = table_part(replica)
    before = replica.pull(shard)
    with pytest.raises(grpc.RpcError) as refused:
        replica.send([push_of_rows(replica, numbers, **fields)], shard)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for word in words:
        assert word in refused.value.details()
    assert replica.pull(shard) == before
    assert replica.send([push_of_rows(replica, (1,))], shard).outcome == pb.OUTCOME_APPLIED
    replica.close()


def test_chunks_are_as_long_as_the_rows_that_are_named(server: ServerProcess) -> None:
    replica = table_replica(server)
    shard, _ = table_part(replica)
    for change, words in ((-4, "were cut off"), (4, "too many bytes")):
        message = push_of_rows(replica, (1,))
        data = message.chunks[-1].data
        message.chunks[-1].data = data[:change] if change < 0 else data + bytes(change)
        with pytest.raises(grpc.RpcError) as refused:
            replica.send([message], shard)
        assert words in refused.value.details()
        assert "'table'" in refused.value.details()
    replica.close()


def test_rows_that_are_not_finite_are_dropped_by_name(server: ServerProcess) -> None:
    replica = table_replica(server)
    shard, _ = table_part(replica)
    before = replica.pull(shard)[1]
    message = push_of_rows(replica, (1,))
    message.chunks[-1].data = struct.pack("<2f", 1, float("nan"))
    with pytest.raises(grpc.RpcError) as refused:
        replica.send([message], shard)
    assert "'table' from replica 0 holds nan" in refused.value.details()
    replica.clock = 1
    assert replica.pull(shard)[1] == before
    replica.close()


def test_wrong_rows_of_a_pull_are_refused_and_right_ones_come(server: ServerProcess) -> None:
    replica = table_replica(server)
    shard, part = table_part(replica)
    replica.send([push_of_rows(replica, (1,))], shard)
    replica.clock = 1

    def rows(data: bytes, key: str = "table", begin: int = part.row_begin) -> list[pb.SliceRows]:
        return [pb.SliceRows(key=key, row_begin=begin, row_end=part.row_end, rows=data)]

    for wanted, code, words in (
        (rows(struct.pack("<I", 9)), grpc.StatusCode.INVALID_ARGUMENT, "found 9"),
        (rows(b"\0"), grpc.StatusCode.INVALID_ARGUMENT, "multiple of 4"),
        (rows(b"", key="bias"), grpc.StatusCode.NOT_FOUND, "tensor 'bias'"),
        (rows(b"", begin=part.row_begin + 1), grpc.StatusCode.NOT_FOUND, "this shard owns"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            replica.pull(shard, rows=wanted)
        assert refused.value.code() is code
        assert words in refused.value.details()
    header, data = replica.pull(shard, rows=rows(struct.pack("<I", 1)))
    assert [list(each.shape) for each in header.slices if each.key == "table"] == [[1, 2]]
    assert struct.unpack("<2f", data["table"]) == (-0.5, -0.5)
    replica.close()


def test_a_pull_of_rows_is_repeated_like_any_other(server: ServerProcess) -> None:
    with Connection(server.address) as connection:
        replica: ReplicaClient = connection.join("me", SMALL)
        replica.initialise({"bias": np.zeros(1, np.float32), "table": np.ones((6, 2), np.float32)})
        for _ in range(2):
            found = replica.pull(0, rows={"table": np.array([0, 5])}).values["table"]
            assert isinstance(found, RowValues)
            assert found.rows.tolist() == [[1, 1], [1, 1]]
        none = replica.pull(0, rows={"table": np.empty(0, np.int64)}).values
        assert none["table"].rows.shape == (0, 2)
        assert none["bias"].shape == (1,)
