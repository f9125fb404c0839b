"""Jobs whose processes are killed at random points, and what must hold afterwards.

A plan is drawn from a seed alone: which job, who is killed, and after how many steps. What the job is doing
then (pulling, pushing, waiting in a barrier, writing a checkpoint) is up to the moment within the step.
"""

from __future__ import annotations

import random
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from by_hand import ByHand, Program

LEASE_SECONDS = 2.0
GRACE_SECONDS = 2 * LEASE_SECONDS + 15.0
"""No job that can go on goes without progress for longer."""

EPOCHS = 12
STEPS = EPOCHS * 44  # of all four replicas together


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill.

    Attributes:
        victim: worker or launcher.
        consistency: of the job.
        steps: how many steps all replicas have finished by then.
        within_seconds: so much later it happens: somewhere within a step.
    """

    victim: str
    consistency: str
    steps: int
    within_seconds: float

    def __str__(self) -> str:
        return f"{self.victim}, {self.consistency}, {self.steps} steps + {self.within_seconds * 1000:.0f} ms"


def draw_kills(seed: int, count: int) -> list[Kill]:
    """Draw so many kills, in which every victim and every mode takes its turn."""
    rng = random.Random(seed)
    turns = [
        (victim, mode) for mode in ("sync", "async", "ssp:2") for victim in ("worker", "worker", "launcher")
    ]
    kills = []
    for number in range(count):
        victim, mode = turns[number % len(turns)]
        kills.append(Kill(victim, mode, rng.randrange(STEPS // 2), rng.uniform(0, 0.05)))
    return kills


def job_text(kill: Kill) -> str:
    """Return the job file of a job whose dead are dropped."""
    return (
        f'epochs = {EPOCHS}\nworkers = 2\nthreads = 2\nshards = 2\nconsistency = "{kill.consistency}"\n'
        f'on_death = "drop"\nlease_seconds = {LEASE_SECONDS}\n'
    )


def run_worker_kill(kill: Kill, folder: Path) -> None:
    """Kill one of two workers; the other one must finish the job, with every push applied at most once."""
    with ByHand(folder, job_text(kill)) as cluster:
        server = cluster.server(0, 1, "--score-grace-seconds", "0")
        workers = [cluster.worker(0), cluster.worker(1)]
        cluster.until(lambda: cluster.steps() >= max(1, kill.steps) or server.process.poll() is not None)
        select.select([], [], [], kill.within_seconds)
        workers[1].process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        steps, moved = cluster.steps(), killed
        while server.process.poll() is None:
            now = time.monotonic()
            if cluster.steps() > steps:
                steps, moved = cluster.steps(), now
            assert now < moved + GRACE_SECONDS, f"No step for {now - moved:.0f} s after the kill: {kill}."
            select.select([], [], [], 0.1)
        assert _code(server) == 0
        assert _code(workers[0]) == 0
        summary = cluster.summary()
    assert summary["outcome"] == "finished", summary["reason"]
    gradients, versions = summary["gradients"], summary["versions"]
    if kill.consistency == "sync":
        assert versions == [summary["rounds"]] * 2
    else:
        # Of the dead one at most the pushes under way at its death are not in its last heartbeat.
        assert max(versions) <= STEPS
        assert abs(versions[0] - versions[1]) <= 2
        assert sum(summary["staleness"]["histogram"].values()) <= max(versions)
    assert gradients["applied"] <= gradients["computed"]


def _code(program: Program) -> int:
    return program.process.wait(GRACE_SECONDS)
