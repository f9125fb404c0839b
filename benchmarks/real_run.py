"""One real run: servers and workers as processes, no evaluator; if wanted a slow worker or a slow link."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from paramserver.job import Job

DEADLINE_SECONDS = 180.0
LOOK_SECONDS = 0.02
CODE = Path(__file__).with_name("padded.py")


def run(job: Job, environments: Mapping[int, Mapping[str, str]], hosts: Any = None) -> dict[str, Any]:
    """Run a job to its end and return its summary.

    Args:
        job: of the code in ``padded.py``; one thread for each worker.
        environments: variables of some workers, by index; those of -1 are for all processes.
        hosts: two hosts, the second for worker 0 and the first for everyone else; None for this machine.

    Raises:
        RuntimeError: a process failed, or the run did not end in time.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "job.toml").write_text(job.to_toml())
        common = {
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            **environments.get(-1, {}),
        }
        address = hosts.first.address if hosts else "127.0.0.1"
        processes: list[tuple[str, subprocess.Popen[bytes]]] = []

        def start(what: str, host: Any, more: Mapping[str, str], *arguments: str) -> Path:
            command = [sys.executable, "-P", "-m", *arguments, "--exit-with-parent"]
            log = folder / f"{what}.log"
            with log.open("wb") as file:
                process = subprocess.Popen(
                    host.command(command) if host else command,
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**common, **more},
                )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append((what, process))
            return log

        first, second = (hosts.first, hosts.second) if hosts else (None, None)
        coordinator = ""
        for index in range(job.servers):
            options = ["--listen", f"{address}:0", "--server", str(index), "--servers", str(job.servers)]
            options += ["--insecure"] if hosts else []
            options += ["--shards", str(job.shards), "--out", name, "--score-grace-seconds", "0"]
            options += ["--coordinator", coordinator] if index else []
            log = start(f"server{index}", first, {}, "server", *options)
            coordinator = coordinator or _listening(log)
        for index in range(job.workers):
            options = ["--connect", coordinator, "--job", str(folder / "job.toml"), "--code", job.code]
            options += ["--worker", str(index), "--threads", "1"]
            host = second if index == 0 else first
            start(f"worker{index}", host, environments.get(index, {}), "worker", *options)
        deadline = time.monotonic() + DEADLINE_SECONDS
        for what, process in processes:
            code = process.wait(max(0.1, deadline - time.monotonic()))
            if code:
                raise RuntimeError(
                    f"{what} ended with {code}: {(folder / f'{what}.log').read_text()[-2000:]}"
                )
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        return summary


def _listening(log: Path) -> str:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("listening "):
                return line.removeprefix("listening ")
        time.sleep(LOOK_SECONDS)
    raise RuntimeError(f"The server did not come up: {log.read_text()}")
