"""Numbers of workers, as people write them."""

from __future__ import annotations

from paramserver.errors import RequestError

WORKERS_MAX = 100_000
"""More would take more memory than this machine has."""

_MANTISSAS = (1, 2, 5)


def parse_counts(text: str) -> tuple[int, ...]:
    """Read numbers of workers.

    Args:
        text: ``1..10000``, both ends included and 1, 2, 5, 10, 20, … between them; or ``1,2,4,8``; or one.

    Returns:
        In ascending order, each once.

    Raises:
        RequestError: it is neither, or a number is below 1 or above `WORKERS_MAX`.

    Example:
        >>> parse_counts("3..70"), parse_counts("8,2,4")
        ((3, 5, 10, 20, 50, 70), (2, 4, 8))
    """
    low, dots, high = text.partition("..")
    if dots:
        first, last = _number(low, text), _number(high, text)
        if first > last:
            raise RequestError(f"--workers {text} ends before it begins. Write {last}..{first}.")
        between = [mantissa * 10**power for power in range(6) for mantissa in _MANTISSAS]
        return tuple(sorted({first, last, *(count for count in between if first < count < last)}))
    return tuple(sorted({_number(part, text) for part in text.split(",")}))


def _number(part: str, text: str) -> int:
    if not (part.strip().isascii() and part.strip().isdigit()):
        raise RequestError(f"Expected --workers such as 1..10000 or 1,2,4,8, but found '{text}'.")
    number = int(part)
    if not 1 <= number <= WORKERS_MAX:
        raise RequestError(f"--workers go from 1 to {WORKERS_MAX:,}, but '{text}' has {number:,}.")
    return number
