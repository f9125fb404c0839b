"""Processes that this one has started: each with a log, none left behind.

Every child holds the read end of a pipe from this process as its standard input, and ends when it closes;
the kernel closes it whatever ends this process, kill -9 included. A child has a session of its own, so that
Ctrl-C reaches it only through `Children.stop`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from paramserver.errors import JobError
from paramserver.launch.engine import how_it_ended
from paramserver.launch.log_cap import LOG_BYTES_MAX, LogCap
from paramserver.logs import said

TERMINATE_SECONDS = 15.0
"""How long a child that is asked to end may take before it is killed: a server saves the run first."""

KILL_SECONDS = 5.0
"""How long the kernel may take to end a child that is killed, before it is given up (a stuck disk)."""

LOOK_SECONDS = 0.02
LOG_TAIL_BYTES = 16_384
LINE_CHARACTERS_MAX = 300
LAST_LINES = 10

FAILED_INSIDE = "failed inside"
"""What a program says of a mistake of its own, before it shows where: the end of that says more."""


class Child:
    """One process.

    Attributes:
        name: for people, such as ``server 0``.
        log: its standard output and error.
        started_at: by ``time.monotonic``.
    """

    def __init__(self, name: str, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.started_at = time.monotonic()
        try:
            log.write_bytes(b"")
            with log.open("ab") as file:  # appending, so that the log can be cut while it is written
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,
                )
        except OSError as error:
            raise JobError(f"The process of {name} cannot be started: {error.strerror or error}.") from error

    @property
    def pid(self) -> int:
        """Return its number."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Return its exit code, minus the signal that ended it; None while it runs."""
        return self._process.poll()

    def find(self, pattern: str) -> str | None:
        """Return the first group of a pattern in what a whole line of its log says, or None."""
        for line in self.logs().splitlines(keepends=True):
            if line.endswith("\n") and (found := re.fullmatch(pattern, said(line.rstrip("\n")))):
                return found[1]
        return None

    def last_line(self) -> str:
        """Return the last line of its log that says something, or shortly before it of what failed."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        # What failed ends other things, too, and they may have the last word.
        failed = [line for line in spoken[-LAST_LINES:] if " ERROR " in line and FAILED_INSIDE not in line]
        return said((failed or spoken)[-1])[:LINE_CHARACTERS_MAX] if spoken else ""

    def ending(self) -> str:
        """Say in a sentence how it ended."""
        return f"The process of {self.name} {how_it_ended(self.code)}."

    def epitaph(self) -> str:
        """Say in a sentence or two how it ended, and what it said last."""
        words = self.last_line()
        return self.ending() + (f" Its last words: {words}" if words else "")

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, but no longer than this, and return `code`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.code

    def logs(self) -> str:
        """Return what it has written to standard output and error."""
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """Send it SIGTERM, unless it has ended."""
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def close(self) -> None:
        """Let go of its pipe; if it runs, that ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()


class Children:
    """All processes of a job; leaving the context stops those that still run.

    Args:
        logs: folder of their logs.
        hurry: asked while they are being stopped; once it is true, they are killed at once.
        log_bytes_max: of each log; from there on its older half is left out.
    """

    def __init__(self, logs: Path, hurry: Callable[[], bool], log_bytes_max: int = LOG_BYTES_MAX) -> None:
        self._cap = LogCap(log_bytes_max)
        self._logs = logs
        self._hurry = hurry
        self.all: list[Child] = []

    def __enter__(self) -> Children:
        self._cap.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._cap.__exit__(None, None, None)

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> Child:
        """Start one, in the place of an earlier one of that name, which must have ended.

        Args:
            name: for people; without spaces it names the log.
            command: its command line.
            environment: variables that it gets beside those of this process.

        Raises:
            JobError: it cannot be started.
        """
        log = self._logs / f"{name.replace(' ', '')}.log"
        self._set_aside(name, log)
        child = Child(name, command, log, environment)
        self._cap.watch(log)
        for place, earlier in enumerate(self.all):
            if earlier.name == name:
                earlier.close()
                self.all[place] = child
                return child
        self.all.append(child)
        return child

    def _set_aside(self, name: str, log: Path) -> None:
        """Keep the log of an earlier process of that name, as ``NAME.1.log`` and so on."""
        if not log.exists():
            return
        number = 1
        while (aside := log.with_suffix(f".{number}.log")).exists():
            number += 1
        log.rename(aside)
        for child in self.all:
            if child.name == name:
                child.log = aside

    def running(self) -> list[Child]:
        """Return those that run."""
        return [child for child in self.all if child.code is None]

    def failed(self) -> list[Child]:
        """Return those that ended badly, those ended by a signal first."""
        return sorted((child for child in self.all if child.code), key=lambda child: (child.code or 0) > 0)

    def stop(self) -> None:
        """End all that run, the youngest first, and wait for it: with SIGTERM, then with SIGKILL.

        Blocks at most ``TERMINATE_SECONDS`` plus ``KILL_SECONDS``.
        """
        for child in reversed(self.running()):
            child.stop()
        self._await_end(TERMINATE_SECONDS, self._hurry)
        for child in self.running():
            child.signal(signal.SIGKILL)
        self._await_end(KILL_SECONDS, lambda: False)
        for child in self.all:
            child.close()

    def _await_end(self, seconds: float, hurry: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline and not hurry():
            time.sleep(LOOK_SECONDS)


def names(children: Iterable[Child]) -> str:
    """List children for a sentence.

    Returns:
        Such as ``server 0, worker 1``.
    """
    return ", ".join(child.name for child in children)
