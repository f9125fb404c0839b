"""Worlds in which anything may go wrong at any time: every job ends, and accounts for every sample.

Each seed is a world of its own: a rule, what a death means, machines, samples that are dealt out or not, and
faults of every kind, many of them at one time. The auditors look at every event, and a job of rounds ends
with the bytes of one plain loop. A seed that fails says how it can be seen again.
"""

import json
import shlex
from collections import Counter
from dataclasses import replace

import pytest
from judging import check_world, judge, let_happen
from random_worlds import (
    BLOWS,
    BYTES,
    COMES_AND_GOES,
    TIMES,
    RandomWorld,
    draw_rounds_with_lost_servers,
    draw_world,
)

from paramserver.cli import main
from paramserver.coordinator import Coordinator
from paramserver.events import CheckpointWritten
from paramserver.sim import Machines, Simulation, parse_problem
from paramserver.sim.checkpoints import Checkpoints

SEEDS = 10_000


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_every_job_ends_and_accounts_for_everything(first):
    for seed in range(first, first + 50):
        judge(seed)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_rounds_survive_the_loss_of_servers_and_workers_at_one_time(first):
    for seed in range(first, first + 20):
        assert judge(seed, draw_rounds_with_lost_servers) == ""


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(200, SEEDS, 100))
def test_every_job_ends_and_accounts_for_everything_many_times(first):
    for seed in range(first, first + 100):
        judge(seed)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(60, 1060, 100))
def test_rounds_survive_the_loss_of_servers_many_times(first):
    for seed in range(first, first + 100):
        assert judge(seed, draw_rounds_with_lost_servers) == ""


# ----------------------------------------------------------------- what went wrong once, and does no more


# 41: the coordinator's timer stood still in the past while a server was lost. 136: a newcomer between the
# loss and the new generation. 626: a replica that came or left while servers were missing. 1935: a newcomer
# that asked a second time before the new generation had begun. 106: a worker that was started anew by then.
# 3543: what a newcomer was dealt after the checkpoint that all went back to, and had not done. 4230: one that
# had been away at the checkpoint of a round, and was back when all went back to it.
FAILED_ONCE = [
    RandomWorld(
        41, "ssp:0", "drop", Machines(3, 2, 3, 1), 35, 0, 32, 3,
        "lose=2% join=w3@431ms pause=s1@34ms+5000ms crash=s0@1424ms+1500ms partition=w0@776ms+3000ms",
    ),
    RandomWorld(
        136, "async", "restart", Machines(3, 1, 4, 1), 24, 0, 32, 3,
        "lose=4% duplicate=2% reorder=5%+5ms join=w4@62ms crash=s0@1123ms+300ms pause=s1@674ms+1500ms "
        "join=w5@1495ms",
    ),
    RandomWorld(
        626, "async", "drop", Machines(2, 1, 2, 2), 28, 0, 16, 3,
        "duplicate=2% delay=5%+50ms..400ms crash=s1@364ms leave=w0@508ms crash=s0@715ms+3000ms",
    ),
    RandomWorld(
        1935, "sync", "drop", Machines(1, 1, 1, 2), 45, 0, 16, 3,
        "duplicate=4% delay=2%+50ms..400ms reorder=1%+5ms join=w1@936ms crash=s0@1017ms+1500ms "
        "pause=s0@187ms+1500ms pause=s0@836ms+5000ms",
    ),
    RandomWorld(
        106, "ssp:2", "drop", Machines(3, 1, 1, 2), 48, 0, 4, 10,
        "lose=3% reorder=2%+5ms crash=s2@63ms+900ms pause=s1@947ms+2500ms crash=w0@2948ms+300ms "
        "crash=s0@3449ms+5000ms crash=w0@3449300us+1ms",
    ),
    RandomWorld(
        3543, "ssp:0", "drop", Machines(3, 1, 1, 1), 180, 6, 8, 3,
        "duplicate=1% delay=5%+50ms..400ms leave=w0@2264ms join=w1@1220ms join=w2@824ms "
        "crash=s2@2897ms+2500ms",
    ),
    RandomWorld(
        4230, "sync", "drop", Machines(2, 2, 3, 1), 70, 7, 10, 10,
        "lose=3% partition=w2@607ms+1500ms crash=s1@2617ms+5000ms crash=w1@608ms+900ms "
        "partition=w1@7618ms+4000ms join=w3@216ms join=w4@11623ms",
    ),
]  # fmt: skip


@pytest.mark.parametrize("world", FAILED_ONCE, ids=lambda world: str(world.seed))
def test_a_world_that_failed_once_does_not_fail_again(world):
    check_world(world)


def lost_coordinator(at_us: int = 0) -> RandomWorld:
    """Return a job of dealt rounds whose coordinator ends at a moment and comes back; at 0 it does not."""
    faults = f"crash=s0@{at_us}us+300ms" if at_us else "crash=s1@1000s+1s"
    return RandomWorld(1, "sync", "restart", Machines(2, 1, 2, 2), 75, 10, 10, 10, faults)


def checkpoints_whole_at(monkeypatch) -> list[int]:
    """Return when checkpoints become whole in that job where nothing goes wrong, in microseconds."""
    moments, whole = [], Checkpoints._whole

    def note(self, which):
        moments.append(self._heap.now // 1000)
        whole(self, which)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "_whole", note)
        check_world(lost_coordinator())
    return moments


def test_a_coordinator_may_end_when_a_checkpoint_has_just_become_whole(monkeypatch):
    moments = checkpoints_whole_at(monkeypatch)
    assert len(moments) >= 8
    for moment in moments[:8]:
        assert check_world(lost_coordinator(moment + 1000)) == ""
    # A test of the test: if what was dealt is not written down by then, the weights come out wrong.
    handle = Coordinator.handle
    monkeypatch.setattr(
        Coordinator,
        "handle",
        lambda self, event, now: [] if isinstance(event, CheckpointWritten) else handle(self, event, now),
    )
    with pytest.raises(AssertionError, match="not those of one plain loop"):
        check_world(lost_coordinator(moments[1] + 1000))


# ---------------------------------------------------------------------------------------------- of the tests


@pytest.mark.parametrize("world", [FAILED_ONCE[1], draw_world(1)], ids=lambda world: str(world.seed))
def test_the_command_shows_the_same(world, tmp_path):
    world = replace(world, epochs=0)
    machines = world.machines
    problem = parse_problem(f"timing:{BYTES}B", machines.shards_in_all)
    changes = {"consistency": world.rule, "on_death": world.on_death, "restarts_max": world.restarts_max}
    changes |= {"checkpoint_updates": world.checkpoint_every, **TIMES}
    spec = problem.spec(world.steps, machines, **changes)
    run = Simulation(world.world, machines, spec, problem.task(world.steps, machines)).run()
    with pytest.raises(SystemExit):
        main([*shlex.split(world.command())[1:], "--out", str(tmp_path / "run"), "--quiet"])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["wall_seconds"] == pytest.approx(run.seconds, abs=1e-9)
    assert summary["generation"] == run.status.generation


def test_what_may_go_wrong_does_go_wrong():
    # Among these seeds jobs end well and badly, servers are lost, and every kind of fault is there.
    kinds, ends, generations = Counter(), Counter(), 0
    worlds = [draw_world(seed) for seed in range(150)]
    for world in worlds:
        kinds.update(world.kinds)
    for world in worlds[:30]:
        run = let_happen(world)
        ends[run.reason == ""] += 1
        generations = max(generations, run.status.generation)
    chances = {"lose", "duplicate", "delay", "reorder"}
    assert set(kinds) == chances | {*BLOWS, *COMES_AND_GOES}
    assert kinds["server crash"] > 50
    assert generations >= 2
    assert min(ends[True], ends[False]) > 0
    assert sum(bool(world.epochs) for world in worlds) > 50
    assert sum(world.must_finish and bool(world.faults) for world in worlds) > 10
