"""Durations, rates and shares as people write them: ``20ms``, ``80Mbit/s``, ``1%``.

Every quantity needs its unit, so that nobody has to guess whether 20 means seconds or milliseconds. What is
formatted here is read back as the same number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from paramserver.errors import RequestError, did_you_mean

NANOSECONDS = 1_000_000_000
"""In a second."""

UNLIMITED = "unlimited"
"""A bandwidth that costs no time."""

_DURATIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_RATES = {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)", re.ASCII)


def parse_duration(text: str, what: str) -> float:
    """Read a duration such as ``20ms``, ``0.3ns`` or ``2min``.

    Args:
        text: a number and a unit: ns, us, ms, s, min or h.
        what: whose duration, for messages.

    Returns:
        Nanoseconds, 0 or more; with a fraction only where the text has one.

    Raises:
        RequestError: it is none, or negative.

    Example:
        >>> parse_duration("1.5ms", "the latency")
        1500000.0
    """
    return _quantity(text.replace("µ", "u"), _DURATIONS, what, "a duration such as 20ms")


def parse_nanoseconds(text: str, what: str) -> int:
    """Read a duration, rounded to whole nanoseconds."""
    return round(parse_duration(text, what))


def format_duration(nanoseconds: float) -> str:
    """Write a duration so that it is read back as the same number.

    Example:
        >>> format_duration(1_500_000), format_duration(20_000_000), format_duration(0.3)
        ('1500us', '20ms', '0.3ns')
    """
    for unit in ("s", "ms", "us"):
        if nanoseconds and nanoseconds % _DURATIONS[unit] == 0:
            return f"{int(nanoseconds) // _DURATIONS[unit]}{unit}"
    return f"{format_number(nanoseconds)}ns" if nanoseconds else "0s"


def parse_rate(text: str, what: str) -> float:
    """Read a bandwidth such as ``80Mbit/s``, or ``unlimited``.

    Returns:
        Bits per second, above 0; infinity for ``unlimited``.

    Raises:
        RequestError: it is none, or 0.
    """
    if text == UNLIMITED:
        return math.inf
    rate = _quantity(text, _RATES, what, f"a bandwidth such as 80Mbit/s, or {UNLIMITED}")
    if rate == 0:
        raise RequestError(
            f"With a bandwidth of {text} as {what} nothing would ever arrive. Give one above 0."
        )
    return rate


def format_rate(bits_per_second: float) -> str:
    """Write a bandwidth so that it is read back as the same number."""
    if math.isinf(bits_per_second):
        return UNLIMITED
    for unit in ("Gbit/s", "Mbit/s", "kbit/s"):
        if bits_per_second % _RATES[unit] == 0:
            return f"{int(bits_per_second) // _RATES[unit]}{unit}"
    return f"{format_number(bits_per_second)}bit/s"


def parse_size(text: str, what: str) -> int:
    """Read a number of bytes such as ``4MB``.

    Returns:
        Whole bytes, 1 or more; a kB is 1,000.

    Raises:
        RequestError: it is none, or 0.
    """
    size = round(_quantity(text, _SIZES, what, "a size such as 4MB"))
    if size == 0:
        raise RequestError(f"Expected a size above 0, such as 4MB, as {what}, but found '{text}'.")
    return size


def parse_share(text: str, what: str) -> float:
    """Read a share such as ``1%`` or ``0.01``; from 0 to 1.

    Raises:
        RequestError: it is none.
    """
    number = parse_number(text.removesuffix("%"), what)
    share = number / 100 if text.endswith("%") else number
    if not 0 <= share <= 1:
        raise RequestError(f"Expected a share from 0% to 100% as {what}, but found '{text}'.")
    return share


def parse_number(text: str, what: str) -> float:
    """Read a plain number.

    Raises:
        RequestError: it is none, or not finite.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] or not math.isfinite(float(match[1])):
        raise RequestError(f"Expected a number as {what}, but found '{text}'.")
    return float(match[1])


def format_number(value: float) -> str:
    """Write a number without a needless fraction."""
    return str(int(value)) if value == int(value) else repr(float(value))


def parse_assignments(text: str, what: str) -> list[tuple[str, str]]:
    """Cut ``name=value`` pairs apart.

    Args:
        text: pairs with spaces between them.
        what: where they stand, for messages.

    Raises:
        RequestError: a part is no such pair.

    Example:
        >>> parse_assignments("latency=1ms rpc=80us", "the network")
        [('latency', '1ms'), ('rpc', '80us')]
    """
    pairs = []
    for part in text.split():
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise RequestError(f"Expected name=value in {what}, but found '{part}'.")
        pairs.append((name, value))
    return pairs


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """Refuse an unknown name, with the nearest known one.

    Raises:
        RequestError: it is unknown.
    """
    known = list(known)
    if name not in known:
        raise RequestError(
            f"Unknown {what} '{name}': expected {', '.join(known)}.{did_you_mean(name, known)}"
        )


def parse_worker(text: str, what: str) -> int:
    """Read the name of a worker, such as ``w3``.

    Raises:
        RequestError: it is none.
    """
    number = text.removeprefix("w")
    if number == text or not (number.isascii() and number.isdigit()):
        raise RequestError(f"Expected a worker such as w0 in {what}, but found '{text}'.")
    return int(number)


def parse_server(text: str) -> int | None:
    """Read the name of a server, such as ``s0``; None for anything else."""
    number = text.removeprefix("s")
    return int(number) if number != text and number.isascii() and number.isdigit() else None


def _quantity(text: str, units: Mapping[str, int], what: str, expected: str) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise RequestError(f"Expected {expected} as {what}, but found '{text}'.")
    number, unit = float(match[1]), match[2]
    if unit not in units:
        lacks = "has no unit" if not unit else f"has the unknown unit '{unit}'"
        raise RequestError(
            f"Expected {expected} as {what}, but '{text}' {lacks}: give one of {', '.join(units)}."
        )
    if number < 0 or not math.isfinite(number * units[unit]):
        raise RequestError(f"Nothing takes or carries '{text}', so {what} must be 0 or more, and finite.")
    return number * units[unit]
