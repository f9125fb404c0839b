"""How long a synchronous step takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from paramserver.repro.claims import Band, Case, Claim, Quantity, ideal_world
from paramserver.sim import Machines, parse_problem, simulate

TIME = "step time, mean compute times"

STEPS = 400
SEEDS = 5  # for which the bands are wide enough
ERRORS = 4

Vector = npt.NDArray[np.float64]


def measure(compute: str, unit_seconds: float, replicas: int, seed: int) -> dict[str, float]:
    """Return how long a synchronous step takes, in units."""
    run = simulate(
        ideal_world(compute, seed),
        Machines(workers=replicas),
        parse_problem("timing"),
        STEPS,
        consistency="sync",
        keep_steps=False,
    )
    return {TIME: run.seconds / STEPS / unit_seconds}


def moments(distribution: Callable[[Vector], Vector], replicas: int) -> tuple[float, float]:
    """Return mean and standard deviation of the largest of some independent times.

    Args:
        distribution: chance that a time is at most x; for x >= 0, vectorised.
        replicas: how many times, >= 1.

    ``E[max] = integral of 1 - F(x)^n``, and its square's mean is the integral of ``2 x (1 - F(x)^n)``.

    Example:
        >>> mean, deviation = moments(lambda x: 1 - np.exp(-x), 4)
        >>> round(mean, 4), round(1 + 1 / 2 + 1 / 3 + 1 / 4, 4)
        (2.0833, 2.0833)
    """
    x = np.concatenate([np.linspace(0, 50, 100_001), np.geomspace(50, 1e5, 20_001)[1:]])
    beyond = 1 - distribution(x) ** replicas
    mean = _integral(x, beyond)
    return mean, math.sqrt(max(_integral(x, 2 * x * beyond) - mean**2, 0))


def _integral(x: Vector, y: Vector) -> float:
    return float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)))


def _normal(x: Vector) -> Vector:
    # Every 64th point suffices for so smooth a curve, and numpy has no error function.
    coarse = np.linspace(0, 4, 4001)
    values = np.array([(1 + math.erf((point - 1) / (0.3 * math.sqrt(2)))) / 2 for point in coarse])
    return np.asarray(np.interp(x, coarse, values), np.float64)


DISTRIBUTIONS: dict[str, tuple[float, Callable[[Vector], Vector]]] = {
    "constant:10ms": (0.01, lambda x: (x >= 1).astype(np.float64)),
    "normal:10ms,3ms": (0.01, _normal),
    "exponential:10ms": (0.01, lambda x: 1 - np.exp(-x)),
    "shifted-exponential:5ms,5ms": (0.01, lambda x: np.where(x < 0.5, 0, 1 - np.exp(-(x - 0.5) / 0.5))),
    # From 7.5 ms with alpha = 4 the mean is 10 ms.
    "pareto:7.5ms,4": (0.01, lambda x: np.where(x < 0.75, 0, 1 - (0.75 / np.maximum(x, 0.75)) ** 4)),
    "constant:10ms all/10%=x2": (0.011, lambda x: np.where(x < 1 / 1.1, 0, np.where(x < 2 / 1.1, 0.9, 1.0))),
}
"""For each law the mean in seconds, and the chance that a time is at most x means."""


def _case(compute: str, replicas: int) -> Case:
    unit_seconds, distribution = DISTRIBUTIONS[compute]
    mean, deviation = moments(distribution, replicas)
    # The integral itself is good to 1e-4.
    room = ERRORS * deviation / math.sqrt(SEEDS * STEPS) + 1e-3 * mean
    return Case(
        f"{compute}, {replicas} replica{'s' * (replicas > 1)}",
        partial(measure, compute, unit_seconds, replicas),
        {TIME: Band(mean, mean - room, mean + room)},
    )


SYNC_MAXIMUM = Claim(
    name="sync-maximum",
    title="A synchronous step takes as long as its slowest replica",
    says="With nothing to wait for but each other, a synchronous step of n replicas takes the expected "
    "maximum of n compute times. For exponential times of mean 1 that is the harmonic number 1 + 1/2 + ... + "
    "1/n.",
    source="S. Dutta, G. Joshi, S. Ghosh, P. Dube and P. Nagpurkar, Slow and Stale Gradients Can Win the "
    "Race, AISTATS 2018, on the runtime of fully synchronous SGD; A. Renyi, On the theory of order "
    "statistics (1953), for the harmonic number",
    setting=f"sync, one shard, ideal network, {STEPS} steps of each replica. Expected: the integral of "
    "1 - F(x)^n, taken numerically.",
    band=f"Within {ERRORS} standard errors of {SEEDS} x {STEPS} steps, from the law's own deviation, and 0.1 "
    "% for the integral.",
    quantities=(Quantity(TIME, 3),),
    cases=tuple(
        _case(compute, replicas)
        for compute in DISTRIBUTIONS
        for replicas in ((1, 2, 4, 8, 16) if compute == "exponential:10ms" else (8,))
    ),
)
