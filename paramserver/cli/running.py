"""One run as a person at a terminal sees it; imported only once a run is wanted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from paramserver.errors import RequestError
from paramserver.job import CODE, Job, job_values, job_values_from_toml
from paramserver.launch.interruption import Interrupted
from paramserver.launch.progress import make_reporter
from paramserver.launch.report import print_report
from paramserver.launch.run import run
from paramserver.storage import json_text
from paramserver.user_code import UserCode, load_code

TOO_LATE = ("blas_threads", "code", "code_sha256")
"""What cannot be said in a Python file: numpy is loaded by then, or it is the file itself."""


def run_and_show(
    text: str, source: str, given: Mapping[str, Any], out: Path | None, quiet: bool, as_json: bool
) -> int:
    """Run a job, show its progress and its summary.

    Args:
        text: of the job file; may be empty.
        source: the job file's name.
        given: options of the command line, which win.
        out: the run folder; None for one with the time as its name.
        quiet: show no progress.
        as_json: print nothing but the summary to standard output; progress goes to standard error.

    Returns:
        The exit code.

    Raises:
        RequestError: the input is wrong.
        JobError: the job failed.
    """
    # What a user's own code prints must not end up between the lines of the summary.
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        job, code = read_job(text, source, given)
        reporter = make_reporter(_console(sys.stdout), quiet)
        try:
            summary, folder = run(job, out, reporter, code)
        except Interrupted as interrupted:
            print(f"paramserver: {interrupted} Every process of the job has ended.", file=sys.stderr)
            return interrupted.code
    if as_json:
        print(json_text(summary, indent=2))
    else:
        print_report(_console(sys.stdout), summary, folder)
    return 0


def read_job(text: str, source: str, given: Mapping[str, Any]) -> tuple[Job, UserCode | None]:
    """Put a job together: options win over the job file, which wins over what a user's code says.

    Args:
        text: of the job file; may be empty.
        source: the job file's name; empty for none.
        given: options of the command line. Only ``code`` among them, never that of the job file, is run.

    Returns:
        The job, and the user's code if any was named.

    Raises:
        RequestError: something of it is wrong, or contradicts something else.
    """
    options = job_values(given, "the command line")
    file = job_values_from_toml(text, source) if source else {}
    if not options.get("code"):
        return Job(**{**file, **options}), None
    code = load_code(Path(options["code"]), file.get("code_sha256", ""))
    own = job_values(code.options, f"JOB in {code.path.name}")
    if late := [name for name in TOO_LATE if name in own]:
        raise RequestError(f"JOB in {code.path.name} cannot say '{late[0]}'. Say it on the command line.")
    values = {**own, **file, **options, "code": str(code.path), "code_sha256": code.sha256}
    for name in ("data", "model"):
        if not code.defines(name):
            continue
        said = {**own, **file, **options}.get(name, CODE)
        if said != CODE:
            raise RequestError(
                f"{code.path.name} defines '{name}', so the {name} cannot be '{said}', too. Drop one of them."
            )
        values[name] = CODE
    return Job(**values), code


def _console(stream: TextIO) -> Console:
    """Return a console that writes control codes to a terminal and to nothing else."""
    return Console(file=stream, force_terminal=None if stream.isatty() else False)
