"""Optimizers by the names that a job file uses: ``sgd``, ``momentum:0.9``, ``adam:0.9,0.999``."""

from __future__ import annotations

import math
from collections.abc import Callable

from paramserver.errors import RequestError, did_you_mean
from paramserver.optim.base import Optimizer, chain
from paramserver.optim.schedules import Schedule, constant, cosine
from paramserver.optim.transforms import accumulate_velocity, scale_by_adam, scale_by_learning_rate

SCHEDULES = ("constant", "cosine")
"""The schedules that a job may name."""


def sgd(schedule: Schedule) -> Optimizer:
    """Build stochastic gradient descent: a step against the gradient, times the learning rate."""
    return scale_by_learning_rate(schedule)


def momentum(schedule: Schedule, decay: float = 0.9) -> Optimizer:
    """Build gradient descent with a heavy ball: `accumulate_velocity`, then the learning rate."""
    return chain(accumulate_velocity(decay), scale_by_learning_rate(schedule))


def adam(schedule: Schedule, beta1: float = 0.9, beta2: float = 0.999) -> Optimizer:
    """Build Adam: `scale_by_adam`, then the learning rate."""
    return chain(scale_by_adam(beta1, beta2), scale_by_learning_rate(schedule))


# Each name with its builder and the most numbers that may follow it; each number is a decay in [0, 1).
_BUILDERS: dict[str, tuple[Callable[..., Optimizer], int]] = {
    "sgd": (sgd, 0),
    "momentum": (momentum, 1),
    "adam": (adam, 2),
}

OPTIMIZERS = tuple(_BUILDERS)
"""The optimizers that a job may name."""


def build_optimizer(spec: str, learning_rate: float, schedule: str, versions_total: int) -> Optimizer:
    """Build the optimizer that a job names.

    Args:
        spec: ``sgd``, ``momentum``, ``momentum:DECAY``, ``adam`` or ``adam:BETA1,BETA2``.
        learning_rate: the base rate, above 0.
        schedule: ``constant`` or ``cosine``.
        versions_total: updates in the whole job, at least 1; ``cosine`` ends there.

    Raises:
        RequestError: a name is unknown, or a number is missing, surplus or out of range.

    Example:
        >>> optimizer = build_optimizer("momentum:0.8", 0.1, "cosine", versions_total=100)
    """
    name, separator, rest = spec.partition(":")
    if name not in _BUILDERS:
        raise RequestError(
            f"Unknown optimizer '{name}': expected one of {', '.join(OPTIMIZERS)}."
            f"{did_you_mean(name, OPTIMIZERS)}"
        )
    builder, numbers_max = _BUILDERS[name]
    texts = rest.split(",") if separator else []
    if len(texts) > numbers_max:
        raise RequestError(
            f"The optimizer '{name}' takes at most {numbers_max} numbers after its name, but '{spec}' has "
            f"{len(texts)}. Leave them out for the defaults."
        )
    decays = [_decay(spec, text) for text in texts]
    return builder(build_schedule(schedule, learning_rate, versions_total), *decays)


def build_schedule(name: str, learning_rate: float, versions_total: int) -> Schedule:
    """Build the learning-rate schedule that a job names.

    Args:
        name: ``constant`` or ``cosine``.
        learning_rate: the base rate, above 0.
        versions_total: updates in the whole job, at least 1.

    Raises:
        RequestError: the name is unknown or a number is out of range.
    """
    if not (math.isfinite(learning_rate) and learning_rate > 0.0):
        raise RequestError(f"The learning rate must be a number above 0, but it is {learning_rate}.")
    if versions_total < 1:
        raise RequestError(f"A schedule needs at least 1 update in the job, but it has {versions_total}.")
    if name == "constant":
        return constant(learning_rate)
    if name == "cosine":
        return cosine(learning_rate, versions_total)
    raise RequestError(
        f"Unknown schedule '{name}': expected one of {', '.join(SCHEDULES)}.{did_you_mean(name, SCHEDULES)}"
    )


def _decay(spec: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < 1.0:
        raise RequestError(
            f"The numbers of an optimizer are decays from 0 up to but not including 1, such as 0.9, "
            f"but '{spec}' has '{text}'."
        )
    return value
