"""An observer reads what all shards have, and is never counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from raw import JOB, SECONDS, ServerProcess, two_servers

from paramserver.client import Connection, ObserverClient, ReplicaClient
from paramserver.errors import Failure, JobError
from paramserver.types import Tensors

SYNC = replace(JOB, consistency="sync")
ROUNDS = 60


def constant(replica: ReplicaClient, value: float) -> Tensors:
    return {key: np.full(shape, value, np.float32) for key, shape in replica.session.shapes.items()}


@pytest.fixture
def connection() -> Iterator[Connection]:
    with ServerProcess("--shards", "2") as server, Connection(server.address) as connection:
        yield connection


def test_before_there_is_a_job_and_before_there_are_weights(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paramserver.client.channels.PAUSES_SECONDS", (0.0, 0.01))
    with pytest.raises(JobError, match="There is no job yet") as failed:
        connection.observe("eye", deadline_seconds=0.2)
    assert connection.coordinator in str(failed.value)
    replica = connection.join("w/0", JOB)
    observer = connection.observe("eye")
    assert (observer.sealed, observer.granted.replica, observer.job) == (False, None, JOB)
    with pytest.raises(JobError, match="no weights yet") as failed:
        observer.pull()
    assert failed.value.failure is Failure.UNAVAILABLE
    replica.initialise(constant(replica, 1.0))
    replica.pull(0)
    assert (observer.pull().values["scale"] == 1.0).all()


def test_async_gives_the_newest(connection: Connection) -> None:
    replica = connection.join("w/0", JOB)
    observer = connection.observe("eye")
    replica.initialise(constant(replica, 1.0))
    for clock in range(3):
        replica.pull(clock)
        replica.push(clock, constant(replica, 1.0), samples=1)
    pulled = observer.pull()
    assert pulled.versions == (3, 3)
    assert (pulled.values["dense/weight"] == -0.5).all()


def test_sync_gives_one_round_of_all_shards_while_rounds_go_on() -> None:
    """Every element falls by one half in each round, so a mixture of rounds would show."""
    with two_servers(shards=2) as (first, _), Connection(first.address) as connection:
        replica = connection.join("w/0", SYNC)
        replica.initialise(constant(replica, 0.0))
        replica.pull(0)
        done = threading.Event()

        def train() -> None:
            for clock in range(ROUNDS):
                replica.push(clock, constant(replica, 1.0), samples=1)
                replica.pull(clock + 1)
            done.set()

        trainer = threading.Thread(target=train)
        trainer.start()
        observer = connection.observe("eye", scores=True)
        seen = []
        while not done.is_set():
            seen.append(check_one_round(observer))
        trainer.join(SECONDS)
        seen.append(check_one_round(observer))
        assert seen == sorted(seen)
        assert seen[-1] == ROUNDS - 1, "the newest round that a shard can know all others to have"
        replica.leave()
        wait_ended(connection)
        assert check_one_round(observer) == ROUNDS, "the last one, once the job has ended"


def wait_ended(connection: Connection) -> None:
    """Wait until all shards have said what they had of the last replica to leave, and the job is over."""
    deadline = time.monotonic() + SECONDS
    while not ((job := connection.status().job) and job.ended):
        assert time.monotonic() < deadline


def check_one_round(observer: ObserverClient) -> int:
    pulled = observer.pull()
    for value in pulled.values.values():
        assert (value == -0.5 * pulled.rounds).all()
    return pulled.rounds
