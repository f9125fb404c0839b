"""Every event comes back from its message as it went in."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import grpc
import pytest

from paramserver import events as ev
from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.wire import jobs, orders, replicas, status
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.refusals import LATER, error_of, is_later, status_of

JOB = ev.JobSpec(
    tensors=(ev.TensorSpec("a", ()), ev.TensorSpec("b", (3, 2), table=True)),
    model="mlp:3",
    consistency="ssp:4",
    optimizer="adam",
    learning_rate=0.25,
    schedule="cosine",
    versions_total=7,
    seed=11,
    replicas=2,
    replicas_max=5,
    on_death="drop",
    lease_seconds=1.5,
    step_timeout_seconds=2.5,
    restart_timeout_seconds=3.5,
    restarts_max=6,
    start_timeout_seconds=4.5,
    target_accuracy=0.5,
    checkpoint_updates=8,
    checkpoint_seconds=9.5,
    durability="journal",
    samples=30,
    batch=4,
    epochs=12,
    shares=(10, 20),
)
SLICES = (ev.Slice("a", 0, 1, 0), ev.Slice("b", 1, 3, 1))
REPLICA = ev.Replica(3, 2)
COUNTERS = ev.Counters(
    gradients=dict(zip(replicas._GRADIENTS, range(1, 9), strict=True)),
    samples=dict(zip(replicas._SAMPLES, range(11, 17 + 1), strict=True)),
    staleness={0: 3, 2: 1},
    clock_gap={-1: 2, 4: 5},
    seconds={"compute": 1.25, "wait": 0.5},
    loss=0.75,
    latest_staleness=2,
)
SCORE = ev.Score("test", 9, -1, 0.5, 0.875, 40, 0.75)


def test_a_job_comes_back_whole() -> None:
    defaults = ev.JobSpec(())
    for field in fields(ev.JobSpec):  # a field left out of the codec would come back as its default
        assert getattr(JOB, field.name) != getattr(defaults, field.name), field.name
    assert jobs.decode_job(pb.JobSpec.FromString(jobs.encode_job(JOB).SerializeToString())) == JOB


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"replicas_max": 1}, "replicas_max"),
        ({"versions_total": 0}, "versions_total"),
        ({"seed": -1}, "seed"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"lease_seconds": math.inf}, "lease_seconds"),
        ({"step_timeout_seconds": -1.0}, "step_timeout_seconds"),
        ({"restarts_max": -1}, "restarts_max"),
        ({"tensors": (ev.TensorSpec("", (1,)),)}, "key"),
        ({"tensors": (ev.TensorSpec("a", (), table=True),)}, r"'a' is a single number .* no table"),
    ],
)
def test_a_job_out_of_range_is_refused_by_name(changed: dict[str, Any], word: str) -> None:
    with pytest.raises(RequestError, match=word):
        jobs.decode_job(jobs.encode_job(replace(JOB, **changed)))


def test_a_job_above_the_limit_is_refused() -> None:
    with pytest.raises(RequestError, match=r"28 bytes.*at most 27") as raised:
        jobs.decode_job(jobs.encode_job(JOB), bytes_max=27)
    assert raised.value.fault is Fault.EXHAUSTED
    assert jobs.decode_job(jobs.encode_job(JOB), bytes_max=28) == JOB


def test_a_tensor_of_an_unheard_dtype_cannot_travel() -> None:
    with pytest.raises(RequestError, match="complex128"):
        jobs.encode_job(replace(JOB, tensors=(ev.TensorSpec("a", (1,), "complex128"),)))


@pytest.mark.parametrize(("job", "scores"), [(JOB, False), (None, False), (None, True)])
def test_a_join_comes_back(job: ev.JobSpec | None, scores: bool) -> None:
    message = jobs.encode_join("w/1", "abc", job, scores, 3, True)
    assert jobs.decode_join(message, 5) == ev.JoinReceived(5, "w/1", "abc", job, scores, 3, True)


@pytest.mark.parametrize("replica", [REPLICA, None])
def test_a_granted_join_comes_back(replica: ev.Replica | None) -> None:
    granted = ev.JoinGranted(4, replica, 2, 6, JOB, SLICES, ("h:1", "h:2"), True)
    message = jobs.encode_granted(granted, 0.5)
    assert jobs.decode_granted(message, 4) == granted
    assert (message.heartbeat_seconds, message.fingerprint) == (0.5, JOB.fingerprint())


VERDICTS = [
    ev.Verdict(ev.Outcome.APPLIED, 4, 3, 2),
    ev.Verdict(ev.Outcome.BUFFERED, 4, 0, 7, contributed=1, expected=2),
    ev.Verdict(ev.Outcome.DROPPED, reason="Why.", duplicate=True),
    ev.Verdict(ev.Outcome.FENCED, reason="Why.", generation=3, clock=8),
]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_comes_back(verdict: ev.Verdict) -> None:
    assert replicas.decode_verdict(replicas.encode_verdict(verdict)) == verdict


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(RequestError, match="outcome 0"):
        replicas.decode_verdict(pb.Verdict())


def test_counters_come_back_and_none_may_be_negative() -> None:
    assert replicas.decode_counters(replicas.encode_counters(COUNTERS)) == COUNTERS
    assert math.isnan(replicas.decode_counters(replicas.encode_counters(ev.Counters())).loss)
    for staleness in (None, 0):
        counters = replace(COUNTERS, latest_staleness=staleness)
        assert replicas.decode_counters(replicas.encode_counters(counters)) == counters
    with pytest.raises(RequestError, match="samples_lost"):
        replicas.decode_counters(pb.Counters(samples_lost=-1))
    with pytest.raises(RequestError, match="seconds"):
        replicas.decode_counters(pb.Counters(seconds={"wait": math.nan}))


@pytest.mark.parametrize("phase", list(ev.Phase))
def test_a_heartbeat_comes_back(phase: ev.Phase) -> None:
    beats = (ev.Beat(REPLICA, 4, 9, phase, COUNTERS), ev.Beat(ev.Replica(0, 1), 0, 0, phase, COUNTERS))
    assert replicas.decode_heartbeat(replicas.encode_heartbeat(beats), 3) == ev.HeartbeatReceived(3, beats)


def test_answers_leaves_and_scores_come_back() -> None:
    answer = ev.HeartbeatAnswered(3, 2, (REPLICA,), True, "Why.")
    assert replicas.decode_heartbeat_answer(replicas.encode_heartbeat_answer(answer), 3) == answer
    leave = ev.LeaveReceived(3, REPLICA, COUNTERS, "Why.", 2)
    assert replicas.decode_leave(replicas.encode_leave(REPLICA, COUNTERS, "Why.", 2), 3) == leave
    assert replicas.decode_score(replicas.encode_score(SCORE)) == SCORE
    diverged = replicas.decode_score(replicas.encode_score(replace(SCORE, loss=math.nan)))
    assert math.isnan(diverged.loss)


REPORTS: list[ev.Report] = [
    ev.OrderHandled(3, 4, {0: 5, 1: 6}),
    ev.Staged(3, "someone"),
    ev.Contributed(3, 4, 5, 6, "Why."),
]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_comes_back(report: ev.Report) -> None:
    assert orders.decode_report(orders.encode_report(report)) == report


ORDERS: list[ev.Order] = [
    ev.JobAnnounced(1, JOB, SLICES),
    ev.MembershipChanged(2, (ev.Member(0, 1, True, False), ev.Member(1, 3, False, True)), True, 2),
    ev.Sealed(3, "someone"),
    ev.RoundClosed(4, 7, (0, 2)),
    ev.RoundClosed(4, 7, ()),
    ev.CutOrdered(5, 0),
    ev.GenerationBegun(6, 1, JOB, SLICES, (ev.Member(1, 3, False, True),), True, 2, 8),
    ev.GenerationBegun(6, 1, JOB, SLICES, (), False, 2, None),
    ev.JobEnded(5, "Why."),
    ev.JobEnded(5),
]


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_comes_back(order: ev.Order) -> None:
    message = orders.encode_order(order, 6)
    assert message.shard == 6
    assert orders.decode_order(pb.LinkDown.FromString(message.SerializeToString())) == order


def test_what_is_no_report_or_order_is_said_to_be_none() -> None:
    assert orders.decode_report(pb.LinkUp(hello=pb.Hello())) is None
    with pytest.raises(RequestError, match="Order 8"):
        orders.decode_order(pb.LinkDown(number=8))


@pytest.mark.parametrize("job", [JOB, None])
def test_a_status_comes_back(job: ev.JobSpec | None) -> None:
    members = tuple(
        ev.MemberStatus(REPLICA, "w/1", standing, 3, 9, ev.Phase.WAIT, 0.5, COUNTERS)
        for standing in ev.Standing
    )
    servers = (ev.ServerRegistered(0, "h:1", 2), ev.ServerRegistered(1, "h:2", 2))
    before = ev.JobStatus(job, 1, servers, 3, True, True, True, "Why.", 8, members, (SCORE,), (), "Oh.")
    assert status.decode_job_status(status.encode_job_status(before)) == before


def test_a_shards_standing_comes_back_with_ages_for_times() -> None:
    parked = ev.PullParked(0, ((1, 4), (2, 5)), "bound", since=7.0, others=3)
    statistics = ev.ShardStatistics(2, 3, 4, 5, ((6, parked),), {"applied": 2}, {0: 1, 3: 1})
    before = status.ShardStanding(statistics, 0.25, 0.5)
    (after,) = status.decode_shards(status.encode_shards([before], now=9.5))
    aged = replace(statistics, parked=((6, replace(parked, since=-2.5)),))
    assert after == replace(before, statistics=aged)


def test_a_servers_answer_comes_back_with_or_without_a_job() -> None:
    server = status.ServerStanding((), received_bytes=7, sent_bytes=8, cpu_seconds=0.5)
    job = ev.JobStatus(None, 0, (), 1, False, False, False, "", 0, (), ())
    for given in (job, None):
        assert status.decode_status(status.encode_status(given, server, now=0.0)) == (given, server)


@pytest.mark.parametrize("fault", list(Fault))
def test_a_refusal_keeps_its_fault_and_sentence(fault: Fault) -> None:
    error = error_of(status_of(RequestError("Why.", fault)), "Why.", "h:1")
    assert isinstance(error, RequestError)
    assert (error.fault, str(error)) == (fault, "Why.")


@pytest.mark.parametrize("failure", list(Failure))
def test_a_failure_keeps_its_kind(failure: Failure) -> None:
    later = is_later(LATER) and failure is Failure.BUSY
    error = error_of(status_of(JobError("Why.", failure)), "Why.", "h:1", later=later)
    assert isinstance(error, JobError)
    assert error.failure is failure
    assert str(error) == "Why." or failure is Failure.DEADLINE


def test_what_grpc_itself_says_becomes_a_sentence_with_the_address() -> None:
    said = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"
    error = error_of(grpc.StatusCode.UNAVAILABLE, said, "127.0.0.1:1")
    assert isinstance(error, JobError)
    assert error.failure is Failure.UNAVAILABLE
    assert str(error).startswith("The server at 127.0.0.1:1 does not answer")
    for code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL):
        error = error_of(code, "x", "127.0.0.1:1")
        assert isinstance(error, JobError)
        assert "127.0.0.1:1" in str(error)
