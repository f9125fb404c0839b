"""``--trace FILE`` of the two programs, where there is little or nothing to record."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from raw import SECONDS, ServerProcess, wait_serving

from paramserver.diaries import shard_row
from paramserver.tracing import read_chrome_trace, read_trace_notes


def run(*command: str) -> tuple[int, str]:
    """Run a program that ends by itself; return its exit code and its stderr."""
    program = [sys.executable, "-P", "-m", *command]
    done = subprocess.run(program, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.returncode, done.stderr


@pytest.fixture
def worker(tmp_path: Path) -> list[str]:
    """The command line of a worker that finds no server."""
    (tmp_path / "job.toml").write_text('data = "digits"\n')
    options = ["--connect", "127.0.0.1:1", "--job", str(tmp_path / "job.toml"), "--join-timeout-seconds", "0"]
    return ["worker", *options]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, worker: list[str]) -> None:
    trace = tmp_path / "none" / "trace.json"
    for command in (["server"], worker):
        code, sentence = run(*command, "--trace", str(trace))
        assert code == 2
        assert f"there is no folder {trace.parent}." in sentence


def test_an_evaluator_has_nothing_to_record(tmp_path: Path, worker: list[str]) -> None:
    code, sentence = run(*worker, "--evaluate", "--trace", str(tmp_path / "trace.json"))
    assert code == 2
    assert "Leave --trace out." in sentence


def test_a_worker_that_fails_leaves_what_it_has(tmp_path: Path, worker: list[str]) -> None:
    code, _ = run(*worker, "--threads", "1", "--trace", str(tmp_path / "trace.json"))
    assert code == 1
    rows, records = read_chrome_trace((tmp_path / "trace.json").read_bytes())
    assert ([row.thread for row in rows], records) == (["worker0/0"], ())


def test_a_server_that_is_stopped_leaves_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with ServerProcess("--shards", "2", "--trace", str(path)) as server:
        wait_serving(server)
        assert not path.exists()
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 143
    data = path.read_bytes()
    assert read_chrome_trace(data) == ((shard_row(0, 0), shard_row(0, 1)), ())
    assert "training_began_ns" not in read_trace_notes(data)
