"""What the command ``chaos`` does; imported only once it is wanted."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path

import typer

from paramserver.errors import JobError
from paramserver.launch.addresses import newest_run
from paramserver.launch.interruption import Interrupted, Interruption
from paramserver.launch.processes import PROCESSES, Contained, Process, find_process


def kill_process(word: str, run: Path | None) -> int:
    """Kill a process of a run; return the exit code."""
    return _send(word, run, signal.SIGKILL, "has been killed")


def resume_process(word: str, run: Path | None) -> int:
    """Let a process of a run go on; return the exit code."""
    return _send(word, run, signal.SIGCONT, "goes on")


def pause_process(word: str, run: Path | None, seconds: float | None) -> int:
    """Pause a process of a run, for so many seconds or for good; return the exit code."""
    if seconds is None:
        return _send(word, run, signal.SIGSTOP, "is paused; paramserver chaos resume lets it go on")
    process = _find(word, run)
    _say(process, f"is paused for {seconds:g} s")
    return _rest(process, seconds, None, math.inf)


def slow_process(word: str, run: Path | None, by: float, seconds: float | None) -> int:
    """Make a process of a run so many times slower while this lasts; return the exit code."""
    process = _find(word, run)
    ends = "until Ctrl-C" if seconds is None else f"for {seconds:g} s"
    _say(process, f"is {by:g} times slower {ends}")
    cycle = process.cycle_seconds
    return _rest(process, cycle * (1 - 1 / by), cycle / by, seconds or math.inf)


def _rest(process: Process | Contained, pause: float, run: float | None, seconds: float) -> int:
    """Pause a process, and let it go on; again and again if it is to run for a while in between.

    Whatever ends this, the process goes on.
    """
    code = 0
    with Interruption() as interruption:
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                process.send(signal.SIGSTOP)
                interruption.wait(pause)
                process.send(signal.SIGCONT)
                if run is None:
                    break
                interruption.wait(run)
        except Interrupted as interrupted:
            code = 0 if interrupted.code == 128 + signal.SIGINT else interrupted.code
        except JobError as error:
            typer.echo(str(error))
        finally:
            if process.is_there:
                process.send(signal.SIGCONT)
                _say(process, "goes on")
    return code


def _send(word: str, run: Path | None, number: signal.Signals, what: str) -> int:
    process = _find(word, run)
    process.send(number)
    _say(process, what)
    return 0


def _find(word: str, run: Path | None) -> Process | Contained:
    return find_process(run or newest_run(Path("runs"), PROCESSES), word)


def _say(process: Process | Contained, what: str) -> None:
    typer.echo(f"{process.name} ({process.where}) {what}.")
