"""The account of a run: where every gradient, every sample and every second went.

It is made of what the replicas counted themselves. Nothing is silently discarded: in gradients and in samples
``computed = applied + dropped + fenced + partial + lost + rolled_back``, where lost is what no verdict was
ever heard of, and rolled back what was applied to weights that were given up for a checkpoint.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from paramserver.events import PHASES, Counters

GRADIENT_NAMES = ("computed", "applied", "dropped", "duplicate", "fenced", "partial", "lost", "rolled_back")
"""What a summary says of gradients; ``duplicate`` is beside the sum."""

SAMPLE_NAMES = ("computed", "applied", "dropped", "fenced", "partial", "lost", "rolled_back")
"""What a summary says of samples."""

_DECIDED = ("applied", "dropped", "fenced", "partial", "rolled_back")


def merge_counters(many: Iterable[Counters]) -> Counters:
    """Add up counters of several replicas, or of one replica's incarnations.

    Returns:
        Sums; ``loss`` is the mean of the losses that are there, NaN where none is.

    Example:
        >>> both = merge_counters([Counters({"applied": 2}, loss=0.5), Counters({"applied": 3}, loss=0.7)])
        >>> both.gradients, round(both.loss, 3)
        ({'applied': 5}, 0.6)
    """
    gradients: Counter[str] = Counter()
    samples: Counter[str] = Counter()
    staleness: Counter[int] = Counter()
    clock_gap: Counter[int] = Counter()
    seconds: dict[str, list[float]] = {}
    losses = []
    for one in many:
        gradients.update(one.gradients)
        samples.update(one.samples)
        staleness.update(one.staleness)
        clock_gap.update(one.clock_gap)
        for name, value in one.seconds.items():
            seconds.setdefault(name, []).append(value)
        if not math.isnan(one.loss):
            losses.append(one.loss)
    return Counters(
        dict(gradients),
        dict(samples),
        dict(sorted(staleness.items())),
        dict(sorted(clock_gap.items())),
        {name: math.fsum(values) for name, values in seconds.items()},
        math.fsum(losses) / len(losses) if losses else math.nan,
    )


def account(counts: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Complete counts so that ``computed = applied + dropped + fenced + partial + lost + rolled_back``.

    Args:
        counts: some of ``GRADIENT_NAMES``; what is missing is 0.
        names: those to return, in order.

    Returns:
        Counts by name. What was computed and has no verdict is ``lost``.

    Example:
        >>> account({"computed": 5, "applied": 3, "dropped": 1}, SAMPLE_NAMES)["lost"]
        1
    """
    lost = max(counts.get("lost", 0), counts.get("computed", 0) - decided(counts))
    return {name: lost if name == "lost" else counts.get(name, 0) for name in names}


def clock_gap_bound(consistency: str) -> int | None:
    """Return N of ``ssp:N``, the largest clock gap that it allows; None for the others."""
    name, _, bound = consistency.partition(":")
    return int(bound) if name == "ssp" else None


def staleness_bound(consistency: str, replicas: int) -> int | None:
    """Return the largest staleness that a consistency model allows, in versions; None where there is none.

    Sync applies each round to the weights that it was computed at: 0. Under ``ssp:s`` each of the other
    replicas can be s clocks behind when one reads and s ahead when it pushes, with a step in between:
    ``(2 s + 1) (replicas - 1)``.

    Example:
        >>> staleness_bound("ssp:3", replicas=4)
        21
    """
    if consistency == "sync":
        return 0
    bound = clock_gap_bound(consistency)
    return None if bound is None else (2 * bound + 1) * (replicas - 1)


def shares(seconds: Mapping[str, float], parts: int) -> dict[str, int]:
    """Divide a whole among the phases by the largest remainder (Hamilton's method).

    Args:
        seconds: by the names in ``PHASES``; what is missing is 0. Without any time, all is ``rest``.
        parts: units in the whole, such as 100 for percent.

    Returns:
        Units by phase; they sum to `parts`.

    Example:
        >>> shares({"compute": 1, "pull": 1, "wait": 1}, 100)
        {'compute': 34, 'pull': 33, 'push': 0, 'wait': 33, 'rest': 0}
    """
    known = {phase: max(0.0, seconds.get(phase, 0.0)) for phase in PHASES}
    whole = math.fsum(known.values())
    if not whole > 0:
        return {phase: parts if phase == "rest" else 0 for phase in PHASES}
    exact = {phase: parts * value / whole for phase, value in known.items()}
    units = {phase: math.floor(value) for phase, value in exact.items()}
    missing = parts - sum(units.values())
    by_remainder = sorted(PHASES, key=lambda phase: units[phase] - exact[phase])
    for phase in by_remainder[:missing]:
        units[phase] += 1
    return units


def decided(counts: Mapping[str, int]) -> int:
    """Return how many of what was computed have a verdict.

    Args:
        counts: some of ``GRADIENT_NAMES``.
    """
    return sum(counts.get(name, 0) for name in _DECIDED)
