"""Whole jobs in virtual time: real data and models, summaries, targets, and a core that has a mistake."""

import pytest
from virtual import LAN, simulate

from paramserver.accounting import summarise
from paramserver.consistency import parse_consistency
from paramserver.errors import JobError
from paramserver.events import Score
from paramserver.job import Job
from paramserver.optim import build_optimizer
from paramserver.parking import ParkingLot
from paramserver.sequential import train_sequentially
from paramserver.sim import Machines, Simulation, Task, Watch, world_from_mapping
from paramserver.types import tensors_sha256
from paramserver.workload import load_workload


@pytest.fixture(scope="module")
def digits():
    return load_workload(Job(epochs=1, batch=64, workers=2, threads=2, shards=2).resolved())


def in_virtual_time(work, world, machines, **options):
    task = Task(work.steps, work.step, work.initial)
    return Simulation(world_from_mapping(world, "a test"), machines, work.spec, task, **options).run()


def test_a_real_model_on_real_data_gets_the_bytes_of_the_plain_loop(digits):
    machines = Machines(servers=1, shards=2, workers=2, threads=2)
    world = {"compute": "lognormal:20ms,0.5 w1=x3", "network": LAN, "faults": "lose=1%", "seed": 3}
    run = in_virtual_time(digits, world, machines)
    spec = digits.spec
    [*_, last] = train_sequentially(
        parse_consistency(spec.consistency),
        build_optimizer(spec.optimizer, spec.learning_rate, spec.schedule, spec.versions_total),
        digits.initial(),
        [digits.step(rank) for rank in range(4)],
        digits.steps,
    )
    assert run.weights_sha256 == tensors_sha256(last.weights)


def test_a_virtual_run_has_the_summary_of_a_real_one():
    run = simulate("exponential:10ms", LAN, steps=25, consistency="ssp:2")
    summary = summarise(
        run.status, run.versions, weights_sha256=run.weights_sha256, wall_seconds=run.seconds, engine="sim"
    )
    assert (summary["outcome"], summary["engine"], summary["notes"]) == ("finished", "sim", [])
    assert summary["samples"]["applied"] == summary["samples"]["computed"] == 100
    assert summary["clock_gap"]["max"] <= summary["clock_gap"]["bound"] == 2
    assert summary["time_budget"]["total"]["compute"] > 30
    assert sum(summary["time_budget"]["total"].values()) == 100


def test_a_job_ends_when_its_target_is_reached():
    def score(weights, version, rounds):
        return Score("validation", version, rounds, 0.0, min(1.0, rounds / 40), 1)

    run = simulate("10ms", steps=1000, shards=2, target_accuracy=0.5, watch=Watch(50_000_000, score))
    assert run.reason == ""
    assert run.scores[-1][1].accuracy >= 0.5
    assert [when for when, _ in run.scores] == [50_000_000 * n for n in range(1, len(run.scores) + 1)]
    assert max(run.versions) < 30


def test_a_lost_wake_up_is_found_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(ParkingLot, "wake", lambda self, frontier: [])
    with pytest.raises(JobError, match=r"Nothing can happen any more.*worker0/0 training"):
        simulate("exponential:10ms", LAN, steps=10, consistency="ssp:1", step_timeout_seconds=20)
