"""What ``scale`` shows; imported only once it is wanted."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from paramserver.cli.worlds import read_world
from paramserver.errors import RequestError
from paramserver.job_file import read_job
from paramserver.launch.interruption import Interrupted
from paramserver.launch.scale import Scaling, leave, scale
from paramserver.scaling import Point, parse_counts
from paramserver.scaling.page import as_mapping, table, turns
from paramserver.storage import create_run_folder, json_text

TRAINED = ("problem", "data", "model", "code")
"""If none of them is said, nothing is trained and only time passes."""


def scale_and_show(
    workers: str,
    text: str,
    source: str,
    given: Mapping[str, Any],
    world_given: Mapping[str, Any],
    out: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run each number of workers, show how it goes, and print what was found.

    Args:
        workers: numbers of workers, as `parse_counts` reads them.
        text: of the job file; may be empty.
        source: the job file's name.
        given: options of the command line, which win.
        world_given: those that are about the world.
        out: the folder; None for none.
        quiet: show no progress.
        as_json: print nothing but one JSON document to standard output.

    Returns:
        The exit code.

    Raises:
        RequestError: the input is wrong.
        JobError: a run failed.
    """
    counts = parse_counts(workers)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # what a user's own code prints
        scaling = _scaling(counts, text, source, given, world_given)
        try:
            with nullcontext() if out is None else create_run_folder(Path(out), time.time()) as folder:
                points = _run(scaling, quiet)
                if folder is not None:
                    leave(scaling, points, ["paramserver", *sys.argv[1:]], folder)
        except Interrupted as interrupted:
            print(f"paramserver: {interrupted}", file=sys.stderr)
            return interrupted.code
    one, shown = points[0], [point for point in points if point.workers in counts]
    if as_json:
        print(json_text({"what": scaling.what, **as_mapping(shown, one)}, indent=2))
    else:
        _show(scaling, shown, one, out)
    return 0


def _run(scaling: Scaling, quiet: bool) -> list[Point]:
    errors = Console(file=sys.stderr)
    if quiet or not errors.is_terminal:
        return scale(scaling)
    with errors.status(f"{scaling.what}: 1 worker", spinner="line") as status:
        return scale(scaling, lambda point: status.update(f"{scaling.what}: after {point.workers:,} workers"))


def _scaling(
    counts: Sequence[int],
    text: str,
    source: str,
    given: Mapping[str, Any],
    world_given: Mapping[str, Any],
) -> Scaling:
    job, code = read_job(text, source, {"threads": 1, "shards": 1, **given} if not source else given)
    if not source and not any(name in given for name in TRAINED):
        job = replace(job, problem="timing")
    if source and job.workers != type(job)().workers:
        raise RequestError(
            f"{source} says 'workers', but here --workers says how many. Take it out of the job file."
        )
    job = replace(job, engine="sim", trace=False)
    world = read_world(job, world_given)
    assert world is not None, "the engine is sim"
    return Scaling(job, counts, world, code)


def _show(scaling: Scaling, points: Sequence[Point], one: Point, folder: str | None) -> None:
    console = Console(file=sys.stdout, force_terminal=None if sys.stdout.isatty() else False)
    heads, rows = table(points, one)
    # 80 columns have to do.
    grid = Table(box=None, padding=(0, 1 if "to target" in heads else 2, 0, 0), pad_edge=False)
    for head in heads[:-1]:
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_column(heads[-1], no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    with console.capture() as captured:
        console.print(f"{scaling.what}. Times are virtual.", markup=False, highlight=False)
        console.print()
        console.print(grid, markup=False, highlight=False)
        console.print()
        for sentence in turns(points):
            console.print(sentence, markup=False, highlight=False)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)  # without the filling at the right
    if folder is not None:
        console.print(f"The figures are in {folder}.", markup=False, highlight=False, soft_wrap=True)
