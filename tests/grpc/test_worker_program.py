"""The worker program as a process: its exit codes, its one sentence, and how it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw import SECONDS, ServerProcess

from paramserver.client import Connection


class Worker:
    """One worker process. Leaves nothing behind."""

    def __init__(self, folder: Path, job: str, address: str, *options: str, stdin: int | None = None) -> None:
        (folder / "job.toml").write_text(job)
        command = [sys.executable, "-P", "-m", "worker", "--connect", address]
        self.process = subprocess.Popen(
            [*command, "--job", str(folder / "job.toml"), *options],
            stdin=stdin,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )

    def end(self) -> tuple[int, list[str]]:
        """Wait for its end, and return its exit code and its lines."""
        _, text = self.process.communicate(timeout=SECONDS)
        assert "Traceback" not in text
        return self.process.returncode, text.splitlines()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--shards", "2") as process:
        yield process


def test_two_workers_and_an_evaluator_end_well(server: ServerProcess, tmp_path: Path) -> None:
    job = 'epochs = 1\nconsistency = "sync"'
    with (
        Worker(tmp_path, job, server.address, "--evaluate") as evaluator,
        Worker(tmp_path, job, server.address, "--worker", "0") as one,
        Worker(tmp_path, job, server.address, "--worker", "1") as two,
    ):
        for worker, name in ((one, "worker0"), (two, "worker1")):
            code, lines = worker.end()
            assert code == 0
            assert lines[-1].endswith(f"INFO {name}: All steps are done.")
        code, lines = evaluator.end()
        assert code == 0
        assert "test accuracy" in lines[-1]
    assert server.wait() == 0


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ("epoch = 3", "There is no key 'epoch' in a job, but the job file"),
        ('data = "nowhere.npz"', "There is no file nowhere.npz."),
        ('model = "mpl:3"', "The model 'mpl:3' is unknown"),
        ("batch = ", "is not valid TOML"),
        ("workers = 2000", "samples are too few for 4000 replicas"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_code_2(tmp_path: Path, job: str, sentence: str) -> None:
    with Worker(tmp_path, job, "127.0.0.1:1") as worker:
        code, lines = worker.end()
    assert code == 2
    assert len(lines) == 1
    assert sentence in lines[0]


def test_a_job_file_that_is_not_there(tmp_path: Path) -> None:
    with Worker(tmp_path, "", "127.0.0.1:1", "--job", str(tmp_path / "nowhere.toml")) as worker:
        code, lines = worker.end()
    assert code == 2
    assert len(lines) == 1
    assert "nowhere.toml cannot be read" in lines[0]


@pytest.mark.parametrize("options", [(), ("--evaluate",)])
def test_an_unreachable_server_ends_with_one_sentence_and_code_1(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    with Worker(tmp_path, "", "127.0.0.1:1", "--join-timeout-seconds", "0.1", *options) as worker:
        code, lines = worker.end()
    assert code == 1
    assert len(lines) == 1
    assert "could not join the job at 127.0.0.1:1 within 0.1 s" in lines[0]


def test_a_misspelt_option_is_answered_with_the_near_one(tmp_path: Path) -> None:
    with Worker(tmp_path, "", "127.0.0.1:1", "--thread", "3") as worker:
        code, lines = worker.end()
    assert code == 2
    assert "There is no option '--thread'. Did you mean '--threads'?" in lines[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_a_worker_that_waits(
    server: ServerProcess, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with Worker(tmp_path, "", server.address) as worker, Connection(server.address) as connection:
        _until_waiting(connection)
        worker.process.send_signal(number)
        found, lines = worker.end()
    assert found == code
    assert lines[-1].endswith(f"WARNING worker0: It was stopped by {number.name}.")


def test_a_signal_stops_a_worker_that_tries_to_join(tmp_path: Path) -> None:
    with (
        ServerProcess("--servers", "2") as server,  # the second one never comes
        Worker(tmp_path, "", server.address, "--log-level", "debug") as worker,
    ):
        assert worker.process.stderr is not None
        while "Joining the job" not in worker.process.stderr.readline():
            assert worker.process.poll() is None
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(SECONDS) == 143


def test_a_worker_ends_with_its_parent(server: ServerProcess, tmp_path: Path) -> None:
    with (
        Worker(tmp_path, "", server.address, "--exit-with-parent", stdin=subprocess.PIPE) as worker,
        Connection(server.address) as connection,
    ):
        _until_waiting(connection)
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        worker.process.stdin = None
        code, lines = worker.end()
    assert code == 1
    assert lines[-1].endswith("The process that started it has ended.")


def test_numpy_is_loaded_after_the_options_are_read() -> None:
    """It reads the number of its threads from the environment once, when it is loaded."""
    script = "import sys, worker.__main__, worker.options; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("environment", "expected"), [({}, "3"), ({"OPENBLAS_NUM_THREADS": "7"}, "7")], ids=["job", "user"]
)
def test_blas_threads_are_those_of_the_job_unless_the_user_says_otherwise(
    tmp_path: Path, environment: dict[str, str], expected: str
) -> None:
    (tmp_path / "job.toml").write_text('blas_threads = 3\ndata = "nowhere.npz"')
    arguments = ["--connect", "127.0.0.1:1", "--job", str(tmp_path / "job.toml")]
    script = (
        "import os, worker.__main__ as program; "
        f"program.main({arguments!r}); print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    assert done.stdout.strip() == expected


def _until_waiting(connection: Connection) -> None:
    """Return once a replica waits for the others to join."""
    while not any(standing.statistics.parked for standing in connection.status().shards):
        connection.pause(0.01)


def test_a_job_file_and_a_python_file_mean_the_same_as_to_the_launcher(
    server: ServerProcess, tmp_path: Path
) -> None:
    """Neither has been through the launcher: the job file does not say that there is code."""
    code = tmp_path / "my_job.py"
    code.write_text("JOB = {'epochs': 1, 'workers': 1}\n\ndef model():\n    return 'softmax'\n")
    with Worker(tmp_path, "threads = 1", server.address, "--code", str(code)) as worker:
        assert worker.end()[0] == 0
    assert server.wait() == 0
