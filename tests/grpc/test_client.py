"""The client against a real server: one exchange over all shards, whatever its size and mode."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from raw import JOB, SECONDS, ServerProcess

from paramserver.client import Connection, FencedError, Heartbeats, ReplicaClient
from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import Counters, HeartbeatAnswered, Outcome, Phase, PullParked, Score, TensorSpec
from paramserver.types import Tensors

SYNC = replace(JOB, consistency="sync", replicas=2, replicas_max=2)


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--shards", "2") as process:
        yield process


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[Connection]:
    with Connection(server.address) as connection:
        yield connection


def constant(replica: ReplicaClient, value: float) -> Tensors:
    return {key: np.full(shape, value, np.float32) for key, shape in replica.session.shapes.items()}


def test_a_push_reaches_all_shards_and_the_next_pull_shows_it(connection: Connection) -> None:
    replica = connection.join("w/0", JOB)
    assert (replica.rank, replica.clock, replica.sealed) == (0, 0, False)
    assert replica.initialise(constant(replica, 1.0))
    before = replica.pull(0)
    verdict = replica.push(0, constant(replica, 0.5), samples=8)
    after = replica.pull(1)
    assert (verdict.outcome, verdict.version, verdict.staleness) == (Outcome.APPLIED, 1, 0)
    assert (before.versions, after.versions) == ((0, 0), (1, 1))
    for key, shape in replica.session.shapes.items():
        assert after.values[key].shape == shape
        assert (before.values[key] == 1.0).all()
        assert (after.values[key] == 0.75).all(), "1 - learning rate 0.5 x gradient 0.5"


def test_tensors_of_many_messages_arrive_whole(connection: Connection) -> None:
    job = replace(JOB, tensors=(TensorSpec("table", (1100, 1000)), TensorSpec("top", (7,))))
    replica = connection.join("w/0", job)
    rng = np.random.Generator(np.random.PCG64(1))
    first = {key: rng.standard_normal(shape, np.float32) for key, shape in replica.session.shapes.items()}
    gradient = {key: rng.standard_normal(shape, np.float32) for key, shape in replica.session.shapes.items()}
    replica.initialise(first)
    before = replica.pull(0).values
    replica.push(0, gradient, samples=1)
    after = replica.pull(1).values
    for key in first:
        assert before[key].tobytes() == first[key].tobytes()
        np.testing.assert_allclose(after[key], first[key] - np.float32(0.5) * gradient[key], rtol=1e-5)


def test_a_row_that_somebody_still_holds_keeps_its_memory_from_the_next_pull(connection: Connection) -> None:
    job = replace(JOB, tensors=(TensorSpec("table", (1100, 1000)),))
    replica = connection.join("w/0", job)
    replica.initialise(constant(replica, 1.0))
    row = replica.pull(0).values["table"][5]
    replica.push(0, constant(replica, 1.0), samples=1)
    for _ in range(3):
        assert (replica.pull(1).values["table"] == 0.5).all()
    assert (row == 1.0).all()


def test_a_second_initialiser_adopts_what_is_there(connection: Connection) -> None:
    replica = connection.join("w/0", JOB)
    assert replica.initialise(constant(replica, 1.0))
    replica.pull(0)
    assert not replica.initialise(constant(replica, 2.0))
    assert (replica.pull(0).values["scale"] == 1.0).all()


def test_sync_tells_for_whom_a_pull_waits_and_brings_the_verdict(connection: Connection) -> None:
    one, two = connection.join("w/0", SYNC), connection.join("w/1", SYNC)
    one.initialise(constant(one, 0.0))
    one.pull(0), two.pull(0)
    verdict = one.push(0, constant(one, 1.0), samples=1)
    assert (verdict.outcome, verdict.contributed, verdict.expected) == (Outcome.BUFFERED, 1, 2)
    heard: list[PullParked | None] = []
    waits = threading.Event()

    def note(parked: PullParked | None) -> None:
        heard.append(parked)
        waits.set()

    found = []
    reader = threading.Thread(target=lambda: found.append(one.pull(1, note)))
    reader.start()
    assert waits.wait(SECONDS)
    two.push(0, constant(two, 3.0), samples=3)
    reader.join(SECONDS)
    assert heard[0] is not None
    assert heard[0].waits_for == ((1, 0),)
    assert "round 0" in heard[0].bound
    assert heard[-1] is None
    pulled = found[0]
    assert pulled.verdict is not None
    assert (pulled.verdict.outcome, pulled.verdict.round, pulled.rounds) == (Outcome.APPLIED, 0, 1)
    assert (pulled.values["scale"] == -1.25).all(), "0 - 0.5 x (1 x 1 + 3 x 3) / 4"


def test_a_gradient_that_is_not_finite_counts_as_dropped(connection: Connection) -> None:
    replica = connection.join("w/0", JOB)
    replica.initialise(constant(replica, 1.0))
    replica.pull(0)
    bad = {**constant(replica, 0.0), "dense/bias": np.array([0, np.nan, 0], np.float32)}
    verdict = replica.push(0, bad, samples=4)
    assert verdict.outcome is Outcome.DROPPED
    assert "nan in 'dense/bias'" in verdict.reason
    assert replica.pull(1).versions == (0, 0)


def test_a_refused_request_is_a_sentence_and_the_server_goes_on(connection: Connection) -> None:
    replica = connection.join("w/0", JOB)
    replica.initialise(constant(replica, 1.0))
    replica.pull(0)
    with pytest.raises(RequestError, match="pulls at clock 5") as refused:
        replica.pull(5)
    assert refused.value.fault is Fault.PRECONDITION
    with pytest.raises(RequestError, match="expects 0"):
        replica.push(3, constant(replica, 0.0), samples=1)
    wrong = {**constant(replica, 0.0), "dense/weight": np.zeros((3, 4), np.float32)}
    with pytest.raises(RequestError, match=r"'dense/weight' is \(3, 4\) float32, expected \(4, 3\)"):
        replica.push(0, wrong, samples=1)
    assert replica.push(0, constant(replica, 0.0), samples=1).outcome is Outcome.APPLIED


def test_another_job_is_refused_with_the_difference(connection: Connection) -> None:
    connection.join("w/0", JOB)
    with pytest.raises(RequestError, match="seed: 0 != 7"):
        connection.join("w/1", replace(JOB, seed=7))


def test_a_replaced_incarnation_is_fenced(connection: Connection) -> None:
    old = connection.join("w/0", JOB)
    old.initialise(constant(old, 1.0))
    old.pull(0)
    old.push(0, constant(old, 1.0), samples=1)
    new = connection.join("w/0", JOB)
    assert (new.rank, new.replica.incarnation, new.clock, new.sealed) == (0, 2, 1, True)
    with pytest.raises(FencedError, match="counts no more") as fenced:
        old.pull(1)
    assert fenced.value.clock == 1
    assert old.push(1, constant(old, 1.0), samples=1).outcome is Outcome.FENCED
    assert new.pull(1).versions == (1, 1)


def test_stop_ends_a_waiting_pull_with_its_sentence_and_leaving_still_works(connection: Connection) -> None:
    one, two = connection.join("w/0", SYNC), connection.join("w/1", SYNC)
    one.initialise(constant(one, 0.0))
    one.pull(0)
    one.push(0, constant(one, 1.0), samples=1)
    waits = threading.Event()
    caught = []

    def read() -> None:
        try:
            one.pull(1, lambda _: waits.set())
        except JobError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert waits.wait(SECONDS)
    connection.stop("Enough of it.")
    reader.join(SECONDS)
    assert [(str(error), error.failure) for error in caught] == [("Enough of it.", Failure.ENDED)]
    for call in (
        lambda: one.pull(1),
        lambda: one.push(1, constant(one, 1.0), samples=1),
        lambda: connection.join("w/2", SYNC),
    ):
        with pytest.raises(JobError, match=r"^Enough of it\.$"):
            call()
    two.leave(failure="It broke.")
    status = connection.status().job
    assert status is not None
    assert (status.ended, status.reason) == (True, "Replica 1 failed: It broke.")


def test_a_closed_connection_says_so(connection: Connection) -> None:
    replica = connection.join("w/0", JOB)
    connection.close()
    for call in (lambda: replica.pull(0), replica.leave, connection.status):
        with pytest.raises(JobError, match=r"The connection was closed\."):
            call()


def test_status_shows_members_scores_and_shards(connection: Connection) -> None:
    replica = connection.join("w/0", JOB)
    replica.initialise(constant(replica, 1.0))
    replica.pull(0)
    counters = Counters(gradients={"computed": 3}, loss=0.25)
    connection.heartbeat([replace(replica.beat(2, 9, Phase.COMPUTE), counters=counters)])
    score = Score("validation", version=2, rounds=-1, loss=float("nan"), accuracy=0.5, samples=10)
    connection.score(score)
    status = connection.status()
    assert status.job is not None
    member = status.job.members[0]
    assert (member.name, member.clock, member.steps, member.phase) == ("w/0", 2, 9, Phase.COMPUTE)
    assert (member.counters.gradients["computed"], member.counters.loss) == (3, 0.25)
    assert [each.accuracy for each in status.job.scores] == [0.5]
    assert [standing.statistics.shard for standing in status.shards] == [0, 1]


def test_heartbeats_tell_that_the_job_has_failed(connection: Connection) -> None:
    one, two = connection.join("w/0", SYNC), connection.join("w/1", SYNC)
    heard: list[HeartbeatAnswered] = []
    ended = threading.Event()

    def note(answer: HeartbeatAnswered) -> None:
        heard.append(answer)
        if answer.ended:
            ended.set()

    with Heartbeats(connection, 0.05, lambda: [one.beat()], note):
        two.leave(failure="It broke.")
        assert ended.wait(SECONDS)
    assert heard[-1].reason == "Replica 1 failed: It broke."


def test_a_waiting_pull_is_told_why_the_job_has_failed(connection: Connection) -> None:
    one, two = connection.join("w/0", SYNC), connection.join("w/1", SYNC)

    def fail(_: PullParked | None) -> None:
        two.leave(failure="It broke.")

    with pytest.raises(JobError, match=r"^Replica 1 failed: It broke\.$") as failed:
        one.pull(0, fail)
    assert failed.value.failure is Failure.ENDED


def test_nobody_listens() -> None:
    with Connection("127.0.0.1:1") as connection:
        late = r"'w/0' could not join the job at 127\.0\.0\.1:1 within 0\.2 s"
        with pytest.raises(JobError, match=late) as failed:
            connection.join("w/0", JOB, deadline_seconds=0.2)
        assert failed.value.failure is Failure.UNAVAILABLE
        with pytest.raises(JobError, match=r"The server at 127\.0\.0\.1:1 does not answer"):
            connection.heartbeat([])


def test_a_join_that_comes_too_late_repeats_the_servers_last_sentence() -> None:
    with ServerProcess("--servers", "2") as first, Connection(first.address) as connection:
        with pytest.raises(JobError, match="1 of 2 servers are up; waiting for server 1") as failed:
            connection.join("w/0", JOB, deadline_seconds=0.3)
        assert first.address in str(failed.value)


class Deaf(Connection):
    """A connection on which the first answer that tells of the end is lost."""

    lost = False

    def heartbeat(self, *words: Any, **more: Any) -> HeartbeatAnswered:
        answer = super().heartbeat(*words, **more)
        if answer.ended and not self.lost:
            self.lost = True
            raise JobError("The answer was lost.", Failure.UNAVAILABLE)
        return answer


def test_the_servers_stay_until_the_end_was_heard() -> None:
    ended, silence = threading.Event(), []
    with ServerProcess() as server, Deaf(server.address) as connection:
        replica = connection.join("w/0", JOB, SECONDS, stays=True)

        def heard(answer: HeartbeatAnswered) -> None:
            if answer.ended:
                ended.set()

        beats = lambda: [replica.beat(clock=1, steps=1)]  # noqa: E731
        with Heartbeats(connection, replica.heartbeat_seconds, beats, heard, silence.append) as heartbeats:
            zeros = {tensor.key: np.zeros(tensor.shape, np.float32) for tensor in JOB.tensors}
            replica.initialise(zeros)
            replica.pull(0)
            replica.push(0, zeros, 1)
            connection.heartbeat([replica.beat(clock=1, steps=1)])
            replica.leave(clock=1)
            heartbeats.hurry()
            assert ended.wait(SECONDS)
        assert connection.lost
        assert not silence
        assert server.wait() == 0
