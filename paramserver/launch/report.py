"""A summary as a person reads it: figures, histograms, verdicts, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paramserver.accounting import GRADIENT_NAMES, shares
from paramserver.events import PHASES
from paramserver.launch.progress import count, duration

ROWS_MAX = 10
"""Rows of a histogram; beyond that several values share a row."""

WORKERS_SHOWN = 12
"""Workers that have a row in the time budget; beyond that the total says more."""

WAITED_FOR_SHOWN = 5

BAR_CELLS = 30
EIGHTHS = " ▏▎▍▌▋▊▉█"
"""A cell filled by nothing, one eighth, ... eight eighths from the left."""

PHASE_TITLES = {"wait": "wait for others"}


def print_report(console: Console, summary: Mapping[str, Any], folder: object) -> None:
    """Print a run's summary.

    Args:
        console: where; 80 columns suffice.
        summary: of a finished run, as `paramserver.summary.summarise` made it.
        folder: the run folder.
    """
    blocks = console.encoding.lower().startswith("utf")
    parts: list[RenderableType] = [_figures(summary)]
    for key, title, unit in (
        ("staleness", "Staleness of applied gradients", "versions"),
        ("clock_gap", "Clock gap of granted reads", "clocks"),
    ):
        parts.append(_distribution(title, unit, summary[key], blocks, marks=key == "clock_gap"))
    parts += [_verdicts(summary), *_visits(summary), _time_budget(summary["time_budget"])]
    if "virtual" in summary:
        parts += _bottlenecks(summary)
    parts += [Text(note) for note in summary["notes"]]
    with console.capture() as captured:
        for part in parts:
            console.print(Padding(part, (0, 0, 1, 0), expand=False))
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)  # as rendered, without the filling at the right
    # A path is to be copied, so it must not be broken into lines.
    console.print(f"The run folder is {folder}.", markup=False, highlight=False, soft_wrap=True)


def histogram_rows(histogram: Mapping[str, int], bound: int | None, rows_max: int = ROWS_MAX) -> list[Bin]:
    """Gather a histogram into few rows of equal width.

    Args:
        histogram: counts by value; the values are written as texts, as in JSON.
        bound: a value that gets a row even if it never occurred, unless it is far away; None for no bound.
        rows_max: most rows.

    Returns:
        Bins (first value, last value, count) in ascending order without gap.

    Example:
        >>> histogram_rows({"0": 5, "2": 1}, bound=3)
        [(0, 0, 5), (1, 1, 0), (2, 2, 1), (3, 3, 0)]
        >>> histogram_rows({"0": 5, "7": 1}, bound=None, rows_max=4)
        [(0, 1, 5), (2, 3, 0), (4, 5, 0), (6, 7, 1)]
    """
    counts = {int(value): count for value, count in histogram.items()}
    if not counts:
        return []
    low, high = min(counts), max(counts)
    if bound is not None and high < bound < low + rows_max:
        high = bound
    width = -(-(high - low + 1) // rows_max)
    return [
        (first, first + width - 1, sum(counts.get(value, 0) for value in range(first, first + width)))
        for first in range(low, high + 1, width)
    ]


Bin = tuple[int, int, int]
"""First value, last value, count."""


def bar(fraction: float, cells: int, blocks: bool = True) -> str:
    """Draw a bar.

    Args:
        fraction: of the full length, 0 to 1; what is above 0 always shows.
        cells: of the full length.
        blocks: whether the terminal knows block characters; else ``#`` is drawn.

    Example:
        >>> bar(0.5, 4), bar(0.6, 4), bar(0.001, 4), bar(0.6, 4, blocks=False)
        ('██', '██▍', '▏', '##')
    """
    eighths = round(fraction * cells * 8)
    if fraction > 0:
        eighths = max(eighths, 1)
    if not blocks:
        return "#" * (max(eighths // 8, 1) if eighths else 0)
    whole, rest = divmod(eighths, 8)
    return EIGHTHS[8] * whole + (EIGHTHS[rest] if rest else "")


def _figures(summary: Mapping[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    if summary.get("task") == "problem":
        _add_problem(table, summary)
    else:
        _add_scores(table, summary)
    speed = f"{_number(summary['samples_per_second'], ',.0f')} samples/s"
    if "virtual" in summary:
        virtual = summary["virtual"]
        real = f"simulated in {virtual['real_seconds']:.1f} s: {virtual['events']:,} events"
        table.add_row("virtual time", f"{_seconds(summary['wall_seconds'])} ({real})")
        table.add_row("virtual speed", speed)
    else:
        table.add_row("speed", speed)
        table.add_row("training time", _seconds(summary["wall_seconds"]))
    table.add_row("consistency", f"{summary['consistency']}, {count(summary['replicas'], 'replica')}")
    if restarts := summary.get("restarts"):
        table.add_row("restarts", ", ".join(f"{name}: {times}" for name, times in restarts.items()))
    if summary["generation"]:
        again = "resumed, " if summary.get("resumed") else ""
        table.add_row("recovered", f"{again}{count(summary['generation'], 'time')} from a checkpoint")
    versions = summary["versions"]
    where = "each of the shards" if len(set(versions)) == 1 and len(versions) > 1 else "the shards"
    told = ", ".join(f"{version:,}" for version in (versions if len(set(versions)) > 1 else versions[:1]))
    table.add_row("versions", f"{told} on {where}" if len(versions) > 1 else told)
    table.add_row("optimizer", summary["learning_rate_rule"])
    table.add_row("weights SHA-256", f"{summary['weights_sha256'][:16]}…")
    return table


def _add_scores(table: Table, summary: Mapping[str, Any]) -> None:
    samples = summary["data_samples"]["test"]
    validation = summary["validation"]
    regression = summary.get("task") == "regression"
    measure, loss = ("R2", "mean squared error") if regression else ("accuracy", "loss")
    table.add_row(f"test {measure}", f"{_number(summary['accuracy'], '.4f')} on {samples:,} samples")
    table.add_row(f"test {loss}", _number(summary["loss"], ".4f"))
    if summary.get("auc") is not None:
        table.add_row("test AUC", f"{summary['auc']:.4f}")
    if validation:
        found = _number(validation[-1]["accuracy"], ".4f")
        table.add_row(f"validation {measure}", f"{found} at version {validation[-1]['version']}")
    if "dealing" in summary:
        table.add_row("data", summary["dealing"])


def _add_problem(table: Table, summary: Mapping[str, Any]) -> None:
    table.add_row("problem", summary["dealing"])
    if summary["validation"]:
        table.add_row("squared distance to the solution", _number(summary["loss"], ".4g"))
        table.add_row("of the way to it", _number(summary["accuracy"], ".2%"))


def _distribution(
    title: str, unit: str, found: Mapping[str, Any], blocks: bool, marks: bool
) -> RenderableType:
    bound = found["bound"]
    heading = Text(title, style="bold")
    if found["max"] is None:
        return Group(heading, Text("  none"))
    heading.append(f": mean {found['mean']:.2f}, max {found['max']} {unit}", style="not bold")
    if bound is not None:
        heading.append(f", bound {bound}", style="not bold")
    rows = histogram_rows(found["histogram"], bound if marks else None)
    most, total = max(times for _, _, times in rows), sum(times for _, _, times in rows)
    table = Table.grid(padding=(0, 1))
    for justify in ("right", "left", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for first, last, times in rows:
        table.add_row(
            f"  {first}" if first == last else f"  {first} to {last}",
            bar(times / most, BAR_CELLS, blocks).ljust(BAR_CELLS),
            f"{times:,}",
            f"{times / total:.1%}",
            "<- bound" if marks and bound is not None and first <= bound <= last else "",
        )
    return Group(heading, table)


def _verdicts(summary: Mapping[str, Any]) -> RenderableType:
    table = _table("What became of", "gradients", "samples")
    for name in GRADIENT_NAMES:
        samples = summary["samples"].get(name)
        if name == "rolled_back" and not summary["gradients"][name]:
            continue  # nothing was given up for a checkpoint
        table.add_row(
            name.replace("_", " "),
            f"{summary['gradients'][name]:,}",
            "" if samples is None else f"{samples:,}",
        )
    return table


def _visits(summary: Mapping[str, Any]) -> list[RenderableType]:
    """Say whether every sample of every epoch was seen, and what became of the others."""
    visits = summary.get("visits")
    if visits is None:
        return []
    if not visits["unseen"] and not visits["repeated"]:
        return [Text("Every sample of every epoch was seen once: its gradient was applied.")]
    parts = [f"{visits['seen']:,} of {visits['samples']:,} samples were seen ({visits['share']:.4%})"]
    if visits["refused"]:
        parts.append(f"the gradients of {visits['refused']:,} were dropped")
    if missed := visits["unseen"] - visits["refused"]:
        parts.append(f"{missed:,} were left out")
    if visits["repeated"]:
        parts.append(f"{visits['repeated']:,} were done again after a roll-back")
    return [Text("; ".join(parts) + ".")]


def _time_budget(budget: Mapping[str, Any]) -> RenderableType:
    table = _table("Time in %", *(PHASE_TITLES.get(phase, phase) for phase in PHASES))
    workers = sorted(
        budget["workers"].items(), key=lambda row: (len(row[0]), row[0])
    )  # worker10 after worker9
    rows: Sequence[tuple[str, Mapping[str, float]]] = workers[:WORKERS_SHOWN]
    if len(workers) > 1:
        rows = [*rows, ("all", budget["total"])]
    for worker, percent in rows:
        if worker == "all" and len(workers) > WORKERS_SHOWN:
            table.add_row(f"and {len(workers) - WORKERS_SHOWN:,} more")
        tenths = shares(percent, 1000)
        table.add_row(worker, *(f"{tenths[phase] / 10:.1f}" for phase in PHASES))
    return table


def _bottlenecks(summary: Mapping[str, Any]) -> list[RenderableType]:
    """Show what was busy, for how much of the virtual time, and who was waited for."""
    virtual, seconds = summary["virtual"], summary["wall_seconds"] or 1.0
    shards_each = summary["job"]["shards"]
    table = _table("Busy in %", "handlers", "link in", "link out", "busiest lock", "queue for locks")
    for number, server in enumerate(virtual["servers"][:ROWS_MAX]):
        shards = virtual["shards"][number * shards_each : (number + 1) * shards_each]
        served = sum(shard["served"] for shard in shards) or 1
        busy = [server[f"{what}_busy_seconds"] for what in ("handlers", "link_in", "link_out")]
        busy.append(max(shard["lock_held_seconds"] for shard in shards))
        queued = sum(shard["lock_waited_seconds"] for shard in shards) / served
        table.add_row(
            f"server{number}",
            *(f"{100 * one / seconds:.1f}" for one in busy),
            f"{1e6 * queued:,.0f} µs a request",
        )
    waits = virtual["waited_for"]
    if not waits:
        return [table]
    whole = sum(wait["seconds"] for wait in waits)
    named = [
        f"{'the start or a death' if wait['rank'] < 0 else 'replica ' + str(wait['rank'])} "
        f"{wait['seconds'] / whole:.0%}"
        for wait in waits[:WAITED_FOR_SHOWN]
        if wait["seconds"] >= whole / 200
    ]
    return [table, Text(f"Waited for: {', '.join(named)}.")]


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _number(value: float | None, form: str) -> str:
    """Format a number; JSON has none for what is not finite."""
    return "not finite" if value is None else format(value, form)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
