"""``durability journal``: whatever was acknowledged survives the end of any and every server."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from fleet import SECONDS, Fleet

from paramserver.client import Connection
from paramserver.events import JobSpec, Outcome, TensorSpec
from paramserver.storage import read_checkpoint
from paramserver.storage.journal import Replay, read_journal

pytestmark = pytest.mark.chaos

SPECS = (TensorSpec("bias", (3,)), TensorSpec("table", (9, 2), table=True), TensorSpec("w", (8, 5)))
STEPS, REPLICAS = 60, 3


def job(consistency: str) -> JobSpec:
    return JobSpec(
        SPECS,
        consistency=consistency,
        learning_rate=0.5,
        replicas=REPLICAS,
        replicas_max=REPLICAS,
        lease_seconds=SECONDS,
        restarts_max=100,
        checkpoint_updates=25,
        durability="journal",
    )


def gradient(rank: int, clock: int) -> dict[str, np.ndarray]:
    """Return whole numbers, so that a sum is the same in any order."""
    rng = np.random.default_rng([rank, clock])
    return {spec.key: rng.integers(-4, 5, spec.shape).astype(np.float32) for spec in SPECS}


def train(address: str, index: int, consistency: str, acknowledged: list[tuple[int, int]], turn) -> None:
    with Connection(address) as connection:
        replica = connection.join(f"w{index}", job(consistency), SECONDS)
        rank = replica.granted.replica.rank
        if index == 0:
            replica.initialise({spec.key: np.zeros(spec.shape, np.float32) for spec in SPECS})
        for clock in range(STEPS):
            replica.pull(clock)
            verdict = replica.push(clock, gradient(rank, clock), 8)
            assert verdict.outcome in (Outcome.APPLIED, Outcome.BUFFERED), verdict
            acknowledged.append((rank, clock))
            turn.release()
        replica.pull(STEPS)
        replica.leave()


def run(
    folder: Path, consistency: str, kills: int, power: bool = False
) -> tuple[Fleet, list[tuple[int, int]]]:
    """Train, and kill servers after some steps each; return when the servers have ended well."""
    fleet, acknowledged, raised = Fleet(folder), [], []
    turn = threading.Semaphore(0)

    def work(index: int) -> None:
        try:
            train(fleet.addresses[0], index, consistency, acknowledged, turn)
        except BaseException as error:
            raised.append(error)
            for _ in range(STEPS * REPLICAS):
                turn.release()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(REPLICAS)]
    try:
        for thread in threads:
            thread.start()
        choice = random.Random(kills)
        for _ in range(kills):
            for _ in range(choice.randrange(1, STEPS * REPLICAS // (kills + 2))):
                assert turn.acquire(timeout=SECONDS)
            servers = (0, 1) if power else choice.choice([(0,), (1,), (0, 1)])
            fleet.end(*servers)
            if power:
                fleet.lose_power()
            for server in servers:
                fleet.start(server, "--recover")
        for thread in threads:
            thread.join(SECONDS)
        assert not raised, raised
        assert fleet.wait() == [0, 0]
    finally:
        text = fleet.close()
        print(text)
    assert "cannot go on from its journal" not in text
    assert "goes on from checkpoint" not in text
    return fleet, acknowledged


def expected() -> dict[str, np.ndarray]:
    every = [gradient(rank, clock) for rank in range(REPLICAS) for clock in range(STEPS)]
    return {spec.key: -0.5 * sum(each[spec.key] for each in every) for spec in SPECS}


def check(fleet: Fleet, acknowledged: list[tuple[int, int]], consistency: str) -> None:
    assert sorted(acknowledged) == [(rank, clock) for rank in range(REPLICAS) for clock in range(STEPS)]
    for shard in range(4):
        segments = read_journal(fleet.out / "journal" / f"shard-{shard:04d}")
        assert not [each for each in Replay(shard).run(segments) if each.differs]
    if consistency != "sync":
        found = read_checkpoint(fleet.out / "checkpoint")
        assert set(found.versions) == {STEPS * REPLICAS}
        for key, value in expected().items():
            np.testing.assert_array_equal(found.weights[key], value)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    fleet, acknowledged = run(tmp_path_factory.mktemp("undisturbed"), "sync", 0)
    check(fleet, acknowledged, "sync")
    return sha256(fleet)


def sha256(fleet: Fleet) -> str:
    return str(json.loads((fleet.out / "summary.json").read_text())["weights_sha256"])


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power"])
def test_in_sync_the_weights_are_those_of_an_undisturbed_run(tmp_path, undisturbed, power):
    fleet, acknowledged = run(tmp_path, "sync", 4, power)
    check(fleet, acknowledged, "sync")
    assert sha256(fleet) == undisturbed


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power"])
@pytest.mark.parametrize("consistency", ["async", "ssp:2"])
def test_every_push_counts_once(tmp_path, consistency, power):
    fleet, acknowledged = run(tmp_path, consistency, 4, power)
    check(fleet, acknowledged, consistency)
