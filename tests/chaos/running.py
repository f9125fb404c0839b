"""A run of ``paramserver train`` in which processes are killed at the moments that were drawn."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from kills import LEASE_SECONDS, Kill, Strike

from paramserver.errors import JobError, RequestError
from paramserver.launch.processes import find_process
from paramserver.storage import newest_checkpoint

HERE = Path(__file__).parent
INSIDE = HERE / "inside"
COUNTING_JOB = HERE / "counting_job.py"

GRACE_SECONDS = 2 * LEASE_SECONDS + 15.0
"""No job that can go on goes without progress for longer."""

RUN_SECONDS = 240.0
"""A run that takes longer hangs, whatever it says of its progress: it should take some six seconds."""

LOOK_SECONDS = 0.05


class Assault:
    """Waits until a process comes to a moment, and kills the victims; the strikes come one after the other.

    Args:
        run: the run folder, from which the victims are known.
        strikes: in order.

    Attributes:
        made: how many of the strikes have been made.
        checkpoints: the newest whole checkpoint at each of them, -1 for none.
        launcher: the process that was started by hand.
    """

    def __init__(self, run: Path, strikes: Sequence[Strike]) -> None:
        self._run = run
        self._strikes = strikes
        self.made = 0
        self.checkpoints: list[int] = []
        self.launcher: subprocess.Popen[bytes] | None = None
        self._server = socket.create_server(("127.0.0.1", 0))
        self._ended = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def environment(self) -> dict[str, str]:
        """Return the variables that let the processes stop at the moments."""
        stops = [[strike.place, strike.moment, strike.count] for strike in self._strikes]
        said = json.dumps({"port": self._server.getsockname()[1], "stops": stops})
        path = os.pathsep.join([str(INSIDE), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, "PYTHONPATH": path, "PARAMSERVER_STOPS": said}

    def __enter__(self) -> Assault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        with suppress(OSError):  # whoever waits for a connection is woken by one
            socket.create_connection(self._server.getsockname(), 1).close()
        self._thread.join(10)
        self._server.close()

    def _serve(self) -> None:
        while True:
            talk, _ = self._server.accept()
            with talk:
                if self._ended:
                    return
                with suppress(OSError), talk.makefile("r") as words:
                    told = json.loads(words.readline() or "{}")
                    self._hear(told)
                    talk.sendall(b"g")

    def _hear(self, told: dict[str, Any]) -> None:
        strike = self._strikes[self.made] if self.made < len(self._strikes) else None
        if strike is None or (told["place"], told["moment"], told["count"]) != (
            strike.place,
            strike.moment,
            strike.count,
        ):
            return
        select.select([], [], [], strike.pause_seconds)
        pids = {strike.place: told["pid"]}
        for victim in strike.victims:
            self._kill(victim, pids)
        self.checkpoints.append(_newest(self._run))
        self.made += 1

    def _kill(self, victim: str, pids: dict[str, int]) -> None:
        with suppress(ProcessLookupError, JobError, RequestError):  # it is not there just now
            if victim == "launcher":
                assert self.launcher is not None
                self.launcher.kill()
            else:
                pid = pids.get(victim) or find_process(self._run, victim).pid
                os.kill(pid, signal.SIGKILL)


class Run:
    """One run, and what became of it.

    Args:
        kill: what is to happen.
        folder: where the run folder and the output of the launchers go; it exists.

    Attributes:
        out: the run folder.
        code: the exit code of the last launcher.
        begun_anew: there was nothing to go on from, so the job was begun anew, in another folder.
        was_over: the job was over when its launcher was killed, so nothing was left to go on with.
        standstill_seconds: the longest time without progress.
        checkpoints: the newest whole checkpoint at each strike, -1 for none.
        strikes_made: how many.
        seconds: that it has taken.
    """

    def __init__(self, kill: Kill, folder: Path) -> None:
        self.kill = kill
        self.folder = folder
        self.out = folder / "run"
        self.code: int | None = None
        self.begun_anew = False
        self.was_over = False
        self.standstill_seconds = 0.0
        self.checkpoints: list[int] = []
        self.strikes_made = 0
        self.seconds = 0.0
        self._launchers = 0

    def go(self) -> None:
        """Run the job to its end, and go on with it as often as its launcher is killed."""
        began = time.monotonic()
        with Assault(self.out, self.kill.strikes) as assault:
            try:
                self._go(assault)
            finally:
                self.checkpoints, self.strikes_made = assault.checkpoints, assault.made
                self.seconds = time.monotonic() - began

    def said(self) -> str:
        """Return what the launchers have said."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("launcher*.log")))

    def logs(self) -> str:
        """Return all that the servers of the run have logged."""
        return "".join(path.read_text() for path in sorted(self.out.glob("logs/server*.log")))

    def summary(self) -> dict[str, Any]:
        """Read the summary of the run."""
        summary: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return summary

    def _go(self, assault: Assault) -> None:
        self.code = self._launch(assault, [*self._job(), "--out", str(self.out)])
        if self.code == 1 and "Every replica is dead." in self.said():
            assert self._killed() >= {"worker 0", "worker 1"}
        elif self.code != -signal.SIGKILL:
            return
        _wait(lambda: not processes(self.out), "The processes did not end with their launcher.")
        self.code = self._launch(assault, ["--resume", str(self.out), *self._code()])
        if self.code == 2:
            said = self.said()
            if "before its first checkpoint" in said or "has no checkpoint to go on from" in said:
                self._begin_anew(assault)
            elif "there is nothing to go on with" in said:
                self.was_over = True

    def _killed(self) -> set[str]:
        return {victim for strike in self.kill.strikes for victim in strike.victims}

    def _begin_anew(self, assault: Assault) -> None:
        self.begun_anew = True
        self.out = self.folder / "anew"
        self.code = self._launch(assault, [*self._job(), "--out", str(self.out)])

    def _code(self) -> list[str]:
        return [] if self.kill.consistency == "sync" else ["--code", str(COUNTING_JOB)]

    def _job(self) -> list[str]:
        options = ["--consistency", self.kill.consistency, "--durability", self.kill.durability]
        options += ["--servers", "2", "--shards", "1", "--workers", "2", "--threads", "2"]
        options += ["--lease-seconds", f"{LEASE_SECONDS}"]
        if self.kill.consistency == "sync":
            return [*options, "--epochs", f"{SYNC_EPOCHS}", "--checkpoint-every", "10"]
        return [str(COUNTING_JOB), *options]

    def _launch(self, assault: Assault, options: Sequence[str]) -> int:
        """Run a launcher to its end, and watch that the job makes progress."""
        log = self.folder / f"launcher{self._launchers}.log"
        self._launchers += 1
        deadline = time.monotonic() + RUN_SECONDS
        with log.open("wb") as file:
            launcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "paramserver", "train", *options],
                cwd=self.folder,
                env=assault.environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        assault.launcher = launcher
        try:
            progress, moved = "", time.monotonic()
            while launcher.poll() is None:
                now = time.monotonic()
                if (found := _progress(self.out)) != progress:
                    progress, moved = found, now
                self.standstill_seconds = max(self.standstill_seconds, now - moved)
                assert now < deadline, f"It was not over after {RUN_SECONDS:g} s."
                select.select([], [], [], LOOK_SECONDS)
        finally:
            launcher.kill()
            launcher.wait()
        return launcher.returncode


SYNC_EPOCHS = 10


def processes(run: Path) -> list[int]:
    """Return the servers and workers of a run that are still there."""
    command = ["ps", "-A", "-ww", "-o", "pid=,stat=,args="]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    ours = (line.split(None, 2) for line in lines if f"{run}" in line and " -m " in line)
    return [int(pid) for pid, state, _ in ours if not state.startswith("Z")]


def _progress(run: Path) -> str:
    """Return something that changes whenever the job makes progress: how far its replicas and weights are."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return ""
    newest = [line for line in lines if '"progress"' in line][-1:]
    try:
        found = json.loads(newest[0]) if newest else {}
    except ValueError:  # it is being written
        return ""
    return json.dumps([found.get(name) for name in ("rounds", "versions", "clocks")])


def _newest(run: Path) -> int:
    try:
        return newest_checkpoint(run)[0]
    except RequestError:
        return -1


def _wait(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, complaint
        select.select([], [], [], LOOK_SECONDS)
