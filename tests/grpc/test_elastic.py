"""Workers that come and go while a job runs, as real processes: nobody starts the job again for that."""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from raw import SECONDS, ServerProcess
from test_worker_pool import JOB as SMALL_JOB
from test_worker_pool import MODEL, SPLITS, Running, finished, make_task, totals

from paramserver.client import Connection, Heartbeats
from paramserver.events import JobStatus, Phase, Standing
from paramserver.job import Job
from paramserver.training import Step
from worker.replica import Task

pytestmark = pytest.mark.slow

JOB = Job(
    data="synthetic:spirals",
    model="mlp:8",
    workers=2,
    threads=1,
    batch=4,
    epochs=100_000,
    target_accuracy=0.999,
    lease_seconds=2.0,
    on_death="drop",
    step_timeout=60.0,
)

SMALL = replace(SMALL_JOB, workers=1)


class Workers:
    """Worker processes of one job."""

    def __init__(self, folder: Path, job: Job, server: ServerProcess) -> None:
        self.file = folder / "job.toml"
        self.file.write_text(job.to_toml())
        self.server = server
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        arguments = ["--connect", self.server.address, "--job", str(self.file)]
        arguments += ["--worker", str(len(self.processes)), *options]
        command = [sys.executable, "-P", "-m", "worker", *arguments]
        self.processes.append(subprocess.Popen(command))
        return self.processes[-1]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[Job], tuple[Workers, Connection]]]:
    opened: list[tuple[Workers, Connection, ServerProcess]] = []

    def begin(job: Job) -> tuple[Workers, Connection]:
        server = ServerProcess()
        server.__enter__()
        workers = Workers(tmp_path, job, server)
        connection = Connection(server.address)
        opened.append((workers, connection, server))
        return workers, connection

    yield begin
    for workers, connection, server in opened:
        for process in workers.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(SECONDS)
        server.process.send_signal(signal.SIGCONT)
        connection.close()
        server.__exit__(None, None, None)


def until(connection: Connection, holds: Callable[[JobStatus], object]) -> JobStatus:
    """Look at the job until something holds."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        status = connection.status().job
        assert status is not None
        if holds(status):
            return status
        connection.pause(0.05)
    raise AssertionError(f"It never came to that: {status}")


def at_work(status: JobStatus) -> set[str]:
    """Return who has finished a step and is alive."""
    return {one.name for one in status.members if one.standing is Standing.LIVE and one.clock}


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:2"])
def test_two_workers_become_five_and_then_one(
    make: Callable[[Job], tuple[Workers, Connection]], consistency: str
) -> None:
    workers, connection = make(replace(JOB, consistency=consistency))
    processes = [workers.start("--leave-on-stop") for _ in range(2)]
    until(connection, lambda status: len(at_work(status)) == 2)
    processes += [workers.start("--leave-on-stop") for _ in range(3)]
    until(connection, lambda status: len(at_work(status)) == 5)
    for process in processes[:4]:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(SECONDS) for process in processes[:4]] == [0] * 4
    status = until(connection, lambda status: at_work(status) == {"worker4/0"})
    before = {one.name: one for one in status.members}
    assert [before[f"worker{index}/0"].standing for index in range(4)] == [Standing.LEFT] * 4
    rank = before["worker4/0"].replica.rank
    status = until(connection, lambda status: status.members[rank].clock > before["worker4/0"].clock + 50)
    assert not status.ended
    for one in status.visits[:-3]:  # what they left was done by those who stayed
        assert (one.unseen, one.repeated) == (0, 0)


@pytest.mark.parametrize("consistency", ["sync", "ssp:1"])
def test_a_paused_worker_costs_one_lease_and_comes_back_by_itself(
    make: Callable[[Job], tuple[Workers, Connection]], consistency: str
) -> None:
    workers, connection = make(replace(JOB, consistency=consistency))
    paused, other = workers.start(), workers.start()
    until(connection, lambda status: len(at_work(status)) == 2)
    paused.send_signal(signal.SIGSTOP)
    status = until(connection, lambda status: Standing.DEAD in {one.standing for one in status.members})
    [dead] = [one for one in status.members if one.standing is Standing.DEAD]
    assert dead.name == "worker0/0"
    [lives] = [one for one in status.members if one.standing is Standing.LIVE]
    until(connection, lambda status: status.members[lives.replica.rank].clock > lives.clock + 50)
    paused.send_signal(signal.SIGCONT)
    status = until(
        connection,
        lambda status: (
            status.members[dead.replica.rank].clock > dead.clock
            and status.members[dead.replica.rank].standing is Standing.LIVE
        ),
    )
    assert status.members[dead.replica.rank].replica.incarnation == 2
    assert paused.poll() is other.poll() is None


def test_a_server_that_was_paused_takes_nobody_for_dead(
    make: Callable[[Job], tuple[Workers, Connection]],
) -> None:
    workers, connection = make(JOB)
    workers.start(), workers.start()
    status = until(connection, lambda status: len(at_work(status)) == 2)
    before = status.members[0].clock
    workers.server.process.send_signal(signal.SIGSTOP)
    connection.pause(2 * JOB.lease_seconds)
    workers.server.process.send_signal(signal.SIGCONT)
    status = until(connection, lambda status: status.members[0].clock > before + 50)
    connection.pause(JOB.lease_seconds)  # by then whoever was taken for dead would have joined again
    status = until(connection, lambda status: status.members[0].clock > before + 100)
    assert [one.replica.incarnation for one in status.members] == [1, 1]


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


def slow(task: Task, wait: Callable[[int], object]) -> Task:
    """Return a task whose gradients take longer."""

    def step(rank: int, next_part: Any) -> Step[Any]:
        work = task.step(rank, next_part)

        def gradient(values: Any, batch: Any) -> Any:
            wait(batch.clock)
            return work.gradient(values, batch)

        return Step(work.batch_at, gradient)

    return replace(task, step=step)


def test_a_worker_whose_interpreter_is_stuck_for_less_than_half_a_lease_lives(server: ServerProcess) -> None:
    """A library that keeps the interpreter's lock lets no other thread run, not even the heartbeats."""
    job = replace(SMALL, lease_seconds=6.0)
    spec, task = make_task(job, SPLITS, MODEL)
    usleep = ctypes.PyDLL(None).usleep  # unlike CDLL, it keeps the lock
    stuck = slow(task, lambda clock: usleep(1_900_000) if clock < 3 else None)
    with Connection(server.address) as connection:
        running = Running(connection, spec, stuck, 0)
        connection.observe("eye", scores=True)  # so that the server stays when all is done
        assert running.wait() is None
        members = finished(connection).members
    assert [(one.replica.incarnation, one.clock) for one in members] == [(1, one.steps) for one in members]


def test_if_rank_0_brings_no_weights_another_one_does(server: ServerProcess) -> None:
    job = replace(SMALL_JOB, lease_seconds=0.5, threads=2)
    spec, task = make_task(job, SPLITS, MODEL)
    with Connection(server.address) as one, Connection(server.address) as two:
        silent = [
            two.join(name, spec) for name in ("first/0", "first/1")
        ]  # rank 0 and 1 are here, and only beat
        with Heartbeats(two, 0.1, lambda: [client.beat(phase=Phase.WAIT) for client in silent]):
            running = Running(one, spec, task, 1)
            until(one, lambda status: status.sealed)
            assert silent[0].rank == 0
            silent[0].leave(failure="That is enough.")
            assert "That is enough." in str(running.wait())


def test_a_long_wait_is_told_once_and_says_for_whom(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.replica.LONG_WAIT_SECONDS", 0.5)
    spec, task = make_task(SMALL_JOB, SPLITS, MODEL)
    free = threading.Event()
    slowly = slow(task, lambda clock: free.wait(SECONDS) if clock == 2 else None)
    with Connection(server.address) as one, Connection(server.address) as two:
        running = [Running(one, spec, slowly, 0), Running(two, spec, task, 1)]
        deadline = time.monotonic() + SECONDS
        while "waits for" not in caplog.text and time.monotonic() < deadline:
            one.pause(0.05)
        free.set()
        assert [each.wait() for each in running] == [None, None]
    told = [record.message for record in caplog.records if " waits for " in record.message]
    assert len(told) <= 2  # one for each replica of the second worker
    bound = "sync lets a reader at clock 3 read once round 2 is closed"
    laggards = r"replica \d at clock 2 and replica \d at clock 2"
    assert re.fullmatch(rf"For \d+ s replica \d waits for {laggards}: {bound}\.", told[0])


def test_a_replica_that_only_beats_is_dead_after_the_step_timeout(server: ServerProcess) -> None:
    job = replace(SMALL_JOB, consistency="async", on_death="drop", step_timeout=0.5)
    spec, task = make_task(job, SPLITS, MODEL)
    free = threading.Event()
    hanging = slow(task, lambda clock: free.wait(SECONDS) if clock == 1 else None)
    with Connection(server.address) as one, Connection(server.address) as two:
        hangs, runs = Running(one, spec, hanging, 0), Running(two, spec, task, 1)
        two.observe("eye", scores=True)  # so that the server stays when all is done
        status = until(two, lambda status: Standing.DEAD in {one.standing for one in status.members})
        dead = {one.name for one in status.members if one.standing is Standing.DEAD}
        assert dead <= {"worker0/0", "worker0/1"}
        assert runs.wait() is None
        free.set()
        hangs.wait()
        status = finished(two)
    # What replicas count themselves, and what the coordinator makes of clocks, are two accounts of one thing.
    assert sum(one.seen for one in status.visits) == totals(status, "samples")["applied"]
