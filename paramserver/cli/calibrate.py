"""The command ``calibrate``: from a short real run to a world file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from paramserver.cli.job_arguments import read_job_file, takes_job
from paramserver.cli.job_options import JobFile


@takes_job(without=("engine", "problem", "steps", "trace"))
def calibrate(
    given: dict[str, Any],
    job_file: JobFile = None,
    out: Annotated[Path, typer.Option(metavar="FILE.toml", help="World file to write; a new one.")] = Path(
        "world.toml"
    ),
    seconds: Annotated[float, typer.Option(metavar="SECONDS", help="How long to measure.")] = 15.0,
    connect: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="A fresh server elsewhere, started with --shards 1: the way to it is measured, too.",
            show_default=False,
        ),
    ] = "",
) -> int:
    """Measure this machine by a short real run of a job, and write a world file for paramserver simulate.

    One replica in this process trains against servers of its own. Data, model, batch, optimizer and code are
    those of the job; its machines, consistency and epochs do not matter.
    """
    text, source, given = read_job_file(job_file, given)
    from paramserver.cli.calibrating import calibrate_and_show

    return calibrate_and_show(text, source, given, out, seconds, connect)
