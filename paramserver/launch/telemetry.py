"""What the processes of a run tell: logs and metrics. It is no part of a job, for it changes no result."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from paramserver.errors import RequestError
from paramserver.job import Job
from paramserver.launch.log_cap import LOG_BYTES_MAX, LOG_BYTES_MIN

PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Telemetry:
    """How processes write logs and where servers serve metrics.

    Attributes:
        log_format: ``text`` or ``json``.
        log_level: the least that is written: ``debug``, ``info``, ``warning`` or ``error``.
        log_bytes_max: of the log of each process.
        metrics_port: of the first server's metrics, the next one's is one more; 0: free ones; None: none.
    """

    log_format: str = "text"
    log_level: str = "info"
    metrics_port: int | None = None
    log_bytes_max: int = LOG_BYTES_MAX

    def check(self, job: Job) -> None:
        """Refuse what cannot be had.

        Args:
            job: whose processes they are.

        Raises:
            RequestError: a port is none, there are no such servers, or prometheus-client is not installed.
        """
        if self.log_bytes_max < LOG_BYTES_MIN:
            raise RequestError(f"--log-bytes-max is at least {LOG_BYTES_MIN:,}, not {self.log_bytes_max:,}.")
        if job.engine == "compose" and self.log_bytes_max != LOG_BYTES_MAX:
            raise RequestError(
                "--log-bytes-max is for logs of processes on this machine, and those of containers are "
                "kept by their engine, which has limits of its own. Leave it out."
            )
        if self.metrics_port is None:
            return
        if job.engine != "local":
            raise RequestError(
                "--metrics-port is for servers that are processes on this machine, as the engine 'local' has "
                f"them, and the engine of this job is '{job.engine}'. Leave it out."
            )
        last = self.metrics_port + job.servers - 1 if self.metrics_port else 0
        if self.metrics_port < 0 or last > PORT_MAX:
            raise RequestError(
                f"The ports of metrics would be {self.metrics_port} to {last}, and ports are from 0 to "
                f"{PORT_MAX}. Choose another --metrics-port."
            )
        if importlib.util.find_spec("prometheus_client") is None:
            raise RequestError(
                "Metrics need the package prometheus-client, which is not installed. Install it with "
                "pip install 'paramserver[metrics]', or leave --metrics-port out."
            )

    def options(self, server: int | None = None) -> list[str]:
        """Return what a process is told on its command line.

        Args:
            server: the index of a server; None for a worker.
        """
        told = ["--log-format", self.log_format, "--log-level", self.log_level]
        if server is None or self.metrics_port is None:
            return told
        return [*told, "--metrics-port", str(self.metrics_port + server if self.metrics_port else 0)]
