"""The two programs started by hand, as on several machines, on one or on the hosts of a test."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from hosts import Host

DEADLINE_SECONDS = 90.0


class Program:
    """One process and its log.

    Attributes:
        name: such as ``server0``.
        process: started.
    """

    def __init__(self, name: str, log: Path, command: Sequence[str], host: Host | None) -> None:
        self.name = name
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command if host is None else host.command(command),
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def log(self) -> str:
        """Return what it has written so far."""
        return self._log.read_text()

    def address(self) -> str:
        """Return where it listens, if it is a server; empty before it does."""
        said = [line for line in self.log().split("\n")[:-1] if line.startswith("listening ")]
        return said[0].removeprefix("listening ") if said else ""

    def end(self) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(DEADLINE_SECONDS)
        assert "Traceback" not in self.log(), self.log()
        return code

    def close(self) -> None:
        """End it, if it runs."""
        self.process.kill()
        self.process.wait()


class ByHand:
    """A cluster whose processes a test starts one by one. Leaves none behind, and shows logs after a failure.

    Args:
        folder: for the job file, the logs and the run folder.
        job: text of the job file.
        hosts: where server 0 and all else of index 0, and where the others run; None: all on this machine.

    Attributes:
        out: the run folder.
        address: of server 0, once it listens.
    """

    def __init__(self, folder: Path, job: str, hosts: Sequence[Host] = ()) -> None:
        self.out = folder / "out"
        self.address = ""
        self.programs: list[Program] = []
        self._folder = folder
        self._hosts = hosts
        self._stack = ExitStack()
        (folder / "job.toml").write_text(job)

    def server(self, index: int = 0, servers: int = 1, *options: str, listen: str = "") -> Program:
        """Start a server; blocks until server 0 listens."""
        host = self._host(index)
        arguments = ["--server", f"{index}", "--servers", f"{servers}", "--out", str(self.out)]
        arguments += ["--listen", listen or f"{host.address if host else '127.0.0.1'}:0"]
        arguments += ["--job", str(self._folder / "job.toml")]
        if index:
            arguments += ["--coordinator", self.address]
        if host:
            arguments += ["--insecure"]
        program = self._start(f"server{index}", "server", [*arguments, *options], host)
        if index == 0:
            self.until(lambda: bool(program.address()) or program.process.poll() is not None)
            self.address = program.address()
        return program

    def worker(self, index: int = 0, *options: str) -> Program:
        """Start a worker."""
        return self._start(f"worker{index}", "worker", self._joining("--worker", f"{index}", *options), index)

    def evaluator(self, *options: str) -> Program:
        """Start the evaluator."""
        return self._start("evaluator", "worker", self._joining("--evaluate", *options), 0)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all at once, as ``docker stop`` does."""
        for program in self.programs:
            program.process.send_signal(number)

    def end(self) -> dict[str, int]:
        """Wait for the end of all; return exit codes by name."""
        return {program.name: program.end() for program in self.programs}

    def summary(self) -> dict[str, Any]:
        """Read the summary of the run."""
        summary: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return summary

    def clocks(self) -> list[int]:
        """Return how many steps each replica has finished, as of the newest line of the diary."""
        diary = self.out / "metrics.jsonl"
        lines = diary.read_text().split("\n")[:-1] if diary.exists() else []
        clocks = [record["clocks"] for record in map(json.loads, lines) if record["kind"] == "progress"]
        return list(clocks[-1]) if clocks else []

    def steps(self) -> int:
        """Return how many steps all replicas have finished, as of then."""
        return sum(self.clocks())

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "It did not happen in time."
            select.select([], [], [], 0.02)

    def _joining(self, *options: str) -> list[str]:
        return ["--connect", self.address, "--job", str(self._folder / "job.toml"), *options]

    def _host(self, index: int) -> Host | None:
        return self._hosts[index % len(self._hosts)] if self._hosts else None

    def _start(self, name: str, program: str, arguments: list[str], host: Host | int | None) -> Program:
        command = [sys.executable, "-P", "-m", program, *arguments]
        place = self._host(host) if isinstance(host, int) else host
        started = Program(name, self._folder / f"{name}.log", command, place)
        self._stack.callback(started.close)
        self.programs.append(started)
        return started

    def __enter__(self) -> ByHand:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is not None:
            for program in self.programs:
                print(f"== {program.name}\n{program.log()}", file=sys.stderr)
