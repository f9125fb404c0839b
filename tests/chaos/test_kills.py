"""Kill -9 at random points: the job goes on or ends in time, nothing counts twice, no process is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kills import EPOCHS, GRACE_SECONDS, LEASE_SECONDS, Kill, draw_kills, run_worker_kill

SEED = 20


def test_three_kills(tmp_path: Path) -> None:
    for number, kill in enumerate(draw_kills(SEED, 3)):
        strike(kill, tmp_path / f"{number}")


@pytest.mark.chaos
@pytest.mark.timeout(0)
def test_many_kills(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    count = request.config.getoption("--kills")
    for number, kill in enumerate(draw_kills(SEED + 1, count)):
        began = time.monotonic()
        strike(kill, tmp_path / f"{number}")
        print(f"{number + 1} of {count}: {kill}: well after {time.monotonic() - began:.1f} s")


def strike(kill: Kill, folder: Path) -> None:
    """Run the job of a kill in a folder, and look at what is left."""
    folder.mkdir()
    if kill.victim == "worker":
        run_worker_kill(kill, folder)
    else:
        run_launcher_kill(kill, folder)


def run_launcher_kill(kill: Kill, folder: Path) -> None:
    """Kill who started the processes: they must all end."""
    out = folder / "out"
    options = ["--epochs", f"{EPOCHS * 1000}", "--consistency", kill.consistency, "--out", str(out)]
    options += ["--lease-seconds", f"{LEASE_SECONDS}", "--quiet"]
    command = [sys.executable, "-P", "-m", "paramserver", "train", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as launcher:
        diary = out / "metrics.jsonl"
        try:
            wait_for(lambda: launcher.poll() is not None or trains(diary))
            assert launcher.poll() is None, launcher.communicate()
            select.select([], [], [], kill.within_seconds)
            assert processes(folder)
        finally:
            os.kill(launcher.pid, signal.SIGKILL)
    wait_for(lambda: not processes(folder))


def wait_for(condition: Callable[[], object], seconds: float = GRACE_SECONDS + 30) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        select.select([], [], [], 0.05)


def processes(folder: Path) -> list[int]:
    """Return the processes of this folder's runs."""
    command = ["ps", "-A", "-ww", "-o", "pid=,args="]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if f"{folder}/" in line and " -m " in line]


def trains(diary: Path) -> bool:
    """Say whether training has begun."""
    return diary.exists() and "progress" in diary.read_text()
