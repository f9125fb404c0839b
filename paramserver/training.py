"""What one replica does, as a generator that yields what it wants and is sent what it gets.

The same generator trains over real channels, in virtual time, and under a test that plays the server. It
can begin at any clock; when a host learns that its replica is fenced, it drops the generator and begins a new
one at the clock that it was told.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from paramserver.errors import JobError
from paramserver.events import Outcome, Verdict
from paramserver.rows import Gradients, RowsByKey
from paramserver.session import Pulled

REFUSALS_MAX = 5
"""Refused gradients in a row after which a replica gives up: training has diverged."""

BatchT = TypeVar("BatchT")


@dataclass(frozen=True, slots=True)
class Pull:
    """Give me the weights that a reader at this clock may see.

    Attributes:
        clock: finished steps.
        rows: which rows of which tables suffice; every other tensor is wanted whole.
    """

    clock: int
    rows: RowsByKey = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Push:
    """Take the gradient of the step at this clock.

    Attributes:
        clock: of the step; the push's sequence.
        gradients: mean gradient by key, float32; of tables the touched rows suffice.
        samples: how many samples it is the mean over.
        loss: mean loss over these samples.
    """

    clock: int
    gradients: Gradients
    samples: int
    loss: float


def all_rows(batch: object) -> RowsByKey:
    """Name no rows, so that every tensor is pulled whole."""
    return {}


@dataclass(frozen=True, slots=True)
class Step(Generic[BatchT]):
    """The work of a replica.

    Attributes:
        batch_at: returns the batch of a clock, the same one whenever it is asked; None after the last one.
        gradient: takes weights and a batch; returns mean loss, mean gradient by key, and the samples. The
            weights are arrays, and ``RowValues`` of the tables whose rows were named.
        rows: names the rows of tables that a batch reads, so that only these are pulled.
    """

    batch_at: Callable[[int], BatchT | None]
    gradient: Callable[[Mapping[str, Any], BatchT], tuple[float, Gradients, int]]
    rows: Callable[[BatchT], RowsByKey] = all_rows


def training(
    step: Step[Any], steps: int | None = None, start_clock: int = 0
) -> Generator[Pull | Push, Pulled | Verdict, None]:
    """Train one replica from a clock to the end.

    After the last step it pulls once more: in a synchronous mode that waits for the last round, and brings
    the verdict of the last push.

    Args:
        step: how a gradient is made.
        steps: finished steps at the end; None: until there is no batch.
        start_clock: finished steps at the beginning.

    Yields:
        ``Pull``, to be answered with ``Pulled``; ``Push``, to be answered with ``Verdict``.

    Raises:
        JobError: too many gradients in a row were refused.
    """
    refused = 0
    rows: RowsByKey = {}
    last = sys.maxsize if steps is None else steps
    for clock in range(start_clock, last + 1):
        batch = step.batch_at(clock) if clock < last else None
        if batch is not None:
            rows = step.rows(batch)
        else:  # no step follows, so no row is needed
            rows = dict.fromkeys(rows, np.empty(0, np.int64))
        pulled = yield Pull(clock, rows)
        assert isinstance(pulled, Pulled)
        if pulled.verdict is not None:
            refused = count_refusals(refused, pulled.verdict)
        if batch is None:
            return
        loss, gradients, samples = step.gradient(pulled.values, batch)
        verdict = yield Push(clock, gradients, samples, loss)
        assert isinstance(verdict, Verdict)
        if verdict.round < 0:  # what becomes of a round's gradient, the next pull says
            refused = count_refusals(refused, verdict)


def count_refusals(refused: int, verdict: Verdict) -> int:
    """Count how many gradients in a row have been dropped.

    Args:
        refused: how many before this one.
        verdict: on the next one.

    Returns:
        How many with this one; 0 if it was not dropped.

    Raises:
        JobError: so many that training has diverged.
    """
    if verdict.outcome is not Outcome.DROPPED:
        return 0
    if refused + 1 >= REFUSALS_MAX:
        raise JobError(
            f"{refused + 1} gradients in a row were dropped, so training does not go on. The last: "
            f"{verdict.reason} A smaller learning rate often helps."
        )
    return refused + 1
