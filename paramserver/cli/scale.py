"""The command ``scale``: a job with more and more workers, in virtual time."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from paramserver.cli.job_arguments import read_job_file, takes_job
from paramserver.cli.job_options import HOW, RUN, WHO, AsJson, JobFile, Quiet

USUAL_WORKERS = "1..1000"


@takes_job(without=("workers", "threads", "shards", "engine", "trace", "problem"))
def scale(
    given: dict[str, Any],
    world_given: dict[str, Any],
    job_file: JobFile = None,
    problem: Annotated[
        str | None,
        typer.Option(
            metavar="PROBLEM",
            help="What is trained: timing:SIZE (weights of such a size, and no gradients), quadratic:H or "
            "logistic. (default: timing, or the data and model that are given)",
            show_default=False,
            rich_help_panel=HOW,
        ),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Numbers of workers, such as 1..10000 or 1,2,4,8. (default: 1..1000)",
            show_default=False,
            rich_help_panel=WHO,
        ),
    ] = USUAL_WORKERS,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Threads of each worker; each is a replica. (default: 1)",
            show_default=False,
            rich_help_panel=WHO,
        ),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Shards of each server. (default: 1)",
            show_default=False,
            rich_help_panel=WHO,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for scale.json, scale.svg and scale.html, new or empty. (default: none is written)",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Run a job with more and more workers in virtual time, and say what holds it up.

    Each resource has a share of the time for which it is busy; the largest names the bottleneck.
    """
    text, source, given = read_job_file(job_file, given)
    from paramserver.cli.scaling import scale_and_show

    own = {"problem": problem, "threads": threads, "shards": shards}
    given |= {name: value for name, value in own.items() if value is not None}
    return scale_and_show(workers, text, source, given, world_given, out, quiet, as_json)
