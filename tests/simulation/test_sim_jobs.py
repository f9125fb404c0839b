"""Whole jobs in virtual time: real data and models, summaries, targets, and a core that has a mistake."""

import numpy as np
import pytest
from virtual import LAN, simulate

from paramserver.consistency import parse_consistency
from paramserver.errors import JobError
from paramserver.events import Score
from paramserver.job import Job
from paramserver.optim import build_optimizer
from paramserver.parking import ParkingLot
from paramserver.sequential import train_sequentially
from paramserver.sim import Machines, Simulation, Task, Watch, parse_problem, world_from_mapping
from paramserver.summary import summarise
from paramserver.types import tensors_sha256
from paramserver.workload import load_workload


@pytest.fixture(scope="module")
def digits():
    return load_workload(Job(epochs=1, batch=64, workers=2, threads=2, shards=2).resolved())


def in_virtual_time(work, world, machines, dealt_step=None, **options):
    task = Task(work.steps, work.step, work.initial, dealt_step=dealt_step)
    return Simulation(world_from_mapping(world, "a test"), machines, work.spec, task, **options).run()


@pytest.mark.parametrize("deals", [False, True], ids=["by rank", "by the coordinator"])
def test_a_real_model_on_real_data_gets_the_bytes_of_the_plain_loop(digits, deals):
    machines = Machines(servers=1, shards=2, workers=2, threads=2)
    world = {"compute": "lognormal:20ms,0.5 w1=x3", "network": LAN, "faults": "lose=1%", "seed": 3}
    run = in_virtual_time(digits, world, machines, dealt_step=digits.step if deals else None)
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


def test_a_watch_may_say_when_it_looks_next_and_need_not_judge():
    looks = []

    def next_ns(now, version):
        looks.append((now, version))
        return now + 20_000_000

    run = simulate("10ms", steps=10, watch=Watch(5_000_000, lambda *_: None, next_ns))
    # An observer of a synchronous job sees the round before the newest, which every shard has.
    assert looks == [(5_000_000, 0)] + [(n * 1_000_000, n // 10 - 1) for n in (25, 45, 65, 85)]
    assert run.scores == ()


def test_whoever_checks_can_end_a_run_and_see_how_far_it_has_come():
    problem, machines = parse_problem("timing"), Machines(workers=4)
    world = world_from_mapping({"compute": "10ms", "network": "ideal"}, "a test")

    def check():
        raise KeyboardInterrupt

    spec, task = problem.spec(1000, machines), problem.task(1000, machines)
    simulation = Simulation(world, machines, spec, task, check=check)
    with pytest.raises(KeyboardInterrupt):
        simulation.run()
    so_far = simulation.result()
    assert 0 < so_far.versions[0] < 1000
    assert so_far.ended_ns == simulation.now_ns > 0
    assert so_far.cuts[0].snapshot.version == so_far.versions[0] + 1, "an observer sees the round before"


def test_a_checkpoint_of_a_virtual_run_has_its_weights_and_the_state_of_its_optimizer():
    run = simulate("10ms", problem="quadratic:1", steps=20, shards=2, optimizer="momentum:0.9")
    assert [cut.snapshot.version for cut in run.cuts] == [20, 20]
    values = [value for cut in run.cuts for value in cut.snapshot.values.values()]
    assert np.concatenate(values).tobytes() == run.weights["w"].tobytes()
    states = [array for cut in run.cuts for state in cut.state.values() for array in state.values()]
    assert len(states) == 2
    assert all(array.any() for array in states)


def test_the_weights_of_a_timing_weigh_what_is_said():
    network = "latency=0s bandwidth=8Mbit/s server=unlimited rpc=0s lock=0s lock-per-byte=0s"
    run = simulate("10ms", network, problem=parse_problem("timing:1kB"), workers=1, steps=1)
    # 1,000 bytes and a header of 100, for a byte a microsecond: a pull, a push, and the last pull.
    [step] = run.steps
    assert step.pushed_ns - step.pulled_ns == 10_000_000 + 1_100_000 + 100_000


def test_a_lost_wake_up_is_found_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(ParkingLot, "wake", lambda self, frontier: [])
    with pytest.raises(JobError, match=r"Nothing can happen any more.*worker0/0 training"):
        simulate("exponential:10ms", LAN, steps=10, consistency="ssp:1", step_timeout_seconds=20)


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:1"])
@pytest.mark.parametrize(
    "faults", ["", "join=w2@50ms", "join=w2@50ms leave=w0@120ms", "crash=w1@70ms", "crash=w1@70ms+100ms"]
)
def test_every_sample_is_seen_whoever_comes_and_goes(consistency, faults):
    job = Job(
        workers=2,
        threads=2,
        batch=64,
        epochs=3,
        model="softmax",
        consistency=consistency,
        on_death="drop",
        lease_seconds=0.06,
    )
    work = load_workload(job.resolved())
    world = {"compute": "10ms", "network": "ideal", "faults": faults}
    run = in_virtual_time(work, world, Machines(workers=2, threads=2, shards=2), dealt_step=work.step)
    assert run.reason == ""
    assert [(one.unseen, one.repeated) for one in run.status.visits] == [(0, 0)] * job.epochs
