"""What is compared: a few numbers of each run, and their median and spread over the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

SHARE_OF_BEST: Final = 0.99
"""A target that nobody stated is this share of the lowest best accuracy: every run reaches it, and few by the
luck of one step."""


@dataclass(frozen=True, slots=True)
class Point:
    """The weights as they were judged on the validation set while they were trained.

    Attributes:
        seconds: since the beginning of training, of the run's own time.
        version: updates so far, of the shard that has most.
        accuracy: 0 to 1; of a regression R2; None where the data have none.
        loss: mean over the samples.
    """

    seconds: float
    version: int
    accuracy: float | None
    loss: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one run.

    Attributes:
        rule: the consistency model.
        seed: of the job.
        folder: of the run, inside of that of the comparison.
        reason: why it failed, as a sentence; empty if it finished.
        summary: of a finished run, as `paramserver.summary.summarise` made it.
        curve: by time.
    """

    rule: str
    seed: int
    folder: str
    reason: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    curve: Sequence[Point] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """The validation accuracy to which times are taken.

    Attributes:
        accuracy: None where no run has any.
        why: where it comes from, as a sentence.
    """

    accuracy: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the table.

    Attributes:
        name: in JSON.
        title: for people, with its unit.
        meaning: in a sentence.
        digits: significant ones.
        decimals: a fixed number of decimals in place of significant digits; None for none.
    """

    name: str
    title: str
    meaning: str
    digits: int = 3
    decimals: int | None = None


TO_TARGET: Final = "seconds_to_target"

MEASURES: Final = (
    Measure(
        TO_TARGET,
        "s to target",
        "Seconds from the beginning of training until the validation accuracy was first seen at the target.",
    ),
    Measure("updates_per_second", "updates/s", "Updates of a shard in a second."),
    Measure("samples_per_second", "samples/s", "Samples in a second whose gradients were applied."),
    Measure(
        "mean_staleness",
        "staleness",
        "Mean over the applied gradients, in versions: how many updates came between pull and push.",
        decimals=2,
    ),
    Measure(
        "wait_percent", "wait %", "Share of the replicas' time in which they waited for others.", decimals=1
    ),
    Measure("accuracy", "accuracy", "On the test set, once, with the final weights.", decimals=3),
)
"""The columns of the table, in order."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A number of several runs.

    Attributes:
        middle: the median; None where most runs have no such number.
        low: the least; None as above.
        high: the greatest; None where any run has none.
        count: runs.
        missing: runs that have no such number.
    """

    middle: float | None
    low: float | None
    high: float | None
    count: int
    missing: int


def measure(run: Outcome, target: Target) -> dict[str, float | None]:
    """Return the numbers of a finished run, by the names in `MEASURES`."""
    summary = run.summary
    seconds = summary["wall_seconds"]
    return {
        TO_TARGET: _seconds_to(run.curve, target.accuracy),
        "updates_per_second": max(summary["versions"], default=0) / seconds if seconds > 0 else None,
        "samples_per_second": summary["samples_per_second"],
        "mean_staleness": summary["staleness"]["mean"],
        "wait_percent": summary["time_budget"]["total"]["wait"],
        "accuracy": summary["accuracy"],
    }


def choose_target(runs: Sequence[Outcome], given: float) -> Target:
    """Choose the accuracy to which times are taken.

    Args:
        runs: the finished ones.
        given: by whoever compares; 0 for none.

    Example:
        >>> def run(*accuracies):
        ...     return Outcome("sync", 0, "", curve=[Point(1, 1, accuracy, 0) for accuracy in accuracies])
        >>> choose_target([run(0.5, 0.9), run(0.97, 0.95)], 0.0).accuracy
        0.891
    """
    if given:
        return Target(given, f"Times are taken to the given validation accuracy, {given:g}.")
    best = [
        max((point.accuracy for point in run.curve if point.accuracy is not None), default=None)
        for run in runs
    ]
    known = [value for value in best if value is not None and math.isfinite(value)]
    if not known or len(known) < len(best) or min(known) <= 0:
        return Target(None, "There is no target, because not every run has a validation accuracy above 0.")
    # Rounded down, so that the lowest best still reaches it.
    target = math.floor(SHARE_OF_BEST * min(known) * 1000) / 1000
    return Target(
        target,
        f"No target was given: {target:g} is {SHARE_OF_BEST:g} of {min(known):.4f}, the lowest of the best "
        "validation accuracies of all runs.",
    )


def spreads(runs: Sequence[Outcome], target: Target) -> dict[str, Spread]:
    """Return median, least and greatest of each measure over finished runs, by name.

    What a run has none of counts as infinite: a target that it did not reach it would have reached later.
    """
    measured = [measure(run, target) for run in runs]
    return {each.name: _spread([one[each.name] for one in measured]) for each in MEASURES}


def _spread(values: Sequence[float | None]) -> Spread:
    numbers = [math.inf if value is None else value for value in values]
    if not numbers:
        return Spread(None, None, None, 0, 0)
    found = [
        number if math.isfinite(number) else None for number in (median(numbers), min(numbers), max(numbers))
    ]
    return Spread(found[0], found[1], found[2], len(values), sum(value is None for value in values))


def _seconds_to(curve: Sequence[Point], target: float | None) -> float | None:
    if target is None:
        return None
    return next(
        (point.seconds for point in curve if point.accuracy is not None and point.accuracy >= target), None
    )
