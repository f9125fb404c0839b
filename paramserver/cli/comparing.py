"""A comparison as a person at a terminal sees it; imported only once one is wanted."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paramserver.cli.worlds import read_world
from paramserver.comparison import MEASURES, Comparison, Outcome
from paramserver.consistency import parse_consistency
from paramserver.errors import RequestError
from paramserver.job_file import read_job
from paramserver.launch.compare import Listener, Series, compare
from paramserver.launch.live import make_reporter
from paramserver.launch.progress import Reporter

SEEDS_MAX = 1000
ENGINES = ("local", "sim")


def compare_and_show(
    rules: Sequence[str],
    seeds: str,
    text: str,
    source: str,
    given: Mapping[str, Any],
    world_given: Mapping[str, Any],
    out: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Compare, show how it goes, and print the table.

    Args:
        rules: consistency models.
        seeds: how many, or which.
        text: of the job file; may be empty.
        source: the job file's name.
        given: options of the command line, which win.
        world_given: those that are about a simulated world.
        out: the folder; None for one with the time as its name.
        quiet: show no progress.
        as_json: print nothing but the comparison to standard output; progress goes to standard error.

    Returns:
        The exit code.

    Raises:
        RequestError: the input is wrong.
        JobError: the disk refuses.
    """
    names = _checked(rules)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        job, code = read_job(text, source, given)
        if job.engine not in ENGINES:
            raise RequestError(
                f"Runs are compared in real or in virtual time, but the engine is {job.engine}, which has "
                "one replica after the other. Choose --engine local or sim."
            )
        series = Series(
            replace(job, target_accuracy=0.0),
            names,
            parse_seeds(seeds, job.seed),
            _checked_target(job.target_accuracy),
            code,
            lambda one: read_world(one, world_given),
        )
        console = _console(sys.stdout)
        comparison, folder, exit_code = compare(series, out, Listener() if quiet else _Teller(console))
    if as_json:
        print((folder / "compare.json").read_text(encoding="utf-8"), end="")
    else:
        print_comparison(console, comparison, folder)
    if exit_code > 1:
        print(
            f"paramserver: Interrupted; {len(comparison.runs)} of {comparison.planned} runs had ended.",
            file=sys.stderr,
        )
    elif exit_code:
        failed = sum(bool(run.reason) for run in comparison.runs)
        print(f"paramserver: {failed} of {comparison.planned} runs failed.", file=sys.stderr)
    return exit_code


def parse_seeds(text: str, first: int) -> tuple[int, ...]:
    """Read seeds.

    Args:
        text: how many, or which, with commas between them.
        first: the seed from which so many count.

    Raises:
        RequestError: it is neither, or a seed is there twice.

    Example:
        >>> parse_seeds("3", 10), parse_seeds("4,", 0), parse_seeds("1, 5", 0)
        ((10, 11, 12), (4,), (1, 5))
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise RequestError(f"--seeds takes how many, such as 5, or which, such as 0,3,7, but it is '{text}'.")
    numbers = tuple(int(part) for part in parts)
    if "," not in text:
        if not 1 <= numbers[0] <= SEEDS_MAX:
            raise RequestError(
                f"--seeds counts 1 to {SEEDS_MAX:,} seeds, but it is {text}. For one certain seed end "
                f"with a comma: --seeds {text},"
            )
        return tuple(range(first, first + numbers[0]))
    if len(set(numbers)) < len(numbers):
        raise RequestError(f"Each seed runs once, but --seeds {text} has one twice.")
    return numbers


def print_comparison(console: Console, comparison: Comparison, folder: Path) -> None:
    """Print the table of a comparison, and where the rest is.

    Args:
        console: where; 80 columns suffice.
        comparison: of at least one run.
        folder: of the comparison.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for each in MEASURES:
        table.add_column(each.title, justify="right")
    for rule in comparison.rules:
        table.add_row(
            Text(rule, style="bold"),
            *(Text.assemble(one, (f"\n{two}" if two else "", "dim")) for one, two in comparison.cells(rule)),
        )
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)
    lines = [*comparison.notes, comparison.target.why]
    if any(len(comparison.finished(rule)) > 1 for rule in comparison.rules):
        lines.insert(0, "Median over the seeds; below it the least and the greatest.")
    lines += [f"{run.rule}, seed {run.seed} failed: {run.reason}" for run in comparison.runs if run.reason]
    console.print("\n" + "\n".join(lines), markup=False, highlight=False)
    console.print(f"The page is {folder / 'compare.html'}.", markup=False, highlight=False, soft_wrap=True)


class _Teller(Listener):
    """Says at a terminal how the comparison goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._runs = 0

    def reporter(self) -> Reporter:
        return _Wordless(make_reporter(self._console, quiet=False))

    def began(self, what: str, folder: Path, runs: int) -> None:
        self._runs = runs
        self._say(f"Comparing {what}: {runs} runs.\nThe folder is {folder}.")

    def ended(self, outcome: Outcome, number: int) -> None:
        summary = outcome.summary
        if outcome.reason:
            told = f"failed: {outcome.reason}"
        else:
            unit = "virtual s" if summary["engine"] == "sim" else "s"
            told = f"{summary['wall_seconds']:,.2f} {unit}"
            if summary["accuracy"] is not None:
                told += f", accuracy {summary['accuracy']:.4f}"
        self._say(f"{number} of {self._runs}: {outcome.rule}, seed {outcome.seed}: {told}")

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)


class _Wordless:
    """Shows the progress of a run without what the run says of itself: the comparison says that."""

    def __init__(self, reporter: Reporter) -> None:
        self.update, self.show, self.close = reporter.update, reporter.show, reporter.close

    def note(self, sentence: str) -> None:
        """Do nothing."""


def _checked(rules: Sequence[str]) -> tuple[str, ...]:
    for rule in rules:
        parse_consistency(rule)
        if rules.count(rule) > 1:
            raise RequestError(f"A comparison is of different rules, but {rule} is there twice.")
    return tuple(rules)


def _checked_target(target: float) -> float:
    if not 0 <= target <= 1:
        raise RequestError(f"'target_accuracy' must be from 0 to 1, such as 0.95, but it is {target}.")
    return target


def _console(stream: TextIO) -> Console:
    return Console(file=stream, force_terminal=None if stream.isatty() else False)
