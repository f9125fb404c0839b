"""A training loop of one's own against a real server: ``connect`` and ``observe``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw import ServerProcess
from threads import in_threads

from paramserver.client import ConnectedReplica, Connection, FencedError, connect, observe
from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import Outcome, Standing
from paramserver.rows import RowGradient

WEIGHTS = {"bias": np.zeros(3, np.float32), "scale": np.float32(1), "weight": np.ones((4, 3), np.float32)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--shards", "2", "--out", str(tmp_path)) as process:
        yield process


def full(value: float, dtype: Any = np.float32) -> dict[str, Any]:
    return {key: np.full(np.shape(array), value, dtype) for key, array in WEIGHTS.items()}


def test_a_loop_pulls_and_pushes_and_the_server_ends_in_good_order(
    server: ServerProcess, tmp_path: Path
) -> None:
    with connect(server.address, weights=WEIGHTS, consistency="async", lr=0.5, model="mine") as replica:
        assert (replica.rank, replica.clock, replica.verdict) == (0, 0, None)
        for step in range(3):
            values = replica.pull()
            assert replica.versions == (step, step)
            assert (values["weight"] == 1.0 - 0.5 * step).all()
            verdict = replica.push(full(1.0), samples=8, loss=0.25)
            assert (verdict.outcome, verdict.version, verdict.staleness) == (Outcome.APPLIED, step + 1, 0)
            assert replica.verdict == verdict
        assert replica.clock == 3
    assert server.wait() == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["samples"]["computed"], summary["samples"]["applied"]) == (24, 24)
    manifest = json.loads((tmp_path / "checkpoint" / "manifest.json").read_text())
    assert manifest["details"]["model"] == "mine"


def test_in_sync_the_mean_is_weighted_and_the_verdict_comes_with_the_next_pull(
    server: ServerProcess,
) -> None:
    final, verdicts = {}, {}

    def loop(index: int) -> None:
        with connect(server.address, weights=WEIGHTS, name=f"me/{index}", replicas=2, lr=0.5) as replica:
            replica.pull()
            first = replica.push(full([1.0, 3.0][index]), samples=[1, 3][index])
            assert first.outcome is Outcome.BUFFERED
            final[index] = replica.pull()
            verdicts[index] = replica.verdict

    in_threads(partial(loop, 0), partial(loop, 1))
    for index in range(2):
        assert (final[index]["scale"] == -0.25).all(), "1 - 0.5 x (1 x 1 + 3 x 3) / 4"
        assert (verdicts[index].outcome, verdicts[index].round) == (Outcome.APPLIED, 0)
    assert server.wait() == 0


def test_leaving_waits_for_what_becomes_of_the_last_push(server: ServerProcess, tmp_path: Path) -> None:
    def loop(index: int) -> None:
        with connect(server.address, weights=WEIGHTS, replicas=2) as replica:
            replica.pull()
            replica.push(full(1.0), samples=5)
        assert replica.verdict is not None
        assert replica.verdict.outcome is Outcome.APPLIED

    in_threads(partial(loop, 0), partial(loop, 1))
    assert server.wait() == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["gradients"]["applied"], summary["gradients"]["lost"]) == (2, 0)


def test_the_first_replica_says_what_the_weights_begin_with(server: ServerProcess) -> None:
    with (
        connect(server.address, weights=full(7.0), consistency="async", replicas=2) as first,
        connect(server.address, weights=full(9.0), consistency="async", replicas=2) as second,
    ):
        assert (first.rank, second.rank) == (0, 1)
        assert (second.pull()["scale"] == 7.0).all()


def test_a_loop_that_raises_ends_the_job_with_its_sentence(server: ServerProcess) -> None:
    def fail() -> None:
        with connect(server.address, weights=WEIGHTS, consistency="async", replicas=2) as replica:
            replica.pull()
            raise ZeroDivisionError("by hand")

    def go_on() -> None:
        with connect(server.address, weights=WEIGHTS, consistency="async", replicas=2) as replica:
            with pytest.raises(ZeroDivisionError):
                fail()
            while True:
                replica.pull()
                replica.push(full(0.0), samples=1)

    with pytest.raises(JobError) as heard:
        go_on()
    assert str(heard.value) == "Replica 1 failed: Its training loop raised ZeroDivisionError: by hand."
    assert heard.value.failure is Failure.ENDED
    assert server.wait() == 1


def test_an_interrupted_loop_is_a_death_not_a_failure(server: ServerProcess) -> None:
    def connected() -> ConnectedReplica:
        return connect(
            server.address, weights=WEIGHTS, name="me", consistency="async", lr=0.5, on_death="restart"
        )

    def interrupted() -> None:
        with connected() as replica:
            for _ in range(2):
                replica.pull()
                replica.push(full(1.0), samples=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with Connection(server.address) as connection:
        job = connection.status().job
    assert job is not None
    assert not job.ended
    assert [member.standing for member in job.members] == [Standing.LIVE]
    with connected() as replica:
        assert replica.clock == 2, "the same name goes on where it was"
        assert (replica.pull()["scale"] == 0.0).all()
    assert server.wait() == 0


def test_who_is_replaced_is_told_and_does_not_leave_for_the_other(server: ServerProcess) -> None:
    def connected() -> ConnectedReplica:
        return connect(server.address, weights=WEIGHTS, name="me", consistency="async")

    old = connected()
    old.pull()
    with connected() as new:
        with pytest.raises(FencedError), old:
            old.push(full(1.0), samples=1)
        new.pull()
        assert new.push(full(1.0), samples=1).outcome is Outcome.APPLIED
    assert server.wait() == 0


def test_gradients_of_any_float_are_rounded_and_others_refused(server: ServerProcess) -> None:
    with connect(server.address, weights=full(1.0, np.float64), consistency="async", lr=1.0) as replica:
        assert replica.pull()["weight"].dtype == np.float32
        with pytest.raises(RequestError, match=r"The tensor 'bias' is \(3,\) int64, expected float32"):
            replica.push({**full(0.0), "bias": np.zeros(3, int)}, samples=1)
        with pytest.raises(RequestError, match=r"The tensor 'bias' is \(4,\) float32, expected \(3,\)"):
            replica.push({**full(0.0), "bias": np.zeros(4)}, samples=1)
        with pytest.raises(RequestError, match=r"no tensor 'bais'\. Did you mean 'bias'"):
            replica.push({**full(0.0), "bais": np.zeros(3)}, samples=1)
        with pytest.raises(RequestError, match="at least 1 sample"):
            replica.push(full(0.0), samples=0)
        assert replica.push(full(0.25, np.float64), samples=1).outcome is Outcome.APPLIED
        assert (replica.pull()["weight"] == 0.75).all()
        verdict = replica.push(full(1e300, np.float64), samples=1)
        assert (verdict.outcome, "inf in" in verdict.reason) == (Outcome.DROPPED, True)
    assert server.wait() == 0


def test_a_push_needs_a_pull(server: ServerProcess) -> None:
    with connect(server.address, weights=WEIGHTS, consistency="async") as replica:
        with pytest.raises(RequestError, match="pull once before each push") as refused:
            replica.push(full(0.0), samples=1)
        assert refused.value.fault is Fault.PRECONDITION


def test_training_that_has_diverged_does_not_go_on(server: ServerProcess) -> None:
    def loop() -> None:
        with connect(server.address, weights=WEIGHTS) as replica:
            while True:
                replica.pull()
                replica.push(full(np.nan), samples=1)

    with pytest.raises(JobError, match="5 gradients in a row were dropped"):
        loop()
    assert server.wait() == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"address": "127.0.0.1"}, "HOST:PORT, such as 127.0.0.1:7070, but found '127.0.0.1'"),
        ({"address": "127.0.0.1:70700"}, "HOST:PORT"),
        ({"weights": {"w": np.zeros(3, np.int32)}}, r"The tensor 'w' is \(3,\) int32, expected float32"),
        ({"schedule": "cosine"}, "say with steps=N"),
        ({"consistency": "synch"}, "sync"),
    ],
)
def test_wrong_arguments_are_refused_before_anyone_is_called(arguments: Any, sentence: str) -> None:
    right = {"address": "127.0.0.1:1", "weights": WEIGHTS, "start_timeout": 0.1}
    with pytest.raises(RequestError, match=sentence):
        connect(**{**right, **arguments})


def test_first_weights_that_are_not_finite_end_the_job(server: ServerProcess) -> None:
    with pytest.raises(RequestError, match="The first weights hold nan in 'bias'"):
        connect(server.address, weights={**WEIGHTS, "bias": np.full(3, np.nan)})
    assert server.wait() == 1


def test_another_job_is_refused_with_what_differs(server: ServerProcess) -> None:
    with (
        connect(server.address, weights=WEIGHTS, consistency="async", replicas=2),
        pytest.raises(RequestError, match="consistency: 'async' != 'sync'"),
    ):
        connect(server.address, weights=WEIGHTS, replicas=2)


def test_a_schedule_ends_after_the_steps_of_all(server: ServerProcess) -> None:
    def loop(index: int) -> None:
        arguments = {"consistency": "ssp:1", "schedule": "cosine", "steps": 4, "replicas": 2}
        with connect(server.address, weights=WEIGHTS, **arguments) as replica:  # type: ignore[arg-type]
            assert replica._client.job.versions_total == 8
            for _ in range(4):
                replica.pull()
                replica.push(full(1.0), samples=1)

    in_threads(partial(loop, 0), partial(loop, 1))
    assert server.wait() == 0


def test_an_observer_sees_the_weights_and_nobody_waits_for_it(server: ServerProcess) -> None:
    with (
        connect(server.address, weights=WEIGHTS, consistency="async", lr=0.5) as replica,
        observe(server.address) as observer,
    ):
        assert observer.job.consistency == "async"
        for step in range(2):
            assert (observer.pull()["scale"] == 1.0 - 0.5 * step).all()
            assert observer.versions == (step, step)
            replica.pull()
            replica.push(full(1.0), samples=1)


def test_an_observer_of_a_synchronous_job_is_one_round_behind(server: ServerProcess) -> None:
    with connect(server.address, weights=WEIGHTS, lr=0.5) as replica, observe(server.address) as observer:
        for step in range(3):
            replica.pull()
            assert (observer.pull()["scale"] == 1.0 - 0.5 * max(step - 1, 0)).all()
            replica.push(full(1.0), samples=1)


def test_an_observer_without_a_job(server: ServerProcess) -> None:
    with pytest.raises(JobError, match="no replica has joined"):
        observe(server.address, timeout=0.2)
    with pytest.raises(RequestError, match="HOST:PORT"):
        observe("nowhere")


def test_a_loop_may_pull_and_push_rows_of_its_tables(server: ServerProcess) -> None:
    first = {"bias": np.zeros(2, np.float32), "table": np.ones((50, 2), np.float32)}
    touched = np.array([3, 49])
    with connect(server.address, weights=first, tables=["table"], lr=0.5, optimizer="momentum") as replica:
        for step in range(2):
            values = replica.pull(rows={"table": touched})
            assert values["table"].indices.tolist() == [3, 49]
            assert (values["table"][touched] == [1, 0.5][step]).all()
            rows = np.ones((2, 2))  # float64 is rounded, as in arrays
            gradient = RowGradient(touched, rows, (50, 2))
            replica.push({"bias": np.ones(2, np.float32), "table": gradient}, samples=1)
        whole = replica.pull()["table"]
        assert np.flatnonzero((whole != 1).any(axis=1)).tolist() == [3, 49]
        with pytest.raises(RequestError, match="'bias' is no table"):
            replica.pull(rows={"bias": np.array([0])})
        with pytest.raises(RequestError, match=r"'table' to be pulled: .* found 50"):
            replica.pull(rows={"table": np.array([50])})
        bad = RowGradient(touched, np.full((2, 2), np.nan, np.float32), (50, 2))
        replica.push({"bias": np.zeros(2, np.float32), "table": bad}, samples=1)
        replica.pull(rows={"table": np.empty(0, np.int64)})
        assert replica.verdict is not None
        assert replica.verdict.outcome is Outcome.DROPPED
    assert server.wait() == 0


def test_a_table_is_one_of_the_tensors() -> None:
    with pytest.raises(RequestError, match=r"no tensor 'wieght' to be a table\. Did you mean 'weight'\?"):
        connect("127.0.0.1:1", weights=WEIGHTS, tables=["wieght"], start_timeout=0.1)
