"""Which processes or containers a run has: a file in its folder while it runs, for whoever looks for one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from paramserver.errors import JobError, RequestError, did_you_mean
from paramserver.launch.addresses import read_ending
from paramserver.launch.children import Child
from paramserver.launch.containers import Container, ask
from paramserver.storage import RunFolder

PROCESSES = "processes.json"


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a run.

    Attributes:
        name: such as ``worker1``.
        pid: its number.
        begun: when it began, as the kernel says it: another process may have the number one day.
        cycle_seconds: where it is slowed, it runs and rests once in so long: far less than a lease.
    """

    cycle_seconds: ClassVar[float] = 0.1

    name: str
    pid: int
    begun: str

    @property
    def where(self) -> str:
        """Say which it is."""
        return f"process {self.pid}"

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


@dataclass(frozen=True, slots=True)
class Contained:
    """What runs in one container of a run.

    Attributes:
        name: such as ``worker1``.
        container: its id.
        engine: the command that knows it: ``docker`` or ``podman``.
        cycle_seconds: as of a process; an engine takes a part of a second for each signal.
    """

    cycle_seconds: ClassVar[float] = 2.0

    name: str
    container: str
    engine: str

    @property
    def where(self) -> str:
        """Say which it is."""
        return f"container {self.container[:12]}"

    @property
    def is_there(self) -> bool:
        """Say whether it still runs, or is paused."""
        return ask(self.engine, "inspect", "--format", "{{.State.Running}}", self.container).strip() == "true"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all that runs there but the first process, which ends with the others.

        Raises:
            JobError: it has ended.
        """
        if not self.is_there:
            raise JobError(f"The container of {self.name} ({self.container[:12]}) has ended.")
        ask(self.engine, "exec", self.container, "sh", "-c", f"kill -{number.value} -1")


def write_processes(folder: RunFolder, children: Iterable[Child]) -> None:
    """Write which processes a run has: of each name the newest.

    Raises:
        JobError: the disk refuses.
    """
    newest = {child.name.replace(" ", ""): child.pid for child in children if child.code is None}
    folder.write_json(
        PROCESSES, [{"name": name, "pid": pid, "begun": begun(pid)} for name, pid in newest.items()]
    )


def write_containers(folder: RunFolder, containers: Iterable[Container]) -> None:
    """Write which containers a run has; they keep their ids when they are started again.

    Raises:
        JobError: the disk refuses.
    """
    folder.write_json(
        PROCESSES,
        [
            {"name": each.name.replace(" ", ""), "container": each.number, "engine": each.engine}
            for each in containers
        ],
    )


def remove_processes(folder: RunFolder) -> None:
    """Remove the file: none is left."""
    (folder.path / PROCESSES).unlink(missing_ok=True)


def read_processes(run: Path) -> list[Process | Contained]:
    """Return the processes or containers of a run that goes on.

    Raises:
        RequestError: this is not the folder of a run that has processes.
        JobError: the run is over.
    """
    try:
        found = json.loads((run / PROCESSES).read_text())
        return [
            Contained(str(each["name"]), str(each["container"]), str(each["engine"]))
            if "container" in each
            else Process(str(each["name"]), int(each["pid"]), str(each["begun"]))
            for each in found
        ]
    except FileNotFoundError:
        if ending := read_ending(run):
            raise JobError(ending) from None
        raise RequestError(
            f"There is no {PROCESSES} in {run}: it is not the folder of a run that is going on as processes "
            "or containers of this machine."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{run / PROCESSES} cannot be read: {error}.") from None


def find_process(run: Path, word: str) -> Process | Contained:
    """Return the process or container of a run that a word means: ``worker1``, ``w1``, ``server0`` or ``s0``.

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
