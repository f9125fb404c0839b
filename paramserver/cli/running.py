"""One run as a person at a terminal sees it; imported only once a run is wanted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from paramserver.chaos.plan import Asked
from paramserver.cli.worlds import read_world
from paramserver.job_file import read_job
from paramserver.launch.interruption import Interrupted
from paramserver.launch.live import make_reporter
from paramserver.launch.loglines import LogLines
from paramserver.launch.progress import Reporter, Silence
from paramserver.launch.report import print_report
from paramserver.launch.run import run
from paramserver.launch.telemetry import Telemetry
from paramserver.logs import complain
from paramserver.storage import json_text

USUAL = Telemetry()


def run_and_show(
    text: str,
    source: str,
    given: Mapping[str, Any],
    world_given: Mapping[str, Any],
    out: Path | None,
    quiet: bool,
    as_json: bool,
    telemetry: Telemetry = USUAL,
    chaos: Asked | None = None,
    resume: Path | None = None,
) -> int:
    """Run a job, show its progress and its summary.

    Args:
        text: of the job file; may be empty.
        source: the job file's name.
        given: options of the command line, which win.
        world_given: those that are about a simulated world.
        out: the run folder; None for one with the time as its name.
        quiet: show no progress.
        as_json: print nothing but the summary to standard output; progress goes to standard error.
        telemetry: what the processes tell; with logs as JSON progress is a log, too.
        chaos: what goes wrong on purpose; None: nothing.
        resume: the folder of a run to go on with; None: a new run.

    Returns:
        The exit code.

    Raises:
        RequestError: the input is wrong.
        JobError: the job failed.
    """
    # What a user's own code prints must not end up between the lines of the summary.
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        job, code = read_job(text, source, given)
        world = read_world(job, world_given)
        if telemetry.log_format == "json":
            reporter: Reporter = Silence() if quiet else LogLines()
        else:
            reporter = make_reporter(_console(sys.stdout), quiet)
        try:
            summary, folder = run(job, out, reporter, code, world, telemetry, chaos, resume)
        except Interrupted as interrupted:
            complain(f"{interrupted} Every process of the job has ended.")
            return interrupted.code
    if as_json:
        print(json_text(summary, indent=2))
    else:
        print_report(_console(sys.stdout), summary, folder)
    return 0


def _console(stream: TextIO) -> Console:
    """Return a console that writes control codes to a terminal and to nothing else."""
    return Console(file=stream, force_terminal=None if stream.isatty() else False)
