"""What a right client meets: joins, waiting pulls, verdicts, repeated pushes, health, reflection, the end."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from raw import JOB, SECONDS, RawReplica, ServerProcess, two_servers, wait_serving

from paramserver.events import Counters, TensorSpec
from paramserver.storage.checkpoint import read_checkpoint
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import encode_join, encode_replica

SERVICE = "paramserver.v1.ParameterServer"
SYNC = replace(JOB, consistency="sync", replicas=2, replicas_max=2)


def refused(call: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    return call.code(), call.details()


def test_reflection_describes_the_contract_and_health_serves() -> None:
    with ServerProcess() as server:
        wait_serving(server)
        wait_serving(server, SERVICE)
        database = ProtoReflectionDescriptorDatabase(server.channel)
        assert SERVICE in database.get_services()
        service = DescriptorPool(database).FindServiceByName(SERVICE)
        assert {method.name for method in service.methods} == {
            method.name for method in pb.DESCRIPTOR.services_by_name["ParameterServer"].methods
        }


def test_a_coordinator_serves_once_every_server_is_linked() -> None:
    with ServerProcess("--servers", "2") as first:
        health = health_pb2_grpc.HealthStub(first.channel)
        reply = health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as raised:
            first.stub.Join(encode_join("w/0", "a", JOB), timeout=SECONDS)
        assert refused(raised.value) == (
            grpc.StatusCode.UNAVAILABLE,
            "1 of 2 servers are up; waiting for server 1.",
        )
        with ServerProcess("--servers", "2", "--server", "1", "--coordinator", first.address) as second:
            wait_serving(first)
            wait_serving(second)
            with pytest.raises(grpc.RpcError) as raised:
                second.stub.Join(encode_join("w/0", "a", JOB), timeout=SECONDS)
            assert refused(raised.value)[0] is grpc.StatusCode.FAILED_PRECONDITION
            assert first.address in raised.value.details()


def test_a_repeated_push_is_recognised_and_not_applied_again() -> None:
    with ServerProcess() as server, closing(RawReplica(server)) as replica:
        replica.initialise()
        first = replica.push()
        again = replica.push()
        assert (first.outcome, first.version, first.duplicate) == (pb.OUTCOME_APPLIED, 1, False)
        assert (again.outcome, again.version, again.duplicate) == (pb.OUTCOME_APPLIED, 1, True)
        status = server.stub.Status(pb.StatusRequest(), timeout=SECONDS)
        assert status.shards[0].version == 1
        assert dict(status.shards[0].pushes) == {"applied": 1, "duplicate": 1}
        assert status.shards[0].lock_hold_seconds > 0
        assert status.job.sealed


def test_a_replica_that_joins_again_is_the_next_incarnation_and_fences_the_old_one() -> None:
    with ServerProcess() as server, closing(RawReplica(server)) as old:
        old.initialise()
        old.push()
        request = encode_join("w/0", "second life", JOB)
        reply = server.stub.Join(request, timeout=SECONDS)
        assert (reply.replica.rank, reply.replica.incarnation, reply.clock) == (0, 2, 1)
        assert server.stub.Join(request, timeout=SECONDS).replica == reply.replica
        old.clock = 1
        verdict = old.push()
        assert (verdict.outcome, verdict.clock) == (pb.OUTCOME_FENCED, 1)
        fenced = [part.fenced for part in old.pull_stream() if part.HasField("fenced")]
        assert fenced[0].clock == 1
        assert old.pull(replica=encode_replica(replace(old.replica, incarnation=2)))[0].version == 1


def test_a_waiting_pull_says_for_whom_and_a_cancelled_one_is_forgotten() -> None:
    with ServerProcess() as server, ExitStack() as stack:
        fast, slow = (stack.enter_context(closing(RawReplica(server, SYNC, f"w/{i}"))) for i in range(2))
        fast.initialise()
        assert fast.push().outcome == pb.OUTCOME_BUFFERED
        fast.clock = 1
        stream = fast.pull_stream()
        waiting = next(stream).waiting
        assert [(laggard.rank, laggard.clock) for laggard in waiting.waits_for] == [(1, 0)]
        assert "round 0" in waiting.bound
        later = next(stream).waiting
        assert later.seconds > waiting.seconds
        stream.cancel()
        parked = [1]
        while parked:  # the cancel is on its way; each question is a round trip
            parked = list(server.stub.Status(pb.StatusRequest(), timeout=SECONDS).shards[0].parked)
        stream = fast.pull_stream()
        assert next(stream).HasField("waiting")
        slow.push(value=3.0, samples=3)
        header = next(reply.header for reply in stream if reply.HasField("header"))
        assert (header.version, header.rounds, header.verdict.outcome) == (1, 1, pb.OUTCOME_APPLIED)
        mean = np.frombuffer(fast.pull()[1]["dense/bias"], "<f4")
        assert mean.tolist() == [-0.5 * 2.5] * 3


def test_a_nan_in_a_round_is_refused_and_the_round_goes_on_without_it() -> None:
    with ServerProcess() as server, ExitStack() as stack:
        good, bad = (stack.enter_context(closing(RawReplica(server, SYNC, f"w/{i}"))) for i in range(2))
        good.initialise()
        good.push()
        with pytest.raises(grpc.RpcError) as raised:
            bad.push(value=np.nan)
        code, details = refused(raised.value)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "replica 1" in details
        assert "'dense/bias'" in details
        good.clock = bad.clock = 1
        assert good.pull()[0].verdict.outcome == pb.OUTCOME_APPLIED
        header, values = bad.pull()
        assert header.verdict.outcome == pb.OUTCOME_DROPPED
        assert "'dense/bias'" in header.verdict.reason
        assert np.frombuffer(values["dense/bias"], "<f4").tolist() == [-0.5] * 3


def test_a_hundred_waiting_replicas_on_one_server_finish() -> None:
    job = replace(JOB, consistency="sync", replicas=100, replicas_max=100, tensors=(TensorSpec("w", (4,)),))
    with ServerProcess("--shards", "2") as server, ExitStack() as stack:
        replicas = [stack.enter_context(closing(RawReplica(server, job, f"w/{i}"))) for i in range(100)]
        replicas[0].initialise()

        def train(replica: RawReplica) -> int:
            for _ in range(3):
                versions = [replica.pull(shard)[0].version for shard in replica.shards]
                for shard in replica.shards:
                    replica.push(shard, version=versions[shard])
                replica.clock += 1
            version = replica.pull()[0].version
            replica.leave()
            return version

        with ThreadPoolExecutor(100) as pool:
            futures = [pool.submit(train, replica) for replica in replicas]
            done, late = wait(futures, SECONDS)
            assert not late
            assert {future.result() for future in done} == {3}
        assert server.wait() == 0


@pytest.mark.parametrize("shards", [1, 3])
def test_two_servers_share_a_job_and_keep_its_checkpoint(tmp_path: Path, shards: int) -> None:
    out = tmp_path / "run"
    with two_servers(shards, out) as (first, second), ExitStack() as stack:
        pair = [stack.enter_context(closing(RawReplica(first, SYNC, f"w/{i}"))) for i in range(2)]
        servers = first.stub.Status(pb.StatusRequest(), timeout=SECONDS).job.servers
        assert [server.address for server in servers] == [first.address, second.address]
        pair[0].initialise(value=2.0)
        for replica in pair:
            for shard in replica.shards:
                replica.push(shard, value=float(replica.replica.rank))
        for replica in pair:
            replica.clock = 1
            assert {replica.pull(shard)[0].version for shard in replica.shards} == {1}
            counts = {"computed": 1, "applied": 1}
            replica.leave(Counters(counts, counts, seconds={"compute": 1.0}))
        assert first.wait() == 0
        assert second.wait() == 0
    checkpoint = read_checkpoint(out / "checkpoint")
    assert {key: float(value.min()) for key, value in checkpoint.weights.items()} == {
        "dense/bias": 1.75,
        "dense/weight": 1.75,
        "scale": 1.75,
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary["outcome"] == "finished"
    assert summary["versions"] == [1] * 2 * shards
    assert summary["gradients"]["applied"] == 2
    assert summary["weights_sha256"] == checkpoint.manifest.weights_sha256
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["samples"]["applied"] == 2


def test_an_observer_who_only_looks_holds_up_nobody() -> None:
    with ServerProcess("--score-grace-seconds", "3600") as server, closing(RawReplica(server)) as replica:
        replica.initialise()
        server.stub.Join(encode_join("looker", "a", None), timeout=SECONDS)
        replica.leave()
        assert server.wait() == 0


def test_an_observer_scores_the_final_weights_before_the_server_ends(tmp_path: Path) -> None:
    with ServerProcess("--out", str(tmp_path)) as server, closing(RawReplica(server)) as replica:
        replica.initialise()
        replica.push()
        joined = server.stub.Join(encode_join("observer", "a", None, scores=True), timeout=SECONDS)
        assert not joined.HasField("replica")
        replica.leave()
        with pytest.raises(grpc.RpcError) as raised:
            replica.push()
        assert refused(raised.value)[0] is grpc.StatusCode.ABORTED
        header = next(iter(server.stub.Pull(pb.PullRequest(shard=0), timeout=SECONDS))).header
        assert header.version == 1
        score = pb.ScoreRequest(split="test", version=1, rounds=-1, loss=0.5, accuracy=0.75, samples=8)
        server.stub.Score(score, timeout=SECONDS)
        assert server.wait() == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["accuracy"], summary["loss"]) == (0.75, 0.5)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["accuracy"] for line in lines if line["kind"] == "score"] == [0.75]


def test_a_failed_job_tells_everyone_why_and_ends_with_1(tmp_path: Path) -> None:
    with ServerProcess("--out", str(tmp_path)) as server, ExitStack() as stack:
        waiting, failing = (
            stack.enter_context(closing(RawReplica(server, SYNC, f"w/{i}"))) for i in range(2)
        )
        waiting.initialise()
        waiting.push()
        waiting.clock = 1
        stream = waiting.pull_stream()
        assert next(stream).HasField("waiting")
        failing.leave(failure="The data set has gone.")
        with pytest.raises(grpc.RpcError) as raised:
            list(stream)
        code, details = refused(raised.value)
        assert code is grpc.StatusCode.ABORTED
        assert "The data set has gone." in details
        beat = pb.HeartbeatRequest(beats=[pb.Beat(replica=encode_replica(waiting.replica), clock=1)])
        reply = server.stub.Heartbeat(beat, timeout=SECONDS)
        assert reply.ended
        assert "The data set has gone." in reply.reason
        assert server.wait() == 1
        assert "The data set has gone." in server.log()
    assert json.loads((tmp_path / "summary.json").read_text())["outcome"] == "failed"
    assert set(read_checkpoint(tmp_path / "checkpoint").weights) == {"dense/bias", "dense/weight", "scale"}
