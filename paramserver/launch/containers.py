"""The engine of containers: the services of compose.yaml, started by Docker or by Podman."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import paramserver
from paramserver.errors import JobError, RequestError
from paramserver.launch.engine import Role

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
"""Longer than the grace period of the servers in compose.yaml."""

LOOK_SECONDS = 0.5


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
        name: for people.
        number: its id with the engine.
        tools: of the engine.
    """

    def __init__(self, name: str, number: str, tools: Tools) -> None:
        self._name = name
        self._tools = tools
        self._code: int | None = None
        self.number = number

    @property
    def name(self) -> str:
        """For people, such as ``server 0``."""
        return self._name

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        if self._code is None:
            state = "{{.State.Status}} {{.State.ExitCode}}"
            told = ask(self._tools.container, "inspect", "--format", state, self.number).split()
            if told and told[0] in ("exited", "dead", "removing"):
                self._code = int(told[1])
        return self._code

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, but no longer than this, and return `code`."""
        deadline = time.monotonic() + seconds
        while self.code is None and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return self.code

    def stop(self) -> None:
        """Send it SIGTERM."""
        ask(self._tools.container, "kill", "--signal", "TERM", self.number)

    def logs(self) -> str:
        """Return what it has written."""
        return ask(self._tools.container, "logs", self.number)

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
        started: the containers that there are, server 0 first.
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
        self._pending: list[Container] = []
        self.started: list[Container] = []

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
        if role == "worker":
            self._pending.append(container)
            if len(self._pending) < self._workers:
                return container
        self._compose("up", "--detach", "--no-build", "--no-deps", service, environment=environment)
        started = self._pending if role == "worker" else [container]
        self._pending = []
        for number, each in enumerate(started, 1):
            each.number = self._find(service, number)
            self.started.append(each)
        return container

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
