"""How far a job is, as a person is told: in plain lines, or not at all; `paramserver.launch.live` draws."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from paramserver.launch.overview import Overview

LINE_SECONDS = 3.0
"""Between two plain lines: often enough to see life, seldom enough to read a log of a long run."""

WINDOW_SECONDS = 10.0
"""Over which the present speed is taken."""

STALL_SECONDS = 3.0
"""News comes with heartbeats, about every second. Only after a longer silence does the speed fall."""


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
        """Show how far the job is; may be called as often as one likes."""

    def show(self, overview: Overview) -> None:
        """Show how the job and its parts stand; may be called as often as one likes."""

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


class Silence:
    """Shows nothing."""

    def note(self, sentence: str) -> None:
        """Do nothing."""

    def update(self, moment: Moment) -> None:
        """Do nothing."""

    def show(self, overview: Overview) -> None:
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
        self._speed.see(self._now(), moment)
        self._tell(moment, self._speed.seconds_to_go, self._speed.samples_per_second)

    def show(self, overview: Overview) -> None:
        """Write a line if the last one is old enough."""
        self._tell(overview.moment, overview.seconds_to_go, overview.samples_per_second)

    def _tell(self, moment: Moment, to_go: float | None, samples_per_second: float | None) -> None:
        now = self._now()
        if now < self._next or moment.samples == 0:
            return
        self._next = now + self._line_seconds
        self._write(line_of(moment, to_go, samples_per_second))

    def close(self) -> None:
        """Do nothing."""


def line_of(moment: Moment, seconds_to_go: float | None, samples_per_second: float | None) -> str:
    """Say in one line how far a job is.

    Example:
        >>> line_of(Moment(0.25, 800, loss=0.5), 30.0, 1_200.0)
        ' 25%, 30 s to go, loss 0.500, 1,200 samples/s'
    """
    to_go = [] if seconds_to_go is None else [f"{duration(seconds_to_go)} to go"]
    return ", ".join([f"{moment.fraction:4.0%}", *to_go, *figures(moment, samples_per_second)])


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
