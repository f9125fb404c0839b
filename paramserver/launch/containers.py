"""The engine of containers: the services of compose.yaml, started by Docker or by Podman."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import paramserver
from paramserver.errors import JobError, RequestError
from paramserver.launch.engine import Role, how_it_ended

COMPOSE_FILE = "COMPOSE_FILE"
"""The variable by which Docker, too, is told of another compose file."""

IMAGE = "PARAMSERVER_IMAGE"
"""Names an image that is there already; without it, the image is built."""

KEYS = "certs"
"""The service that makes keys and tokens before all others."""

RUN = "run"
"""The name of the one run in the volume."""

ASK_SECONDS = 20.0
START_SECONDS = 300.0
BUILD_SECONDS = 1800.0
STOP_SECONDS = 150.0
"""Longer than the grace periods in compose.yaml, one after the other."""

END_SECONDS = 60.0
"""How long a job that is ended early may take to be saved."""

NAME_SECONDS = 20.0
"""How long a worker may take to say what it is called; one that logs only warnings never does."""

LOOK_SECONDS = 0.5

CALLED = r"Called worker(\d+), "
"""What a worker says of itself that shares its command line with others."""

SIGNALLED = 128
"""Added to the number of the signal that has ended a container, this is its exit code."""

SIGNALS = {int(number) for number in signal.Signals}

LINE_CHARACTERS_MAX = 300


@dataclass(frozen=True, slots=True)
class Tools:
    """What speaks to a container engine.

    Attributes:
        compose: the command for whole clusters.
        container: the command for single containers: ``docker`` or ``podman``.
    """

    compose: tuple[str, ...]
    container: str


def find_tools() -> Tools:
    """Find a container engine that runs: Docker's, else Podman.

    Raises:
        RequestError: there is none.
    """
    if _answers("docker", "compose", "version") and _answers("docker", "version"):
        return Tools(("docker", "compose"), "docker")
    if shutil.which("podman-compose") and _answers("podman", "version"):
        return Tools(("podman-compose",), "podman")
    raise RequestError(
        "--engine compose needs a container engine, and none answers here. Start Docker (with its compose "
        "plugin), or install podman and podman-compose; or train with --engine local."
    )


def find_compose_file() -> Path:
    """Find compose.yaml: the one that COMPOSE_FILE names, else that of the source tree.

    Raises:
        RequestError: there is none.
    """
    named = os.environ.get(COMPOSE_FILE)
    path = Path(named) if named else Path(paramserver.__file__).parent.parent / "compose.yaml"
    if not path.is_file():
        raise RequestError(
            f"There is no {path}. --engine compose needs compose.yaml and Dockerfile of paramserver's "
            f"source: get the source, and set {COMPOSE_FILE} to its compose.yaml."
        )
    return path.absolute()


def servers_of(compose_file: Path) -> int:
    """Return how many servers a compose file has: its services server0, server1 and so on."""
    return len(re.findall(r"^  server\d+:$", compose_file.read_text(), re.MULTILINE))


class Container:
    """One container that has been started.

    Args:
        name: for people, such as ``server 0``.
        number: its id with the engine.
        tools: of the engine.

    Attributes:
        name: the same.
        number: the same.
        started_at: by ``time.monotonic``.
    """

    def __init__(self, name: str, number: str, tools: Tools) -> None:
        self._tools = tools
        self._code: int | None = None
        self.name = name
        self.number = number
        self.started_at = time.monotonic()

    @property
    def engine(self) -> str:
        """Return the command that knows it: ``docker`` or ``podman``."""
        return self._tools.container

    @property
    def code(self) -> int | None:
        """Its exit code, minus the signal that ended it; None while it runs."""
        if self._code is None:
            state = "{{.State.Status}} {{.State.ExitCode}}"
            told = ask(self._tools.container, "inspect", "--format", state, self.number).split()
            if told and told[0] in ("exited", "dead", "removing"):
                code = int(told[1])
                self._code = SIGNALLED - code if code - SIGNALLED in SIGNALS else code
        return self._code

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, but no longer than this, and return `code`."""
        deadline = time.monotonic() + seconds
        while self.code is None and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return self.code

    def ending(self) -> str:
        """Say in a sentence how it ended."""
        return f"The container of {self.name} {how_it_ended(self.code)}."

    def epitaph(self) -> str:
        """Say in a sentence or two how it ended, and what it said last."""
        said = [line.strip() for line in self.logs().splitlines() if line.strip()]
        return self.ending() + (f" Its last words: {said[-1][:LINE_CHARACTERS_MAX]}" if said else "")

    def stop(self) -> None:
        """Send it SIGTERM."""
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its first process, unless it has ended."""
        ask(self._tools.container, "kill", "--signal", number.name.removeprefix("SIG"), self.number)

    def start_again(self) -> None:
        """Start it again, after its end, with all that is in it.

        Raises:
            JobError: the engine refuses.
        """
        if not ask(self._tools.container, "start", self.number, seconds=START_SECONDS):
            raise JobError(f"The container of {self.name} cannot be started again.")
        self._code, self.started_at = None, time.monotonic()

    def logs(self) -> str:
        """Return what it has written."""
        return ask(self._tools.container, "logs", self.number)

    def index(self) -> int | None:
        """Return the index that the worker in it has taken, by its log; None before that."""
        found = re.findall(CALLED, self.logs())
        return int(found[-1]) if found else None

    def run(self, *command: str) -> str:
        """Run a command inside, and return what it printed; empty if it cannot be run."""
        return ask(self._tools.container, "exec", self.number, *command, only_output=True)


class Containers:
    """The containers of one job.

    Args:
        tools: of the engine.
        compose_file: absolute.
        project: a name that no other cluster of this machine has.
        workers: how many; as replicas of one service they start together, with the last of them.
        pause: waits between two looks at a command that takes long, and may raise to give it up.

    Attributes:
        all: the containers that there are, server 0 first.
    """

    def __init__(
        self, tools: Tools, compose_file: Path, project: str, workers: int, pause: Callable[[float], None]
    ) -> None:
        self._tools = tools
        self._project = project
        self._workers = workers
        self._pause = pause
        self._base = [*tools.compose, "-f", str(compose_file), "-p", project]
        self._environment: dict[str, str] = {}
        self._pending: list[tuple[int, Container]] = []
        self.all: list[Container] = []

    def build(self, environment: Mapping[str, str]) -> None:
        """Build the image, unless one is named, and make the cluster's keys.

        Raises:
            JobError: that failed.
        """
        if not os.environ.get(IMAGE):
            self._compose("build", "server0", environment=environment, seconds=BUILD_SECONDS)
        self._environment = dict(environment)
        self._compose("run", "--rm", "--no-deps", KEYS, environment=environment)

    def start(self, role: Role, rank: int, environment: Mapping[str, str]) -> Container:
        """Start a service of the compose file; a worker counts as started before its service is."""
        self._environment = dict(environment)
        container = Container(role if role == "evaluator" else f"{role} {rank}", "", self._tools)
        service = f"{role}{rank}" if role == "server" else role
        started = [(0, container)]
        if role == "worker":
            self._pending.append((rank, container))
            if rank + 1 < self._workers:
                return container
            started, self._pending = self._pending, []
        self._compose("up", "--detach", "--no-build", "--no-deps", service, environment=environment)
        for place, each in started:
            each.number, each.started_at = self._find(service, place + 1), time.monotonic()
            self.all.append(each)
        return container

    def name_workers(self) -> None:
        """Call the containers of workers as these call themselves; waits until each does, or has ended."""
        deadline = time.monotonic() + NAME_SECONDS
        for each in self.all:
            if not each.name.startswith("worker"):
                continue
            while (index := each.index()) is None and each.code is None and time.monotonic() < deadline:
                self._pause(LOOK_SECONDS)
            if index is not None:
                each.name = f"worker {index}"

    def failed(self) -> list[Container]:
        """Return those that ended badly, those ended by a signal first."""
        return sorted((each for each in self.all if each.code), key=lambda each: (each.code or 0) > 0)

    def running(self) -> list[Container]:
        """Return those that run."""
        return [each for each in self.all if each.code is None]

    def end(self) -> None:
        """End the job, so that it is saved; blocks until all containers have ended, but not for long."""
        if self.all[0].code is None:
            self.all[0].signal(signal.SIGINT)
            deadline = time.monotonic() + END_SECONDS
            while self.running() and time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)
        if self.running():
            self.stop()

    def stop(self) -> None:
        """Ask all to end in order, and wait for that; blocks as long as their grace periods."""
        self._compose("stop", environment=self._environment, seconds=STOP_SECONDS, must=False)

    def fetch(self, container: Container, path: str, to: Path) -> None:
        """Copy the content of a folder out of a container, whether it runs or not."""
        ask(self._tools.container, "cp", f"{container.number}:{path}/.", str(to), seconds=BUILD_SECONDS)

    def remove(self) -> None:
        """Remove the containers, their network and their volume."""
        self._compose("down", "--volumes", environment=self._environment, seconds=STOP_SECONDS, must=False)
        # Older releases of podman-compose leave it.
        ask(self._tools.container, "network", "rm", f"{self._project}_cluster")

    def _find(self, service: str, number: int) -> str:
        label = "label=com.docker.compose"
        filters = (f"project={self._project}", f"service={service}", f"container-number={number}")
        words = [word for each in filters for word in ("--filter", f"{label}.{each}")]
        found = ask(self._tools.container, "ps", "--all", "--quiet", *words, only_output=True).split()
        if not found:
            raise JobError(f"The container of {service} was not started, and the engine does not say why.")
        return found[0]

    def _compose(
        self, *words: str, environment: Mapping[str, str], seconds: float = START_SECONDS, must: bool = True
    ) -> None:
        """Run a compose command; it has a session of its own, so that Ctrl-C does not reach it."""
        deadline = time.monotonic() + seconds
        with subprocess.Popen(
            [*self._base, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
            start_new_session=True,
        ) as process:
            try:
                while True:
                    try:
                        said, _ = process.communicate(timeout=LOOK_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        if must:
                            self._pause(0.0)
                        if time.monotonic() > deadline:
                            raise JobError(f"'{words[0]}' of the cluster took over {seconds:g} s.") from None
            except BaseException:
                process.kill()
                raise
        if process.returncode and must:
            last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
            raise JobError(
                f"{' '.join([*self._tools.compose, *words])} failed with exit code {process.returncode}. "
                f"Its last words: {''.join(last)[:300]}"
            )


def ask(*command: str, only_output: bool = False, seconds: float = ASK_SECONDS) -> str:
    """Run a short command and return what it said; empty if it failed, or took too long.

    Args:
        command: its words.
        only_output: leave out standard error.
        seconds: no longer than this.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if only_output else subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _answers(*command: str) -> bool:
    return bool(shutil.which(command[0])) and bool(ask(*command))
