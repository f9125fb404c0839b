"""An overview as a terminal shows it, at any width and height."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from paramserver.launch.cells import (
    REPLICA_COLUMNS,
    SERVER_COLUMNS,
    SHARD_COLUMNS,
    WORKER_COLUMNS,
    by_worker,
    span,
)
from paramserver.launch.columns import cut, lines, printable, wrap
from paramserver.launch.overview import Overview, ReplicaRow
from paramserver.launch.progress import count, duration, figures

BAR_CELLS_MIN, BAR_CELLS_MAX = 8, 60
MARGIN_LINES = 2
"""Left free below a live view: for the cursor, and for what is typed."""

TABLE_LINES_MIN = 8
"""So many lines are left for the replicas before servers and shards are shown, too."""


class JobView:
    """A rich renderable of an overview.

    Args:
        overview: what to show.
        parts: show the servers and shards, too.
        live: keep within the terminal's height.
    """

    def __init__(self, overview: Overview, *, parts: bool = False, live: bool = False) -> None:
        self._overview = overview
        self._parts = parts
        self._live = live

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines, made for the present size of the terminal."""
        overview, width = self._overview, options.max_width
        yield headline(overview, width)
        told = [cut(Text(line), width) for line in _told(overview, width)]
        yield from told
        room = console.size.height - MARGIN_LINES - len(told) - 2 if self._live else None
        parts = _parts(overview, width) if self._parts else []
        if room is not None and room - len(parts) < min(TABLE_LINES_MIN, len(overview.replicas) + 2):
            parts = []
        yield from parts
        if overview.replicas:
            yield Text("")
            yield from replica_lines(
                overview.replicas, width, None if room is None else room - len(parts) - 1
            )


def headline(overview: Overview, width: int) -> Text:
    """Return what the job is and how far it has come, in one line; where it does not train, why."""
    if overview.state != "training":
        return Text(state_of(overview), "bold")
    name = printable(f"{overview.model}, {overview.consistency}" if overview.model else overview.consistency)
    return bar_line(name, overview.fraction, overview.seconds_to_go, width)


def bar_line(name: str, fraction: float, seconds_to_go: float | None, width: int) -> Text:
    """Return a name, where there is room for it, a bar, percent and the time to go, in one line."""
    percent = f"{fraction:4.0%}"
    to_go = "" if seconds_to_go is None else f"  {duration(seconds_to_go)} to go"
    rest = len(percent) + len(to_go) + 1
    if width - len(name) - 2 - rest < BAR_CELLS_MIN:
        name = ""
    line = Text.assemble((f"{name}  " if name else "", "bold"))
    cells = max(1, min(width - len(line) - rest, BAR_CELLS_MAX))
    done = round(fraction * cells)
    line.append("━" * done, "green").append("─" * (cells - done), "dim")
    return cut(line.append(f" {percent}{to_go}"), width)


def replica_lines(replicas: Sequence[ReplicaRow], width: int, lines_max: int | None = None) -> list[Text]:
    """Return the table of the replicas.

    Args:
        replicas: by rank.
        width: in cells; no line is longer.
        lines_max: so many lines at most. Where they do not suffice there is a row for each worker, and where
            those are still too many the slowest are shown, and how many are not.
    """
    if lines_max is None or len(replicas) < lines_max:
        return lines(REPLICA_COLUMNS, replicas, width)
    workers = by_worker(replicas)
    rows_max = max(1, lines_max - 2)
    slowest = sorted(workers, key=lambda worker: (not worker.is_dead, worker.slowest))[:rows_max]
    shown = [worker for worker in workers if any(worker is each for each in slowest)]
    hidden = len(workers) - len(shown)
    sentence = f"A row for each worker: {count(len(replicas), 'replica')} do not fit this height."
    if hidden:
        sentence = f"The slowest workers; {hidden} of {len(workers)} are not shown, none of them slower."
    return [*lines(WORKER_COLUMNS, shown, width), cut(Text(sentence, "dim"), width)]


def _parts(overview: Overview, width: int) -> list[Text]:
    """Return the tables of servers and shards, an empty line before each."""
    found: list[Text] = []
    if overview.servers:
        found += [Text(""), *lines(SERVER_COLUMNS, overview.servers, width)]
    if overview.shards:
        found += [Text(""), *lines(SHARD_COLUMNS, overview.shards, width)]
    return found


def _told(overview: Overview, width: int) -> list[str]:
    """Return the figures of the job in as few lines as they fit in."""
    items = figures(overview.moment, overview.samples_per_second)
    if overview.consistency == "sync":
        items.append(f"{overview.rounds:,} rounds")
    if overview.shards and overview.consistency != "sync":
        versions = {shard.version for shard in overview.shards}
        items.append(f"version {span(versions)}")
    standing = Counter(row.standing for row in overview.replicas)
    if overview.replicas:
        items.append(", ".join(f"{number} {name}" for name, number in sorted(standing.items(), reverse=True)))
    if overview.restarts:
        items.append(f"{count(overview.restarts, 'restart')} of replicas")
    if overview.generation:
        items.append(f"recovered {count(overview.generation, 'time')}")
    return wrap(items, width) if overview.model else []


def state_of(overview: Overview) -> str:
    """Say in a sentence why a job does not train now."""
    up = f"{len(overview.servers)} of {overview.servers_expected} servers are up"
    match overview.state:
        case "waiting" if len(overview.servers) < overview.servers_expected:
            return f"There is no job yet: {up}."
        case "waiting":
            return f"There is no job yet: {up}, and no replica has joined."
        case "joining":
            return f"{len(overview.replicas)} of {overview.replicas_expected} replicas have joined."
        case "initialising":
            return "All replicas have joined; nobody has initialised the weights yet."
        case "failed":
            return f"The job failed: {printable(overview.reason)}"
        case _:
            return "The job is over."
