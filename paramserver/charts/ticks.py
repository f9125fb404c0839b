"""Round numbers for axes: where they stand and how they are written."""

from __future__ import annotations

import math
from typing import Final

Tick = tuple[float, str]
"""Where it stands, and what is written there."""

_ROUND: Final = (1, 2, 5)
"""A step is one of these times a power of ten: what people count in."""

_TIME_UNITS: Final = ((1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s"))
_SECOND: Final = 1_000_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_LONG_STEPS: Final = tuple(
    [minutes * _MINUTE for minutes in (1, 2, 5, 10, 20, 30)]
    + [hours * _HOUR for hours in (1, 2, 3, 6, 12, 24, 48, 120, 240)]
)


def round_step(low: float, high: float, steps_max: int) -> float:
    """Return the smallest round step that divides a range into at most so many.

    Example:
        >>> round_step(0, 100, 5), round_step(0, 0.97, 5)
        (20.0, 0.2)
    """
    exact = max((high - low) / max(steps_max, 1), 1e-300)
    power = math.floor(math.log10(exact))
    for exponent in (power, power + 1):
        for digit in _ROUND:
            step = float(f"{digit}e{exponent}")  # as a decimal, so that 0.2 is 0.2
            if step >= exact * (1 - 1e-9):
                return step
    raise AssertionError("ten times a power of ten below a number is not below it")


def linear_ticks(low: float, high: float, steps_max: int) -> list[Tick]:
    """Return round numbers between two numbers, at equal distances.

    Example:
        >>> linear_ticks(0, 1, 4)
        [(0.0, '0.0'), (0.5, '0.5'), (1.0, '1.0')]
        >>> linear_ticks(0, 3000, 3)
        [(0.0, '0'), (1000.0, '1,000'), (2000.0, '2,000'), (3000.0, '3,000')]
    """
    step = round_step(low, high, steps_max)
    decimals = max(0, -math.floor(math.log10(step)))
    return [(number * step, f"{number * step:,.{decimals}f}") for number in _multiples(low, high, step)]


def log_ticks(low: float, high: float, steps_max: int) -> list[Tick]:
    """Return powers of ten between two numbers above 0; within two powers also 2 and 5 times them.

    Example:
        >>> log_ticks(1, 10_000, 8)
        [(1.0, '1'), (10.0, '10'), (100.0, '100'), (1000.0, '1,000'), (10000.0, '10,000')]
        >>> [text for _, text in log_ticks(0.1, 1, 8)]
        ['0.1', '0.2', '0.5', '1']
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    every = max(1, math.ceil((last - first) / max(steps_max, 1)))
    digits = _ROUND if last - first <= 2 else (1,)
    ticks = []
    for power in range(first, last + 1, every):
        for digit in digits:
            value = float(f"{digit}e{power}")
            if low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                ticks.append((value, f"{value:,.{max(0, -power)}f}"))
    return ticks


def time_ticks(begin: float, end: float, steps_max: int) -> list[Tick]:
    """Return round times, all in one unit.

    Args:
        begin: nanoseconds.
        end: nanoseconds.
        steps_max: most steps between them.

    Example:
        >>> [text for _, text in time_ticks(0, 2_000_000, 4)]
        ['0 ms', '0.5 ms', '1 ms', '1.5 ms', '2 ms']
        >>> [text for _, text in time_ticks(0, 240e9, 4)]
        ['0 min', '1 min', '2 min', '3 min', '4 min']
    """
    if (end - begin) / max(steps_max, 1) > 30 * _SECOND:
        exact = (end - begin) / max(steps_max, 1)
        step: float = next((long for long in _LONG_STEPS if long >= exact), _LONG_STEPS[-1])
        unit, name = (_HOUR, "h") if step >= _HOUR else (_MINUTE, "min")
    else:
        step = round_step(begin, end, steps_max)
        unit, name = unit_of(end)
    return [
        (number * step, f"{_short(number * step / unit)} {name}") for number in _multiples(begin, end, step)
    ]


def unit_of(nanoseconds: float) -> tuple[int, str]:
    """Return the largest unit below a time, in nanoseconds, and its name."""
    fitting = [unit for unit in _TIME_UNITS if unit[0] <= abs(nanoseconds)]
    return fitting[-1] if fitting else _TIME_UNITS[0]


def time_text(nanoseconds: float) -> str:
    """Write a time in its largest unit, to three digits or so.

    Example:
        >>> time_text(1_234_567), time_text(20_000_000_000), time_text(0)
        ('1.23 ms', '20 s', '0 s')
    """
    if nanoseconds == 0:
        return "0 s"
    unit, name = unit_of(nanoseconds)
    value = nanoseconds / unit
    return f"{_short(round(value, 2 if value < 10 else 1))} {name}"


def _short(value: float) -> str:
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def _multiples(low: float, high: float, step: float) -> range:
    # A little wider than asked: what a float misses by its last bit is still there.
    return range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
