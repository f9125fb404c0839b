"""What a worker is told when it starts. Imports no numpy: it is read before that may be loaded."""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import dataclass
from pathlib import Path

from paramserver.errors import did_you_mean

BLAS_THREADS = 1
"""Threads of linear algebra where the job says nothing; `paramserver.job` has the same."""


@dataclass(frozen=True, slots=True)
class Options:
    """A worker's options; see ``--help``. ``threads`` is None where the job's count is to be taken."""

    connect: str
    job: Path
    code: Path | None
    worker: int
    threads: int | None
    evaluate: bool
    join_timeout_seconds: float
    exit_with_parent: bool
    log_level: str

    @property
    def name(self) -> str:
        """Return what this process is called: ``evaluator`` or ``worker0``."""
        return "evaluator" if self.evaluate else f"worker{self.worker}"


def read_options(arguments: list[str]) -> Options:
    """Read the command line.

    Raises:
        SystemExit: 2 where an option is missing, unknown or malformed, 0 after ``--help``.
    """
    parser = _parser()
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        options_known = [option for action in parser._actions for option in action.option_strings]
        parser.error(f"There is no option '{unknown[0]}'.{did_you_mean(unknown[0], options_known)}")
    return Options(**vars(known))


def blas_threads(job: Path) -> int:
    """Return how many threads a job file wants for linear algebra; what is wrong with it is found later."""
    try:
        threads = tomllib.loads(job.read_text()).get("blas_threads", BLAS_THREADS)
    except (OSError, ValueError):
        return BLAS_THREADS
    return threads if isinstance(threads, int) else BLAS_THREADS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -P -m worker",
        description="One worker of a job: threads that each train a replica. With --evaluate: the evaluator.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--connect", metavar="HOST:PORT", type=_address, required=True, help="server 0")
    add("--job", metavar="FILE", type=Path, required=True, help="the job file, the same for all workers")
    add("--code", metavar="FILE.py", type=Path, default=None, help="your own code, if the job has any")
    add("--worker", metavar="INDEX", type=_whole, default=0, help="this worker's index (default: 0)")
    add("--threads", metavar="N", type=_positive, default=None, help="replicas here (default: the job's)")
    add("--evaluate", action="store_true", help="train nothing; score the weights while others train")
    add(
        "--join-timeout-seconds",
        metavar="SECONDS",
        type=_seconds,
        default=60.0,
        help="how long to try while the servers are not up (default: 60)",
    )
    add("--exit-with-parent", action="store_true", help="end when standard input, a pipe, is closed")
    add(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="debug shows tracebacks, too (default: info)",
    )
    return parser


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, and found '{text}'")
    return text


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0, and found '{text}'")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, and found '{text}'")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, and found '{text}'")
    return value
