"""Which processes a run has: a file in its folder while it runs, for whoever wants to do something to one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paramserver.errors import JobError, RequestError, did_you_mean
from paramserver.launch.addresses import read_ending
from paramserver.launch.children import Child
from paramserver.storage import RunFolder

PROCESSES = "processes.json"


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a run.

    Attributes:
        name: such as ``worker1``.
        pid: its number.
        begun: when it began, as the kernel says it: another process may have the number one day.
    """

    name: str
    pid: int
    begun: str

    @property
    def is_there(self) -> bool:
        """Say whether it still runs, or is paused."""
        return bool(self.begun) and begun(self.pid) == self.begun

    def send(self, number: signal.Signals) -> None:
        """Send it a signal.

        Raises:
            JobError: it has ended, or belongs to somebody else.
        """
        try:
            if not self.is_there:
                raise ProcessLookupError
            os.kill(self.pid, number)
        except ProcessLookupError:
            raise JobError(f"The process of {self.name} ({self.pid}) has ended.") from None
        except PermissionError:
            raise JobError(f"The process of {self.name} ({self.pid}) belongs to another user.") from None


def write_processes(folder: RunFolder, children: Iterable[Child]) -> None:
    """Write which processes a run has: of each name the newest.

    Raises:
        JobError: the disk refuses.
    """
    newest = {child.name.replace(" ", ""): child.pid for child in children if child.code is None}
    folder.write_json(
        PROCESSES, [{"name": name, "pid": pid, "begun": begun(pid)} for name, pid in newest.items()]
    )


def remove_processes(folder: RunFolder) -> None:
    """Remove the file: none is left."""
    (folder.path / PROCESSES).unlink(missing_ok=True)


def read_processes(run: Path) -> list[Process]:
    """Return the processes of a run that goes on.

    Raises:
        RequestError: this is not the folder of a run that has processes.
        JobError: the run is over.
    """
    try:
        found = json.loads((run / PROCESSES).read_text())
        return [Process(str(each["name"]), int(each["pid"]), str(each["begun"])) for each in found]
    except FileNotFoundError:
        if ending := read_ending(run):
            raise JobError(ending) from None
        raise RequestError(
            f"There is no {PROCESSES} in {run}: it is not the folder of a run that is going on as processes "
            "of this machine."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{run / PROCESSES} cannot be read: {error}.") from None


def find_process(run: Path, word: str) -> Process:
    """Return the process of a run that is meant by a word such as ``worker1``, ``w1``, ``server0`` or ``s0``.

    Raises:
        RequestError: there is none of that name.
        JobError: the run is over.
    """
    processes = {each.name: each for each in read_processes(run)}
    name = word.replace(" ", "")
    for short, role in (("w", "worker"), ("s", "server")):
        if name[:1] == short and name[1:].isdigit():
            name = f"{role}{name[1:]}"
    if name not in processes:
        raise RequestError(
            f"There is no process '{word}' in {run}: there are {', '.join(processes)}."
            f"{did_you_mean(name, processes)}"
        )
    return processes[name]


def begun(pid: int) -> str:
    """Return when a process began, as the kernel says it; empty if there is none."""
    try:
        # After the name, which may hold anything: the 20th word, in clock ticks since the machine started.
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if words[0] == "Z" else words[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    except ProcessLookupError:
        return ""
    asked = subprocess.run(
        ["ps", "-o", "lstart=", "-p", f"{pid}"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()
