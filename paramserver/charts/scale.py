"""From numbers to pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable

from paramserver.charts.ticks import Tick, linear_ticks, log_ticks, round_step


class Scale:
    """One axis of a chart.

    Args:
        values: what has to fit on it; what is not finite has no place, nor what is not above 0 on a log axis.
        low: where it begins; None for the least value.
        high: where it ends; None for the greatest.
        log: equal distances are equal factors.
        at_low: the pixel at which it begins.
        at_high: the pixel at which it ends.
        pixels_each: the least room from one tick to the next.
        rounds: begin and end at round numbers; a logarithmic one does not.

    Example:
        >>> Scale([1, 100], None, None, True, 0, 200, 50).place(10)
        100.0
    """

    def __init__(
        self,
        values: Iterable[float],
        low: float | None,
        high: float | None,
        log: bool,
        at_low: float,
        at_high: float,
        pixels_each: float,
        rounds: bool = False,
    ) -> None:
        self._log, self._at_low, self._at_high = log, at_low, at_high
        self._pixels_each = pixels_each
        sound = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
        least = low if low is not None else min(sound, default=1.0 if log else 0.0)
        most = high if high is not None else max(sound, default=1.0)
        if most <= least:  # one number alone stands in the middle
            least, most = (least / 2, least * 2) if log else (least - 0.5, least + 0.5)
        if rounds and not log:
            step = round_step(least, most, self._room())
            least = least if low is not None else step * math.floor(least / step + 1e-9)
            most = most if high is not None else step * math.ceil(most / step - 1e-9)
        self._low, self._high = least, most

    def place(self, value: float) -> float:
        """Return the pixel of a number; NaN where it has none."""
        if not math.isfinite(value) or (self._log and value <= 0):
            return math.nan
        if self._log:
            share = math.log(value / self._low) / math.log(self._high / self._low)
        else:
            share = (value - self._low) / (self._high - self._low)
        return self._at_low + share * (self._at_high - self._at_low)

    def ticks(self) -> list[Tick]:
        """Return round numbers, so few that each has its room."""
        return (log_ticks if self._log else linear_ticks)(self._low, self._high, self._room())

    def _room(self) -> int:
        return max(2, int(abs(self._at_high - self._at_low) / self._pixels_each))
