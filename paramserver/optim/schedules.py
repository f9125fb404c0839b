"""Learning rates as functions of the version.

A schedule takes the number of updates applied before and gives the learning rate of the next one. The
shard's version is that number, so all replicas share one schedule and it survives a restart.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""From the count of updates applied before to the learning rate of the next update."""


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
