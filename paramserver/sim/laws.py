"""How long things take: laws of chance for durations.

Each law is a row of `LAWS`: what its numbers are, what they must be, its mean, and how to draw from it. A law
draws whole blocks, since one draw at a time costs as much as thirty at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paramserver.errors import RequestError
from paramserver.quantities import (
    check_known,
    format_duration,
    format_number,
    parse_duration,
    parse_number,
)

Numbers = tuple[float, ...]
"""The numbers of a law: durations in nanoseconds, the others as they are."""

Durations = npt.NDArray[np.int64]
"""Whole nanoseconds, 0 or more."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One family of laws.

    Attributes:
        numbers: what its numbers are called; a name in capitals is a duration.
        wrong: returns what is wrong with numbers that cannot be, as a phrase; else an empty text.
        mean: in nanoseconds.
        draw: takes a generator, the numbers, and how many; returns nanoseconds as float64.
    """

    numbers: tuple[str, ...]
    wrong: Callable[[Numbers], str]
    mean: Callable[[Numbers], float]
    draw: Callable[[np.random.Generator, Numbers, int], npt.NDArray[Any]]


LAWS: dict[str, Kind] = {
    "constant": Kind(
        ("TIME",),
        lambda n: "",
        lambda n: n[0],
        lambda rng, n, count: np.full(count, n[0]),
    ),
    "normal": Kind(
        ("MEAN", "DEVIATION"),
        # At three deviations 1 draw in 740 is cut off at 0, which moves the mean by less than 0.2 %.
        lambda n: "the deviation must be at most a third of the mean" if 3 * n[1] > n[0] else "",
        lambda n: n[0],
        lambda rng, n, count: rng.normal(n[0], n[1], count),
    ),
    "lognormal": Kind(
        ("MEDIAN", "sigma"),
        lambda n: "sigma must be 0 or more" if n[1] < 0 else "",
        lambda n: n[0] * math.exp(n[1] ** 2 / 2),
        lambda rng, n, count: n[0] * np.exp(n[1] * rng.standard_normal(count)),
    ),
    "exponential": Kind(
        ("MEAN",),
        lambda n: "",
        lambda n: n[0],
        lambda rng, n, count: rng.exponential(n[0], count),
    ),
    "shifted-exponential": Kind(
        ("LEAST", "MEAN-ABOVE"),
        lambda n: "",
        lambda n: n[0] + n[1],
        lambda rng, n, count: n[0] + rng.exponential(n[1], count),
    ),
    "pareto": Kind(
        ("LEAST", "alpha"),
        lambda n: "alpha must be above 1, for else there is no mean" if n[1] <= 1 else "",
        lambda n: n[0] * n[1] / (n[1] - 1),
        lambda rng, n, count: n[0] * (1 + rng.pareto(n[1], count)),
    ),
    "empirical": Kind(
        ("TIME", "..."),
        lambda n: "",
        lambda n: math.fsum(n) / len(n),
        lambda rng, n, count: rng.choice(np.array(n), count),
    ),
}
"""Every law by name. ``empirical`` draws, with replacement, from times that were measured."""


@dataclass(frozen=True, slots=True)
class Law:
    """One law of durations, such as ``exponential:20ms``.

    Attributes:
        name: one of `LAWS`.
        numbers: as that law wants them.
    """

    name: str
    numbers: Numbers

    def __str__(self) -> str:
        kind = LAWS[self.name]
        names = kind.numbers if "..." not in kind.numbers else ("TIME",) * len(self.numbers)
        texts = [
            format_duration(number) if name.isupper() else format_number(number)
            for name, number in zip(names, self.numbers, strict=True)
        ]
        return f"{self.name}:{','.join(texts)}"

    @property
    def mean(self) -> float:
        """The expected duration in nanoseconds."""
        return LAWS[self.name].mean(self.numbers)

    @property
    def is_constant(self) -> bool:
        """Say whether every draw is the same."""
        return self.name == "constant"

    def draw(self, rng: np.random.Generator, count: int) -> Durations:
        """Draw durations.

        Returns:
            ``(count,) int64`` nanoseconds, 0 or more.
        """
        drawn = LAWS[self.name].draw(rng, self.numbers, count)
        whole: Durations = np.rint(np.maximum(drawn, 0)).astype(np.int64)
        return whole


def parse_law(text: str, what: str) -> Law:
    """Read a law.

    Args:
        text: such as ``constant:10ms``, ``lognormal:20ms,0.3`` or ``empirical:9ms,10ms,14ms``. A duration
            alone is constant.
        what: whose durations, for messages.

    Raises:
        RequestError: there is no such law, or its numbers cannot be.

    Example:
        >>> parse_law("exponential:20ms", "the compute time").mean
        20000000.0
    """
    name, colon, rest = text.partition(":")
    if not colon and name.lstrip("+-.")[:1].isdigit():
        name, rest = "constant", text
    check_known(name, LAWS, "law")
    kind, texts = LAWS[name], rest.split(",") if rest else []
    open_ended = "..." in kind.numbers
    form = f"{name}:{','.join(kind.numbers)}"
    if len(texts) != len(kind.numbers) and not (open_ended and texts):
        raise RequestError(f"Expected {form} as {what}, but found '{text}'. Every number must be given.")
    names = ("TIME",) * len(texts) if open_ended else kind.numbers
    numbers = tuple(
        (parse_duration if which.isupper() else parse_number)(number, f"{which.lower()} of {what}")
        for which, number in zip(names, texts, strict=True)
    )
    wrong = kind.wrong(numbers)
    if wrong:
        raise RequestError(f"The law '{text}' of {what} cannot be: {wrong}.")
    return Law(name, numbers)
