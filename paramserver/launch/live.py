"""What a terminal shows while a job runs, drawn anew in its place."""

from __future__ import annotations

import math
import time

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from paramserver.launch.columns import wrap
from paramserver.launch.overview import Overview
from paramserver.launch.progress import Moment, PlainLines, Reporter, Silence, Speed, figures
from paramserver.launch.view import JobView, bar_line

REDRAW_SECONDS = 0.1
"""Between two drawings: as often as an eye can follow."""


def make_reporter(console: Console, quiet: bool) -> Reporter:
    """Choose how to show a job's progress: live on a terminal, in plain lines elsewhere, or not at all.

    Args:
        console: where.
        quiet: show nothing.
    """
    if quiet:
        return Silence()
    if is_live(console):
        return LiveTable(console)
    return PlainLines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))


def is_live(console: Console) -> bool:
    """Say whether something can be drawn anew in its place there."""
    return console.is_terminal and not console.is_dumb_terminal


class LiveTable:
    """Keeps a job's table up to date on a terminal, or of a job without replicas its bar.

    Args:
        console: a terminal.
        parts: show servers and shards, too.
    """

    def __init__(self, console: Console, parts: bool = False) -> None:
        self._parts = parts
        self._speed = Speed()
        self._next = -math.inf
        self._live = Live(
            Text("starting"), console=console, auto_refresh=False, transient=True, vertical_overflow="crop"
        )
        self._live.start(refresh=True)

    def note(self, sentence: str) -> None:
        """Print a sentence above the table."""
        self._live.console.print(sentence, markup=False, highlight=False, soft_wrap=True)
        self._live.refresh()

    def update(self, moment: Moment) -> None:
        """Draw the bar anew, if the last drawing is old enough."""
        self._speed.see(time.monotonic(), moment)
        self._draw(_Bar(moment, self._speed.seconds_to_go, self._speed.samples_per_second))

    def show(self, overview: Overview) -> None:
        """Draw the table anew, if the last drawing is old enough."""
        self._draw(JobView(overview, parts=self._parts, live=True))

    def close(self) -> None:
        """Take it away."""
        self._live.stop()

    def _draw(self, view: RenderableType) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REDRAW_SECONDS
            self._live.update(view, refresh=True)


class _Bar:
    def __init__(self, moment: Moment, seconds_to_go: float | None, samples_per_second: float | None) -> None:
        self._moment = moment
        self._seconds_to_go = seconds_to_go
        self._samples_per_second = samples_per_second

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the bar, and below it what is known."""
        width = options.max_width
        told = wrap(figures(self._moment, self._samples_per_second), width)
        yield Group(bar_line("", self._moment.fraction, self._seconds_to_go, width), *map(Text, told))
