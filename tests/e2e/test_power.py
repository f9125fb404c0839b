"""Loss of power: what the coordinator took for kept is there, and nothing half is under a final name."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from fleet import SECONDS, Fleet

from paramserver.client import Connection
from paramserver.events import JobSpec, TensorSpec
from paramserver.storage import newest_checkpoint, read_checkpoint, read_job_record
from paramserver.training import Step
from worker.pool import Pool
from worker.replica import Task

pytestmark = pytest.mark.chaos

SPECS = (TensorSpec("bias", (3,)), TensorSpec("table", (9, 2), table=True), TensorSpec("w", (8, 5)))
REPLICAS, BATCHES, EPOCHS, BATCH = 3, 20, 3, 8
STEPS = BATCHES * EPOCHS


def job(consistency: str) -> JobSpec:
    return JobSpec(
        SPECS,
        consistency=consistency,
        learning_rate=0.5,
        replicas=REPLICAS,
        replicas_max=REPLICAS,
        samples=REPLICAS * BATCHES * BATCH,
        batch=BATCH,
        epochs=EPOCHS,
        lease_seconds=SECONDS,
        restarts_max=100,
        checkpoint_updates=5 if consistency == "sync" else 15,
    )


def gradient(rank: int, clock: int) -> dict[str, np.ndarray]:
    """Return whole numbers, so that a sum is the same in any order."""
    rng = np.random.default_rng([rank, clock])
    return {spec.key: rng.integers(-4, 5, spec.shape).astype(np.float32) for spec in SPECS}


def train(address: str, index: int, consistency: str, turn: threading.Semaphore) -> None:
    def step(rank, next_part):
        dealt = None

        def batch_at(clock):
            nonlocal dealt
            if dealt is None or clock >= dealt.end:
                dealt = next_part(clock)
            return None if dealt is None else clock

        def compute(values, clock):
            turn.release()
            return 0.0, gradient(rank, clock), BATCH

        return Step(batch_at=batch_at, gradient=compute)

    def initial():
        return {spec.key: np.zeros(spec.shape, np.float32) for spec in SPECS}

    with Connection(address) as connection:
        Pool(connection, job(consistency), Task(step, initial), [f"worker{index}/0"], SECONDS).run()


def lose_power(fleet: Fleet, chance: random.Random | None) -> int:
    """Cut the power; see that what was taken for kept is there, and that nothing is half."""
    before = read_job_record(fleet.out)
    lost = fleet.lose_power(chance)
    after = read_job_record(fleet.out)
    assert after.orders <= before.orders  # it may have ended while it wrote the newer one
    if before.kept is None:
        return lost
    number, problems = newest_checkpoint(fleet.out, after)
    assert number >= before.kept.checkpoint
    if chance is None:
        assert not problems
        for manifest in fleet.out.glob("checkpoints/*/manifest.json"):
            read_checkpoint(manifest.parent)
    return lost


def run(folder: Path, consistency: str, cuts: int, seed: int, *, all_lost: bool = True) -> Fleet:
    """Train, and cut the power after some steps each; return when the servers have ended well."""
    fleet, raised, turn = Fleet(folder), [], threading.Semaphore(0)

    def work(index: int) -> None:
        try:
            train(fleet.addresses[0], index, consistency, turn)
        except BaseException as error:
            raised.append(error)
            for _ in range(STEPS * REPLICAS):
                turn.release()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(REPLICAS)]
    chance, lost = random.Random(seed), 0
    try:
        for thread in threads:
            thread.start()
        for _ in range(cuts):
            for _ in range(chance.randrange(1, STEPS * REPLICAS // (cuts + 1))):
                assert turn.acquire(timeout=SECONDS)
            fleet.end(0, 1)
            lost += lose_power(fleet, None if all_lost else chance)
            for server in (0, 1):
                fleet.start(server, "--recover")
        for thread in threads:
            thread.join(SECONDS)
        assert not raised, raised
        assert fleet.wait() == [0, 0]
        assert lost or not cuts, "there was nothing to lose, so nothing was tried"
    finally:
        print(fleet.close())
    return fleet


def sha256(fleet: Fleet) -> str:
    return str(json.loads((fleet.out / "summary.json").read_text())["weights_sha256"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    return sha256(run(tmp_path_factory.mktemp("undisturbed"), "sync", 0, 0))


@pytest.mark.parametrize("all_lost", [True, False], ids=["all", "some"])
def test_in_sync_the_weights_are_those_of_an_undisturbed_run(tmp_path, undisturbed, all_lost):
    assert sha256(run(tmp_path, "sync", 3, 0, all_lost=all_lost)) == undisturbed


@pytest.mark.parametrize("all_lost", [True, False], ids=["all", "some"])
def test_in_async_every_step_is_in_the_weights_once(tmp_path, all_lost):
    fleet = run(tmp_path, "async", 3, 2, all_lost=all_lost)
    found = read_checkpoint(fleet.out / "checkpoint")
    every = [gradient(rank, clock) for rank in range(REPLICAS) for clock in range(STEPS)]
    for spec in SPECS:
        np.testing.assert_array_equal(found.weights[spec.key], -0.5 * sum(each[spec.key] for each in every))
