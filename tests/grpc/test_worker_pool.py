"""Replicas in threads against a real server: the same bytes as one plain loop, a full account, clean ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from raw import SECONDS, ServerProcess

from paramserver.client import Connection, ReplicaClient, Status
from paramserver.consistency import parse_consistency
from paramserver.data import Dataset
from paramserver.datasets import Splits
from paramserver.errors import JobError, RequestError
from paramserver.events import Beat, JobSpec, JobStatus, PartGiven, Score, Standing
from paramserver.job import Job
from paramserver.models import Model, Trainable, build_model
from paramserver.optim import build_optimizer
from paramserver.sequential import train_sequentially
from paramserver.session import Pulled
from paramserver.training import Step
from paramserver.types import Tensors, tensors_sha256
from paramserver.workload import Workload
from worker.evaluate import evaluate
from worker.pool import Pool
from worker.program import task_of
from worker.replica import Task


def points(samples: int, seed: int) -> Dataset:
    """Return points of three clouds."""
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = rng.integers(0, 3, samples)
    inputs = rng.standard_normal((samples, 4), np.float32) + 2 * np.eye(3, 4, dtype=np.float32)[labels]
    return Dataset(inputs, labels.astype(np.int64), "points", 3)


SPLITS = Splits(points(100, 0), points(30, 1), points(40, 2))
MODEL: Model = build_model("mlp:5", 4, 3)
JOB = Job(workers=2, threads=2, batch=8, epochs=4, optimizer="adam", lr=0.05).resolved()


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--shards", "2", "--score-grace-seconds", "30") as process:
        yield process


class Running:
    """A pool in a thread of its own, as a process would have it."""

    def __init__(
        self, connection: Connection, spec: JobSpec, task: Task, worker: int, threads: int = 2
    ) -> None:
        names = [f"worker{worker}/{thread}" for thread in range(threads)]
        self.pool = Pool(connection, spec, task, names, SECONDS)
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.pool.run()
        except (JobError, RequestError) as error:
            self.error = error

    def wait(self) -> Exception | None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.error


def finished(connection: Connection) -> JobStatus:
    status = connection.status().job
    assert status is not None
    assert (status.ended, status.reason) == (True, "")
    return status


def trained(server: ServerProcess, spec: JobSpec, task: Task) -> tuple[JobStatus, Pulled]:
    """Let two workers do a job to its end; return how it stands then, and its weights."""
    with Connection(server.address) as one, Connection(server.address) as two:
        running = [Running(one, spec, task, 0), Running(two, spec, task, 1)]
        observer = one.observe("eye", scores=True)
        assert [each.wait() for each in running] == [None, None]
        return finished(two), observer.pull()


def make_task(job: Job, splits: Splits, model: Trainable) -> tuple[JobSpec, Task]:
    """Return what the replicas of a job agree on, and what each has to do."""
    workload = Workload(job, splits, model)
    return workload.spec, task_of(workload)


def totals(status: JobStatus, what: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for member in status.members:
        for name, count in getattr(member.counters, what).items():
            counts[name] = counts.get(name, 0) + count
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:1"])
def test_two_workers_train_and_account_for_everything(server: ServerProcess, consistency: str) -> None:
    job = replace(JOB, consistency=consistency)
    spec, task = make_task(job, SPLITS, MODEL)
    status, final = trained(server, spec, task)
    steps_of = Workload(job, SPLITS, MODEL).steps
    steps = sum(steps_of)
    assert totals(status, "gradients") == {"computed": steps, "applied": steps}
    assert totals(status, "samples") == {"computed": 4 * 100, "applied": 4 * 100}
    for member in status.members:
        counters, count = member.counters, steps_of[member.replica.rank]
        assert (member.clock, member.steps) == (count, count)
        assert sum(counters.staleness.values()) == count
        assert sum(counters.clock_gap.values()) == count + 1
        assert set(counters.seconds) == {"compute", "pull", "push", "wait", "rest"}
        assert 0.0 < counters.loss < 2.0
    if consistency == "ssp:1":
        assert max(gap for member in status.members for gap in member.counters.clock_gap) <= 1
    if consistency == "sync":
        assert tensors_sha256(final.values) == tensors_sha256(in_one_loop(job, spec, task, steps_of))


def test_a_replica_that_is_fenced_before_its_first_step_has_all_of_them_before_it(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(JOB, lease_seconds=1.0, on_death="restart")
    spec, task = make_task(job, SPLITS, MODEL)
    dead = threading.Event()
    beats, next_part = Pool._beats, ReplicaClient.next_part

    def some_beats(pool: Pool) -> list[Beat]:
        return [beat for beat in beats(pool) if beat.replica.rank != 1 or dead.is_set()]

    def late_part(client: ReplicaClient, clock: int) -> PartGiven:
        if client.rank == 1 and not dead.is_set():
            watch_until_dead(client.connection, 1)
            dead.set()
        return next_part(client, clock)

    monkeypatch.setattr(Pool, "_beats", some_beats)
    monkeypatch.setattr(ReplicaClient, "next_part", late_part)
    status, final = trained(server, spec, task)
    steps_of = Workload(job, SPLITS, MODEL).steps
    assert totals(status, "gradients") == {"computed": sum(steps_of), "applied": sum(steps_of)}
    assert tensors_sha256(final.values) == tensors_sha256(in_one_loop(job, spec, task, steps_of))


def in_one_loop(job: Job, spec: JobSpec, task: Task, steps: Sequence[int]) -> Tensors:
    """Return the weights that the sequential twin ends with."""
    optimizer = build_optimizer(job.optimizer, job.lr, job.schedule, spec.versions_total)
    replicas = [task.step(rank, None) for rank in range(job.replicas)]
    *_, last = train_sequentially(
        parse_consistency(job.consistency), optimizer, task.initial(), replicas, steps
    )
    return last.weights


def broken_at(task: Task, rank: int, clock: int, *, batch: bool) -> Task:
    """Return a task in which one step of one rank fails."""

    def step(of: int, next_part: Any) -> Step[Any]:
        work = task.step(of, next_part)
        seen = 0

        def batch_at(at: int) -> Any:
            if batch and of == rank and at == clock:
                raise OSError("the disk is gone")
            return work.batch_at(at)

        def gradient(values: Tensors, samples: Any) -> tuple[float, Tensors, int]:
            nonlocal seen
            seen += 1
            if not batch and of == rank and seen == clock + 1:
                raise FloatingPointError("the model is broken")
            return work.gradient(values, samples)

        return Step(batch_at, gradient)

    return replace(task, step=step)


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        (False, "A gradient cannot be computed: FloatingPointError: the model is broken."),
        (True, "The batch of step 3 cannot be made: OSError: the disk is gone."),
    ],
)
def test_a_thread_that_fails_ends_the_job_with_its_sentence(
    server: ServerProcess, batch: bool, sentence: str
) -> None:
    spec, task = make_task(JOB, SPLITS, MODEL)
    broken = broken_at(task, 1, 3, batch=batch)
    with Connection(server.address) as one, Connection(server.address) as two:
        running = [Running(one, spec, broken, 0), Running(two, spec, broken, 1)]
        errors = {str(each.wait()) for each in running}
        assert errors == {sentence, f"Replica 1 failed: {sentence}"}
        status = two.status().job
        assert status is not None
        assert status.reason == f"Replica 1 failed: {sentence}"
    samples = totals(status, "samples")
    ends = [
        samples.get(name, 0) for name in ("applied", "dropped", "fenced", "partial", "lost", "rolled_back")
    ]
    assert samples["computed"] == sum(ends)
    assert server.wait() == 1


def test_a_pool_that_is_stopped_ends_while_it_waits_for_others(server: ServerProcess) -> None:
    spec, task = make_task(JOB, SPLITS, MODEL)
    with Connection(server.address) as connection:
        running = Running(connection, spec, task, 0)
        watch_until_waiting(connection)
        running.pool.stop("It was told to stop.")
        assert str(running.wait()) == "It was told to stop."
        status = connection.status().job
        assert status is not None
        assert not status.ended, "to the job this is a death: another may take its place"


def watch_until_waiting(connection: Connection) -> None:
    """Return once a replica waits for the others to join."""
    while not any(standing.statistics.parked for standing in connection.status().shards):
        connection.pause(0.01)


def watch_until_dead(connection: Connection, rank: int) -> None:
    """Return once a replica's lease is over."""
    while (job := connection.status().job) is None or job.members[rank].standing is not Standing.DEAD:
        connection.pause(0.01)


def test_a_server_that_dies_ends_the_pool(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paramserver.client.channels.PAUSES_SECONDS", (0.0, 0.01))
    spec, task = make_task(JOB, SPLITS, MODEL)
    with Connection(server.address) as connection:
        running = Running(connection, spec, task, 0)
        watch_until_waiting(connection)
        server.process.kill()
        assert f"The server at {server.address} does not answer" in str(running.wait())


def test_another_job_is_refused(server: ServerProcess) -> None:
    spec, task = make_task(JOB, SPLITS, MODEL)
    with Connection(server.address) as one, Connection(server.address) as two:
        one.join("somebody", spec)
        other = Running(two, replace(spec, seed=5), task, 1)
        assert "seed: 0 != 5" in str(other.wait())


@pytest.mark.parametrize("on_death", ["restart", "drop"])
def test_a_replica_that_was_replaced_ends_with_a_sentence(server: ServerProcess, on_death: str) -> None:
    spec, task = make_task(replace(JOB, workers=2, threads=1, on_death=on_death), SPLITS, MODEL)
    with Connection(server.address) as one, Connection(server.address) as two:
        first = Running(one, spec, task, 0, threads=1)
        watch_until_waiting(one)
        two.join("worker0/0", spec)
        assert "incarnation 2 has taken its place" in str(first.wait())
        two.join("worker1/0", spec).leave(failure="The test is over.")


def test_the_evaluator_scores_validation_while_it_runs_and_test_at_the_end(server: ServerProcess) -> None:
    spec, task = make_task(JOB, SPLITS, MODEL)
    scored = threading.Event()
    slow = waiting_for(task, scored)
    with (
        Connection(server.address) as one,
        Connection(server.address) as two,
        Connection(server.address) as eye,
    ):
        running = [Running(one, spec, slow, 0), Running(two, spec, slow, 1)]
        evaluator = threading.Thread(
            target=evaluate, args=(eye, MODEL, SPLITS.validation, SPLITS.test, "evaluator", SECONDS)
        )
        evaluator.start()
        while not (status := one.status().job) or not status.scores:
            one.pause(0.01)
        scored.set()
        assert [each.wait() for each in running] == [None, None]
        evaluator.join(SECONDS)
        assert not evaluator.is_alive()
    assert server.wait() == 0, "it has waited for the score"
    assert (status.scores[0].split, status.scores[0].samples) == ("validation", 30)
    assert "No observer" not in server.log()


@pytest.mark.parametrize("consistency", ["sync", "async"])
def test_a_target_that_is_reached_ends_the_job_well_for_all(server: ServerProcess, consistency: str) -> None:
    job = replace(JOB, consistency=consistency, epochs=100_000, target_accuracy=0.5)
    spec, task = make_task(job, SPLITS, MODEL)
    with Connection(server.address) as one, Connection(server.address) as two:
        running = [Running(one, spec, task, 0), Running(two, spec, task, 1)]
        eye = one.observe("eye", scores=True)
        while not (status := one.status().job) or not all(member.clock for member in status.members):
            one.pause(0.01)
        one.score(Score("validation", 1, -1, 0.5, 0.5, 30))
        assert [each.wait() for each in running] == [None, None]
        status, versions = finished(one), eye.pull().versions
        one.score(Score("test", 1, -1, 0.5, 0.5, 40))
        assert server.wait() == 0
    counts = totals(status, "gradients")
    ends = ("applied", "dropped", "fenced", "partial", "lost", "rolled_back")
    assert counts["computed"] == sum(counts.get(end, 0) for end in ends)
    assert counts.get("lost", 0) <= len(status.members), "one each may be under way"
    if consistency == "sync":
        assert len(set(versions)) == 1, "every shard ends after the same round"


def waiting_for(task: Task, event: threading.Event) -> Task:
    """Return a task whose second step waits for an event."""

    def step(rank: int, next_part: Any) -> Step[Any]:
        work = task.step(rank, next_part)

        def batch_at(clock: int) -> Any:
            if clock == 1:
                event.wait(SECONDS)
            return work.batch_at(clock)

        return Step(batch_at, work.gradient)

    return replace(task, step=step)


def test_the_evaluator_goes_quietly_when_the_job_fails(server: ServerProcess) -> None:
    spec, _ = make_task(JOB, SPLITS, MODEL)
    with Connection(server.address) as one, Connection(server.address) as eye:
        replica = one.join("somebody", spec)
        evaluator = threading.Thread(
            target=evaluate, args=(eye, MODEL, SPLITS.validation, SPLITS.test, "evaluator", SECONDS)
        )
        evaluator.start()
        replica.leave(failure="It broke.")
        evaluator.join(SECONDS)
        assert not evaluator.is_alive()


def test_the_evaluator_goes_quietly_when_the_servers_are_gone(
    server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    spec, _ = make_task(JOB, SPLITS, MODEL)
    joined = threading.Event()

    class Eye(Connection):
        def status(self, *, repeat: bool = True) -> Status:
            joined.set()
            return super().status(repeat=repeat)

    with Connection(server.address) as one, Eye(server.address) as eye:
        one.join("somebody", spec)
        evaluator = threading.Thread(
            target=evaluate, args=(eye, MODEL, SPLITS.validation, SPLITS.test, "evaluator", SECONDS)
        )
        evaluator.start()
        assert joined.wait(SECONDS)
        server.process.kill()
        evaluator.join(SECONDS)
        assert not evaluator.is_alive()
    assert "There is nothing more to evaluate. The server at" in caplog.text


def test_the_evaluator_refuses_a_job_of_another_model(server: ServerProcess) -> None:
    spec, _ = make_task(JOB, SPLITS, MODEL)
    with Connection(server.address) as connection:
        connection.join("somebody", spec)
        other = build_model("softmax", 4, 3)
        with pytest.raises(RequestError, match="does not train the model 'softmax'"):
            evaluate(connection, other, SPLITS.validation, SPLITS.test, "evaluator", SECONDS)
