"""A server for as long as a ``with`` block."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw import SECONDS

from paramserver import connect, observe, serve
from paramserver.client import Connection
from paramserver.errors import JobError, RequestError

WEIGHTS = {"w": np.zeros(4, np.float32)}


def is_gone(address: str) -> bool:
    with Connection(address) as connection:
        try:
            connection.status(repeat=False)
        except JobError:
            return True
        return False


def test_it_waits_for_the_end_of_the_job_and_keeps_what_it_left(tmp_path: Path) -> None:
    with (
        serve(shards=2, out=tmp_path / "run") as address,
        connect(address, weights=WEIGHTS, lr=1.0) as replica,
        observe(address),
    ):
        replica.pull()
        replica.push({"w": np.ones(4)}, samples=1)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["outcome"], summary["versions"]) == ("finished", [1, 1])
    assert is_gone(address)


def test_a_job_that_failed_is_an_error_even_if_the_block_went_well() -> None:
    def failing(address: str) -> None:
        with connect(address, weights=WEIGHTS):
            raise ZeroDivisionError("by hand")

    def served() -> None:
        with serve() as address, pytest.raises(ZeroDivisionError):
            failing(address)

    with pytest.raises(
        JobError, match="Replica 0 failed: Its training loop raised ZeroDivisionError: by hand"
    ):
        served()


def test_a_block_that_raises_stops_it_and_keeps_its_error() -> None:
    addresses = []

    def served() -> None:
        with serve() as address:
            addresses.append(address)
            connect(address, weights=WEIGHTS, replicas=2)  # never leaves
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        served()
    assert is_gone(addresses[0])


def test_without_a_job_it_is_stopped() -> None:
    with serve() as address:
        assert not is_gone(address)
    assert is_gone(address)


def test_it_ends_with_the_process_that_started_it() -> None:
    program = (
        "import os, signal\n"
        "from paramserver import serve\n"
        "with serve() as address:\n"
        "    print(address, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address
        # The server has inherited nothing of this pipe, so it would not keep it open.
        assert process.stdout.read() == ""
        process.wait(SECONDS)
    deadline = time.monotonic() + SECONDS
    while not is_gone(address):
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("arguments", "sentence"), [({"out": "file"}, "file cannot be made"), ({"shards": 0}, "a number from 1")]
)
def test_what_it_cannot_do_is_its_own_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(RequestError, match=sentence), serve(**arguments):
        pass


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paramserver.own_server.START_SECONDS", 0.2)
    silent = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    monkeypatch.setattr("paramserver.own_server.command", lambda program, options: silent)
    with pytest.raises(JobError, match=r"it said nothing within 0\.2 s"), serve():
        pass
