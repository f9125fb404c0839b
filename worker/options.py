"""What a worker is told when it starts. Imports no numpy: it is read before that may be loaded."""

from __future__ import annotations

import os
import socket
import tomllib
from dataclasses import dataclass
from pathlib import Path

from paramserver.arguments import ArgumentParser, address, positive, seconds, whole
from paramserver.errors import RequestError
from paramserver.logs import FORMATS, LEVELS
from paramserver.security.access import Access, add_access_options, read_access

BLAS_THREADS = 1
"""Threads of linear algebra where the job says nothing; `paramserver.job` has the same."""


CODE_VARIABLE = "PARAMSERVER_CODE"
"""Names a Python file as ``--code`` does: many workers may share a command line, and an environment."""


@dataclass(frozen=True, slots=True)
class Options:
    """A worker's options; see ``--help``. ``threads`` is None where the job's count is to be taken."""

    connect: str
    job: Path
    code: Path | None
    worker: int | None
    named_by_host: bool
    named_in: Path | None
    threads: int | None
    evaluate: bool
    join_timeout_seconds: float
    leave_on_stop: bool
    restarts: bool
    exit_with_parent: bool
    log_level: str
    log_format: str
    trace: Path | None
    access: Access
    chaos: str
    chaos_seed: int

    @property
    def index(self) -> int | None:
        """Return this worker's index; None where it is called as its machine is."""
        return None if self.named_by_host else self.worker or 0

    @property
    def name(self) -> str:
        """Return what this process is called: ``evaluator``, ``worker0``, or as the machine is."""
        if self.evaluate:
            return "evaluator"
        return socket.gethostname() if self.named_by_host else f"worker{self.worker or 0}"


def read_options(arguments: list[str]) -> Options:
    """Read the command line.

    Raises:
        RequestError: an option is missing, unknown or malformed, or they contradict each other.
        SystemExit: 0 after ``--help``.
    """
    given = vars(_parser().read(arguments))
    files = [given.pop(name) for name in ("token_file", "tls_ca", "tls_cert", "tls_key")]
    options = Options(**given, access=read_access(*files))
    names = [options.worker is not None, options.named_by_host, options.named_in is not None]
    if sum(names) > 1:
        raise RequestError(
            "--worker, --named-by-host and --named-in all say what this worker is called. Give one."
        )
    if options.evaluate and options.trace is not None:
        raise RequestError("An evaluator trains nothing that could be recorded. Leave --trace out.")
    return options


def blas_threads(job: Path) -> int:
    """Return how many threads a job file wants for linear algebra; what is wrong with it is found later."""
    try:
        threads = tomllib.loads(job.read_text()).get("blas_threads", BLAS_THREADS)
    except (OSError, ValueError):
        return BLAS_THREADS
    return threads if isinstance(threads, int) else BLAS_THREADS


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -P -m worker",
        description="One worker of a job: threads that each train a replica. With --evaluate: the evaluator.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--connect", metavar="HOST:PORT", type=address, required=True, help="server 0")
    add("--job", metavar="FILE", type=Path, required=True, help="the job file, the same for all workers")
    add(
        "--code",
        metavar="FILE.py",
        type=Path,
        default=os.environ.get(CODE_VARIABLE) or None,
        help=f"your own code, if the job has any (default: what {CODE_VARIABLE} says)",
    )
    add("--worker", metavar="INDEX", type=whole, default=None, help="this worker's index (default: 0)")
    add(
        "--named-by-host",
        action="store_true",
        help="be called as this machine is, where workers on many machines share a command line",
    )
    add(
        "--named-in",
        metavar="DIR",
        type=Path,
        default=None,
        help="have the lowest index that no other living worker has in this folder, which all of them see: "
        "where workers on one machine share a command line",
    )
    add("--threads", metavar="N", type=positive, default=None, help="replicas here (default: the job's)")
    add("--evaluate", action="store_true", help="train nothing; score the weights while others train")
    add(
        "--join-timeout-seconds",
        metavar="SECONDS",
        type=seconds,
        default=60.0,
        help="how long to try while the servers are not up (default: 60)",
    )
    add_access_options(add)
    add(
        "--leave-on-stop",
        action="store_true",
        help="when stopped, leave the job after the present step (default: to the job it is a death)",
    )
    add(
        "--restarts",
        action="store_true",
        help="something starts this worker again whenever it ends with an error: end with 0 where that would "
        "be in vain, since the job is over",
    )
    add("--exit-with-parent", action="store_true", help="end when standard input, a pipe, is closed")
    add("--log-level", choices=LEVELS, default="info", help="debug shows tracebacks, too (default: info)")
    add("--log-format", choices=FORMATS, default="text", help="json writes an object a line (default: text)")
    add("--trace", metavar="FILE", type=Path, default=None, help="record what the replicas do, in this file")
    add(
        "--chaos",
        metavar="FAULTS",
        default="",
        help="let calls and connections go wrong on purpose, such as 'lose=1%% cut=1%%' (default: none)",
    )
    add("--chaos-seed", metavar="N", type=whole, default=0, help="seed of all chance in them (default: 0)")
    return parser
