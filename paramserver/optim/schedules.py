"""Learning rates as functions of the version.

A schedule takes the number of updates applied before and gives the learning rate of the next one. The
shard's version is that number, so all replicas share one schedule and it survives a restart.

A job names a schedule in words: ``constant``, ``cosine``, ``step:0.1,1000`` (times 0.1 after every 1,000
updates), and any of these after ``warmup:100+`` (100 updates from nearly 0 up to the base rate). Where a
number of updates is expected, ``10%`` means that share of the job's updates, which is the same part of
training in every consistency model: an asynchronous job makes as many updates as there are gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from paramserver.errors import RequestError, did_you_mean

Schedule = Callable[[int], float]
"""From the count of updates applied before to the learning rate of the next update."""

SCHEDULES: Final = MappingProxyType(
    {
        "constant": "one rate for the whole job",
        "cosine": "along half a cosine down to 0 at the end of the job",
        "step": "step:FACTOR,EVERY: times FACTOR after every so many updates (1000, or 30% of the job)",
        "warmup": "warmup:UPDATES+SCHEDULE: a straight rise (100 updates, or 5% of the job), then a schedule",
    }
)
"""The schedules that a job may name, with a line each."""


def constant(learning_rate: float) -> Schedule:
    """Keep one learning rate.

    Example:
        >>> constant(0.1)(1_000)
        0.1
    """
    return lambda count: learning_rate


def cosine(learning_rate: float, versions_total: int) -> Schedule:
    """Fall from the base rate to 0 along half a cosine, and stay there.

    Loshchilov and Hutter, 2017, "SGDR: stochastic gradient descent with warm restarts", equation 5, with
    one period and a smallest rate of 0.

    Args:
        learning_rate: the rate at count 0.
        versions_total: the count at which the rate reaches 0.

    Example:
        >>> schedule = cosine(0.1, versions_total=100)
        >>> schedule(0), round(schedule(50), 6), schedule(100), schedule(101)
        (0.1, 0.05, 0.0, 0.0)
    """

    def schedule(count: int) -> float:
        progress = min(count, versions_total) / versions_total
        return learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))

    return schedule


def step(learning_rate: float, factor: float, every: int) -> Schedule:
    """Multiply the rate by a factor after every so many updates.

    Args:
        learning_rate: the rate of the first `every` updates.
        factor: above 0, at most 1.
        every: updates at one rate, at least 1.

    Example:
        >>> schedule = step(0.8, factor=0.5, every=10)
        >>> schedule(9), schedule(10), schedule(20)
        (0.8, 0.4, 0.2)
    """
    return lambda count: learning_rate * factor ** (count // every)


def warmup(learning_rate: float, updates: int, after: Schedule) -> Schedule:
    """Rise in a straight line to the base rate, then follow another schedule from its beginning.

    Goyal et al., 2017, "Accurate, large minibatch SGD: training ImageNet in 1 hour", section 2.2 (gradual
    warm-up). The first update already has a rate above 0.

    Args:
        learning_rate: the base rate, reached by the last update of the warm-up.
        updates: of the warm-up, at least 1.
        after: the schedule of the rest; its count 0 is the first update after the warm-up.

    Example:
        >>> schedule = warmup(0.1, updates=4, after=constant(0.1))
        >>> [round(schedule(count), 3) for count in range(6)]
        [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]
    """
    return lambda count: learning_rate * (count + 1) / updates if count < updates else after(count - updates)


def build_schedule(spec: str, learning_rate: float, versions_total: int) -> Schedule:
    """Build the learning-rate schedule that a job names.

    Args:
        spec: ``constant``, ``cosine`` or ``step:FACTOR,EVERY``, or one of these after ``warmup:UPDATES+``.
            Alone, ``warmup:UPDATES`` goes on at the base rate. UPDATES and EVERY are whole numbers, or
            shares of the whole job such as ``10%``.
        learning_rate: the base rate, above 0.
        versions_total: updates in the whole job, at least 1; ``cosine`` ends there.

    Raises:
        RequestError: a name is unknown, or a number is missing, surplus or out of range.

    Example:
        >>> schedule = build_schedule("warmup:10%+cosine", 0.1, versions_total=100)
        >>> round(schedule(0), 4), schedule(9), schedule(10), schedule(100)
        (0.01, 0.1, 0.1, 0.0)
    """
    if not (math.isfinite(learning_rate) and learning_rate > 0.0):
        raise RequestError(f"The learning rate must be a number above 0, but it is {learning_rate}.")
    if versions_total < 1:
        raise RequestError(f"A schedule needs at least 1 update in the job, but it has {versions_total}.")
    first, plus, rest = spec.partition("+")
    name, _, numbers = first.partition(":")
    if name == "warmup":
        updates = _updates(spec, numbers, versions_total)
        after = _plain(rest if plus else "constant", learning_rate, versions_total, updates)
        return warmup(learning_rate, updates, after)
    if plus:
        raise RequestError(
            f"Only a warm-up is followed by another schedule, but '{spec}' has '{first}' first. "
            "Write it as in warmup:100+cosine."
        )
    return _plain(spec, learning_rate, versions_total)


def _plain(spec: str, learning_rate: float, versions_total: int, warmed: int = 0) -> Schedule:
    """Build a schedule that begins after some updates of warm-up; shares are of the whole job."""
    name, _, numbers = spec.partition(":")
    if spec == "constant":
        return constant(learning_rate)
    if spec == "cosine":
        return cosine(learning_rate, max(versions_total - warmed, 1))
    if name == "step":
        factor, comma, every = numbers.partition(",")
        if not comma or "," in every:
            raise RequestError(
                f"The schedule 'step' takes a factor and a number of updates, as in step:0.1,1000 or "
                f"step:0.5,30%, but found '{spec}'."
            )
        return step(learning_rate, _factor(spec, factor), _updates(spec, every, versions_total))
    if name == "warmup":
        raise RequestError(f"A schedule warms up once, but '{spec}' follows a warm-up. Leave one out.")
    if name in SCHEDULES:
        raise RequestError(f"The schedule '{name}' takes no numbers, but found '{spec}'. Leave them out.")
    raise RequestError(
        f"Unknown schedule '{name}': expected one of {', '.join(SCHEDULES)}.{did_you_mean(name, SCHEDULES)}"
    )


def _factor(spec: str, text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0.0 < factor <= 1.0:
        raise RequestError(
            f"The factor of a step is above 0 and at most 1, such as 0.1, but '{spec}' has '{text}'."
        )
    return factor


def _updates(spec: str, text: str, versions_total: int) -> int:
    """Read a number of updates, or a share of the job's."""
    digits = text.removesuffix("%")
    if digits.isascii() and digits.isdigit() and int(digits) > 0:
        if text == digits:
            return int(digits)
        if int(digits) <= 100:
            return max(round(versions_total * int(digits) / 100), 1)
    raise RequestError(
        f"A number of updates is a whole number from 1 up, or a share of the job from 1% to 100%, "
        f"but '{spec}' has '{text}'."
    )
