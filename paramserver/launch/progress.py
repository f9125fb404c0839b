"""What a person sees while a job runs: a live line on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

LINE_SECONDS = 3.0
"""Between two plain lines: often enough to see life, seldom enough to read a log of a long run."""

WINDOW_SECONDS = 10.0
"""Over which the present speed is taken."""

STALL_SECONDS = 3.0
"""News comes with heartbeats, about every second. Only after a longer silence does the speed fall."""

REDRAW_SECONDS = 0.1
"""Between two drawings of the live line: as often as an eye can follow."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How a job stands.

    Attributes:
        fraction: of all steps, 0 to 1.
        samples: samples whose gradient has been computed.
        loss: mean training loss of the latest steps; NaN before the first.
        accuracy: newest on the validation set, 0 to 1; None before the first.
        virtual_seconds: of virtual time that have passed; None in a real run.
    """

    fraction: float
    samples: int
    loss: float = math.nan
    accuracy: float | None = None
    virtual_seconds: float | None = None


class Reporter(Protocol):
    """Shows how a job goes."""

    def note(self, sentence: str) -> None:
        """Say something once."""

    def update(self, moment: Moment) -> None:
        """Show how the job stands; may be called as often as one likes."""

    def close(self) -> None:
        """End the display; closing twice does nothing."""


class Speed:
    """Samples per second over the last seconds, and the seconds to go.

    Args:
        window_seconds: how far back it looks.
    """

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        self._seen: deque[tuple[float, Moment]] = deque()

    def see(self, now: float, moment: Moment) -> None:
        """Take in how the job stands at a time in seconds."""
        if self._seen:
            then, before = self._seen[-1]
            if moment.samples == before.samples and now < then + STALL_SECONDS:
                return
        self._seen.append((now, moment))
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._window_seconds:
            self._seen.popleft()

    @property
    def samples_per_second(self) -> float | None:
        """Return the present speed, or None while it is not known."""
        seconds, first, last = self._span()
        return (last.samples - first.samples) / seconds if last.samples > first.samples else None

    @property
    def seconds_to_go(self) -> float | None:
        """Return the seconds that the rest will take at this speed, or None while it is not known."""
        seconds, first, last = self._span()
        gone = last.fraction - first.fraction
        return seconds * (1 - last.fraction) / gone if gone > 0 else None

    def _span(self) -> tuple[float, Moment, Moment]:
        if len(self._seen) < 2:
            return 1.0, Moment(0, 0), Moment(0, 0)
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return max(end - begin, 1e-9), first, last


def make_reporter(console: Console, quiet: bool) -> Reporter:
    """Choose how to show a job's progress.

    Args:
        console: where.
        quiet: show nothing.
    """
    if quiet:
        return Silence()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveLine(console)
    return PlainLines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))


class Silence:
    """Shows nothing."""

    def note(self, sentence: str) -> None:
        """Do nothing."""

    def update(self, moment: Moment) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class PlainLines:
    """Writes a line every few seconds.

    Args:
        write: takes a line.
        now: the time in seconds.
        line_seconds: between two lines.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
        line_seconds: float = LINE_SECONDS,
    ) -> None:
        self._write = write
        self._now = now
        self._line_seconds = line_seconds
        self._speed = Speed()
        self._next = -math.inf

    def note(self, sentence: str) -> None:
        """Write a sentence."""
        self._write(sentence)

    def update(self, moment: Moment) -> None:
        """Write a line if the last one is old enough."""
        now = self._now()
        self._speed.see(now, moment)
        if now < self._next or moment.samples == 0:
            return
        self._next = now + self._line_seconds
        to_go = self._speed.seconds_to_go
        parts = [
            f"{moment.fraction:4.0%}",
            f"{duration(to_go)} to go" if to_go is not None else "",
            *figures(moment, self._speed.samples_per_second),
        ]
        self._write(", ".join(part for part in parts if part))

    def close(self) -> None:
        """Do nothing."""


class LiveLine:
    """Keeps one line up to date on a terminal.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._speed = Speed()
        self._next = -math.inf
        self._progress = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            _ToGo(self._speed),
            TextColumn("{task.fields[figures]}"),
            console=console,
            auto_refresh=False,
            expand=True,
            transient=True,
        )
        self._task = self._progress.add_task("", total=1.0, figures="starting")
        self._progress.start()

    def note(self, sentence: str) -> None:
        """Print a sentence above the line."""
        self._progress.console.print(sentence, markup=False, highlight=False)
        self._progress.refresh()

    def update(self, moment: Moment) -> None:
        """Draw the line anew, if the last drawing is old enough."""
        now = time.monotonic()
        self._speed.see(now, moment)
        if now < self._next:
            return
        self._next = now + REDRAW_SECONDS
        shown = "  ".join(figures(moment, self._speed.samples_per_second))
        self._progress.update(self._task, completed=moment.fraction, figures=shown or "starting")
        self._progress.refresh()

    def close(self) -> None:
        """Take the line away."""
        self._progress.stop()


class _ToGo(ProgressColumn):
    def __init__(self, speed: Speed) -> None:
        super().__init__()
        self._speed = speed

    def render(self, task: Task) -> Text:
        """Return the time to go."""
        to_go = self._speed.seconds_to_go
        return Text("" if to_go is None else duration(to_go))


def figures(moment: Moment, samples_per_second: float | None) -> list[str]:
    """Return what is known, as short texts: loss, validation accuracy, speed or virtual time."""
    shown = []
    if not math.isnan(moment.loss):
        shown.append(f"loss {moment.loss:.3f}")
    if moment.accuracy is not None:
        shown.append(f"validation {moment.accuracy:.3f}")
    if moment.virtual_seconds is not None:
        shown.append(f"virtual {moment.virtual_seconds:,.2f} s")
    elif samples_per_second is not None:
        shown.append(f"{samples_per_second:,.0f} samples/s")
    return shown


def duration(seconds: float) -> str:
    """Write a time as a person would.

    Example:
        >>> duration(5.2), duration(83), duration(7384)
        ('5 s', '1:23 min', '2:03 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def count(number: int, what: str) -> str:
    """Write a number of things.

    Example:
        >>> count(1, "worker"), count(2_000, "worker")
        ('1 worker', '2,000 workers')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"
