"""The command ``compare``: one job under several consistency models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from paramserver.cli.job_arguments import read_job_file, takes_job
from paramserver.cli.job_options import RUN, AsJson, Out, Quiet
from paramserver.errors import RequestError

USUAL_RULES = ("sync", "async", "ssp:3")
USUAL_SEEDS = "3"

FILES = (".toml", ".py")


@takes_job(without=("consistency", "target_accuracy"))
def compare(
    given: dict[str, Any],
    world_given: dict[str, Any],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RULE]... [JOB.toml|CODE.py]",
            help="Consistency models such as sync, async and ssp:3 (the default), and a job file, whose keys "
            "are the options below, or Python with a model or data of your own.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(
            metavar="N|LIST",
            help="How many seeds from --seed on, or which, such as 3,7,11. (default: 3)",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = USUAL_SEEDS,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Validation accuracy to which times are taken; runs go on after it. "
            "(default: 0.99 of the lowest best)",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Run one job under several consistency models, and put them side by side.

    Each runs with each seed, one after the other and to its end.
    The folder has a table of numbers (compare.json), a page with curves (compare.html), and all run folders.
    """
    rules, job_file = split_words(words or [])
    if target_accuracy is not None:
        given["target_accuracy"] = target_accuracy
    text, source, given = read_job_file(job_file, given)
    from paramserver.cli.comparing import compare_and_show

    return compare_and_show(
        rules or USUAL_RULES, seeds, text, source, given, world_given, out, quiet, as_json
    )


def split_words(words: list[str]) -> tuple[list[str], Path | None]:
    """Tell consistency models and a file apart: a file ends in .toml or .py, and no rule does.

    Raises:
        RequestError: there are two files.

    Example:
        >>> split_words(["sync", "job.toml", "ssp:2"])
        (['sync', 'ssp:2'], PosixPath('job.toml'))
    """
    files = [word for word in words if word.lower().endswith(FILES)]
    if len(files) > 1:
        raise RequestError(
            f"A comparison is of one job, but {files[0]} and {files[1]} are both files. Give one."
        )
    rules = [word for word in words if word not in files]
    return rules, Path(files[0]) if files else None
