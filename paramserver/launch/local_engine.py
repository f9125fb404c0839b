"""The engine of processes: servers and workers on this machine, which end with whoever started them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from paramserver.chaos.plan import Plan
from paramserver.errors import JobError
from paramserver.launch.addresses import write_addresses
from paramserver.launch.children import Child, Children
from paramserver.launch.engine import Role
from paramserver.launch.interruption import Interruption
from paramserver.launch.processes import write_processes
from paramserver.launch.programs import command
from paramserver.launch.secrets import Secrets
from paramserver.launch.telemetry import Telemetry
from paramserver.launch.traces import Traces
from paramserver.storage import RunFolder
from paramserver.workload import Workload

EVALUATOR = "evaluator"

LOOK_SECONDS = 0.02
"""Between two looks at a log for the port of a server that comes up."""

LISTENING = r"listening (\S+)"
METRICS = r"metrics (\S+)"
"""What a server says, as a line of its log, once it is up."""

SCORE_SECONDS = 60.0
"""How long the coordinator waits for the evaluator's score at the end: a pass over the test set."""


class LocalEngine:
    """Starts the programs of one job as processes.

    Args:
        plan: the job.
        folder: of the run.
        children: where the processes are kept.
        traces: which of them leave one.
        telemetry: what they tell.
        interruption: entered.
        start_deadline: until when server 0 has to listen, by ``time.monotonic``.
        secrets: of the run.
        chaos: what goes wrong on purpose; None for nothing.
        resumes: the job goes on with what is in the run folder.

    Attributes:
        address: of server 0, once it has been started.
        metrics: URLs of the metrics of the servers that have been started, by index.
    """

    def __init__(
        self,
        plan: Workload,
        folder: RunFolder,
        children: Children,
        traces: Traces,
        telemetry: Telemetry,
        interruption: Interruption,
        start_deadline: float,
        secrets: Secrets,
        chaos: Plan | None = None,
        *,
        resumes: bool = False,
    ) -> None:
        self._chaos = chaos
        self._secrets = secrets
        self._resumes = resumes
        self._started: dict[str, tuple[Role, int, Mapping[str, str]]] = {}
        self._job = plan.job
        self._folder = folder
        self._children = children
        self._traces = traces
        self._telemetry = telemetry
        self._interruption = interruption
        self._start_deadline = start_deadline
        self._addresses: dict[int, str] = {}  # of servers that were started again
        self.address = ""
        self.metrics: list[str] = []

    def start(self, role: Role, rank: int, environment: Mapping[str, str]) -> Child:
        """Start a process; after server 0 this waits until it listens, since the others need its address.

        After any server it waits until its metrics are served, if they are wanted.
        """
        child = self._start(role, rank, environment, self._first_arguments() if role == "server" else [])
        if role == "server" and rank == 0:
            self.address = self._await_line(child, LISTENING)
        if role == "server" and self._telemetry.metrics_port is not None:
            self.metrics.append(self._await_line(child, METRICS))
        if role == "server":
            write_addresses(self._folder, self.address, self.metrics)
        return child

    def restart(self, ended: Child) -> Child:
        """Start a process that has ended again, a server on its old port; waits for nothing.

        Args:
            ended: that process.

        Raises:
            JobError: it cannot be started.
        """
        role, rank, environment = self._started[ended.name]
        more: list[str] = []
        if role == "server":
            address = ended.find(LISTENING)
            self._addresses[rank] = address or self._addresses.get(rank, "127.0.0.1:0")
            more = ["--recover", "--listen", self._addresses[rank]]
            if rank < len(self.metrics):
                more += ["--metrics-port", str(urlsplit(self.metrics[rank]).port)]
        return self._start(role, rank, environment, more)

    def _start(self, role: Role, rank: int, environment: Mapping[str, str], more: list[str]) -> Child:
        name = EVALUATOR if role == "evaluator" else f"{role} {rank}"
        self._started[name] = role, rank, environment
        if role == "server":
            more = [*more, *(self._chaos.server_options() if self._chaos is not None else [])]
            line = command("server", self._server_arguments(rank) + self._traces.options(name) + more)
        else:
            more = ["--evaluate"] if role == "evaluator" else self._traces.options(name)
            if role == "worker" and self._chaos is not None:
                more = [*more, *self._chaos.options(rank)]
            line = command("worker", self._worker_arguments(rank) + more)
        child = self._children.start(name, line, {**environment, **self._secrets.environment(role)})
        with suppress(JobError):  # whoever looks for processes finds an older list, and the job goes on
            write_processes(self._folder, self._children.all)
        return child

    def _first_arguments(self) -> list[str]:
        """Return what only the first process of a server is told."""
        listen = ["--listen", "127.0.0.1:0"]
        return [*listen, "--recover", "--resume"] if self._resumes else listen

    def _server_arguments(self, rank: int) -> list[str]:
        job = self._job
        arguments = ["--server", str(rank), "--servers", str(job.servers)]
        arguments += ["--shards", str(job.shards), "--out", str(self._folder.path), "--exit-with-parent"]
        arguments += ["--checkpoint-keep", str(job.checkpoint_keep), *self._telemetry.options(rank)]
        if job.durability == "none":
            arguments.append("--no-recovery")
        if rank:
            return [*arguments, "--coordinator", self.address]
        return [*arguments, "--score-grace-seconds", str(SCORE_SECONDS)]

    def _worker_arguments(self, rank: int) -> list[str]:
        job = self._job
        arguments = ["--connect", self.address, "--job", str(self._folder.path / "job.toml")]
        arguments += ["--worker", str(rank), "--threads", str(job.threads), "--exit-with-parent"]
        arguments += ["--join-timeout-seconds", str(job.start_timeout), *self._telemetry.options()]
        return [*arguments, "--code", job.code] if job.code else arguments

    def _await_line(self, server: Child, pattern: str) -> str:
        """Wait until a server has said where it listens, and return what it said."""
        while (found := server.find(pattern)) is None:
            if server.code is not None:
                raise JobError(server.epitaph())
            if time.monotonic() > self._start_deadline:
                raise JobError(
                    f"The process of {server.name} did not begin to listen within "
                    f"{self._job.start_timeout:g} s. See {server.log}, or give more --start-timeout."
                )
            self._interruption.wait(LOOK_SECONDS)
        return found
