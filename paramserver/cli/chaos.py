"""The command ``chaos``: what can be done by hand to the processes of a running job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paramserver.errors import RequestError

chaos = typer.Typer(name="chaos", help="Kill, pause, slow or resume a process of a running job, by hand.")

Who = Annotated[
    str,
    typer.Argument(
        metavar="WORKER", help="Whom: worker1 or w1, server0 or s0, or evaluator.", show_default=False
    ),
]
Run = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="DIR",
        help="The folder of the run. (default: the newest in runs/ that is going on)",
        show_default=False,
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="For how long. (default: until it is resumed)", show_default=False, min=0.0
    ),
]


@chaos.command()
def kill(worker: Who, run: Run = None) -> int:
    """Kill a process, as kill -9 does: it can do nothing about it."""
    from paramserver.cli.striking import kill_process

    return kill_process(worker, run)


@chaos.command()
def pause(worker: Who, run: Run = None, seconds: Seconds = None) -> int:
    """Stop a process whole: it computes, hears and says nothing, until it is resumed."""
    from paramserver.cli.striking import pause_process

    return pause_process(worker, run, seconds)


@chaos.command()
def resume(worker: Who, run: Run = None) -> int:
    """Let a paused process go on."""
    from paramserver.cli.striking import resume_process

    return resume_process(worker, run)


@chaos.command()
def slow(
    worker: Who,
    run: Run = None,
    by: Annotated[
        float,
        typer.Option(metavar="TIMES", help="How many times slower. (default: 4)", show_default=False),
    ] = 4.0,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="For how long. (default: until Ctrl-C)", show_default=False, min=0.0
        ),
    ] = None,
) -> int:
    """Make a process slow: it is paused and resumed again and again while this command runs.

    A process so rests ten times a second, a container every two seconds.
    """
    if not 1 < by <= 100:
        raise RequestError(f"--by is above 1 and at most 100, and {by:g} was given.")
    from paramserver.cli.striking import slow_process

    return slow_process(worker, run, by, seconds)
