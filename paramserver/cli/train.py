"""The commands ``train`` and ``simulate``: options over job file over defaults, then one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from paramserver.cli.job_arguments import read_job_file, takes_job
from paramserver.cli.job_options import RUN, AsJson, JobFile, Out, Quiet
from paramserver.cli.resuming import read_resumed_job
from paramserver.errors import RequestError, did_you_mean
from paramserver.logs import FORMATS, LEVELS, set_up_logs


@takes_job
def train(
    given: dict[str, Any],
    world_given: dict[str, Any],
    job_file: JobFile = None,
    out: Out = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with this run, whose folder it is, from its newest checkpoint. (default: a new run)",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Serve metrics for Prometheus: the first server here, each next one a port higher; 0 takes "
            "free ones. (default: none)",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    log_format: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="Logs as text, or as json: an object a line, progress on standard error among them. "
            "(default: text)",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = "text",
    log_level: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="Least that is logged: debug, info, warning or error. (default: info)",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = "info",
    log_bytes_max: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            help="Leave out the older half of a process's log where it grows beyond this. (default: 2^26)",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    chaos: Annotated[
        str | None,
        typer.Option(
            metavar="FAULTS",
            help="What goes wrong on purpose, such as 'lose=1% cut=1% kill=w1@3s pause=w0@4s+1s'. "
            "(default: nothing)",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    chaos_seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Seed of all chance in that. (default: the job's seed)",
            show_default=False,
            min=0,
            rich_help_panel=RUN,
        ),
    ] = None,
) -> int:
    """Train a model on this machine, evaluate it, and say what happened.

    Without any option it trains a small network on handwritten digits in synchronous mode.
    """
    for name, value, known in (("format", log_format, FORMATS), ("level", log_level, LEVELS)):
        if value not in known:
            raise RequestError(
                f"--log-{name} is one of {', '.join(known)}, not '{value}'.{did_you_mean(value, known)}"
            )
    if log_format == "json":
        set_up_logs(log_format, log_level, "train", None, "train")
    if resume is None:
        text, source, given = read_job_file(job_file, given)
    else:
        besides = {str(job_file): job_file, "--out": out, **{f"--{name}": name for name in world_given}}
        text, source, given = read_resumed_job(resume, besides, given)
    from paramserver.chaos.plan import Asked
    from paramserver.cli.running import run_and_show
    from paramserver.launch.log_cap import LOG_BYTES_MAX
    from paramserver.launch.telemetry import Telemetry

    bytes_max = LOG_BYTES_MAX if log_bytes_max is None else log_bytes_max
    telemetry = Telemetry(log_format, log_level, metrics_port, bytes_max)
    asked = None if chaos is None else Asked(chaos, chaos_seed)
    return run_and_show(text, source, given, world_given, out, quiet, as_json, telemetry, asked, resume)


@takes_job(without=("engine",))
def simulate(
    given: dict[str, Any],
    world_given: dict[str, Any],
    job_file: JobFile = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Train in virtual time, in a world whose costs and faults you name.

    The same training, servers and messages as in a real run, with real gradients; only time is virtual. The
    same seeds give the same run to the byte. It is the same as train --engine sim.
    """
    text, source, given = read_job_file(job_file, given)
    from paramserver.cli.running import run_and_show

    return run_and_show(text, source, {**given, "engine": "sim"}, world_given, out, quiet, as_json)
