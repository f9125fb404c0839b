"""The dumb twin: the same training in one plain loop, with no server, no thread and no message.

It shares nothing with shard and session, not even the blocked arithmetic of `optim.apply` and
`optim.combine`: it writes the same expressions over whole tensors. A synchronous job must end with the same
bytes here and there, which shows that cutting, sending, waiting and summing have changed nothing. A gradient
of some rows of a table is one of the whole table here, with zeros in all other rows; only the update looks at
which rows somebody has touched, because the others, and their state, have to stay as they are.

Under ``async`` and ``ssp`` the replicas take turns and each update is applied at once, so nothing is stale:
this is what such a job would do if it ran on one machine with one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.consistency import Consistency
from paramserver.errors import JobError
from paramserver.optim import Optimizer
from paramserver.rows import Gradient, Gradients, RowGradient, RowIndices, dense
from paramserver.training import REFUSALS_MAX, Step
from paramserver.types import Array, Tensors


@dataclass(frozen=True, slots=True)
class Contribution:
    """One replica's gradient: whose, its mean loss, its samples, and whether it was applied."""

    rank: int
    loss: float
    samples: int
    applied: bool


@dataclass(frozen=True, slots=True)
class Update:
    """The weights after one round (sync) or one gradient.

    Attributes:
        version: applied updates.
        clock: of the step that was done.
        weights: by key; not changed by later updates.
        state: the optimizer's state of each tensor, flat, by name; changed in place by later updates.
        contributions: in rank order.
    """

    version: int
    clock: int
    weights: Mapping[str, Array]
    state: Mapping[str, Mapping[str, Array]]
    contributions: tuple[Contribution, ...]


def train_sequentially(
    rule: Consistency,
    optimizer: Optimizer,
    initial: Tensors,
    replicas: Sequence[Step[Any]],
    steps: Sequence[int],
) -> Iterator[Update]:
    """Train all replicas of a job, one after the other.

    Args:
        rule: sync takes the mean of a round; any other applies each gradient at once.
        optimizer: the job's.
        initial: first weights by key, float32.
        replicas: how each rank makes its gradients.
        steps: of each rank; a rank that has run out takes no part in later rounds.

    Yields:
        One update after the other, until every rank has done its steps.

    Raises:
        JobError: one rank's gradients were not finite too many times in a row.
    """
    weights = {key: initial[key] for key in sorted(initial)}
    state = {key: optimizer.init(value.reshape(-1)) for key, value in weights.items()}
    refused = [0] * len(replicas)
    version = 0
    for clock in range(max(steps)):
        ranks = [rank for rank, count in enumerate(steps) if clock < count]
        for together in [ranks] if rule.gathers else [[rank] for rank in ranks]:
            leaves: list[tuple[Gradients, int] | None] = [None] * len(replicas)
            contributions = []
            for rank in together:
                loss, gradients, samples = replicas[rank].gradient(weights, replicas[rank].batch_at(clock))
                finite = all(_is_finite(gradient) for gradient in gradients.values())
                if finite:
                    leaves[rank] = (gradients, samples)
                refused[rank] = 0 if finite else refused[rank] + 1
                contributions.append(Contribution(rank, loss, samples, finite))
            if any(leaves):
                weights = {
                    key: _updated(
                        optimizer,
                        weights[key],
                        _mean(leaves, key),
                        _touched(leaves, key),
                        state[key],
                        version,
                    )
                    for key in weights
                }
                version += 1
            yield Update(version, clock, weights, state, tuple(contributions))
            _check_refusals(refused, clock)


def _is_finite(gradient: Gradient) -> bool:
    return bool(np.isfinite(gradient.rows if isinstance(gradient, RowGradient) else gradient).all())


def _mean(leaves: Sequence[tuple[Gradients, int] | None], key: str) -> Array:
    """Return the mean, weighted by samples, summed over the tree ((0+1)+(2+3))+… of rank positions."""
    nodes = [None if leaf is None else np.float32(leaf[1]) * dense(leaf[0][key]) for leaf in leaves]
    while len(nodes) > 1:
        nodes = [
            _sum(nodes[i], nodes[i + 1] if i + 1 < len(nodes) else None) for i in range(0, len(nodes), 2)
        ]
    assert nodes[0] is not None
    mean: Array = nodes[0] / np.float32(sum(leaf[1] for leaf in leaves if leaf is not None))
    return mean


def _sum(left: Array | None, right: Array | None) -> Array | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right


def _touched(leaves: Sequence[tuple[Gradients, int] | None], key: str) -> RowIndices | None:
    """Return the rows that are in anybody's gradient, ascending; None where a gradient has all rows."""
    gradients = [leaf[0][key] for leaf in leaves if leaf is not None]
    by_rows = [gradient.indices for gradient in gradients if isinstance(gradient, RowGradient)]
    return np.unique(np.concatenate(by_rows)) if len(by_rows) == len(gradients) else None


def _updated(
    optimizer: Optimizer,
    weights: Array,
    gradient: Array,
    touched: RowIndices | None,
    state: dict[str, Array],
    count: int,
) -> Array:
    if touched is None:
        updates, flat = gradient.reshape(-1).copy(), weights.reshape(-1)
        optimizer.update(updates, state, flat, count)
        return (flat + updates).reshape(weights.shape)
    after, updates, rows = weights.copy(), gradient[touched], weights[touched]
    tables = {name: array.reshape(weights.shape) for name, array in state.items()}
    own = {name: table[touched] for name, table in tables.items()}
    optimizer.update(
        updates.reshape(-1), {name: array.reshape(-1) for name, array in own.items()}, rows.reshape(-1), count
    )
    after[touched] = rows + updates
    for name, array in own.items():
        tables[name][touched] = array
    return after


def _check_refusals(refused: Sequence[int], clock: int) -> None:
    for rank, count in enumerate(refused):
        if count >= REFUSALS_MAX:
            raise JobError(
                f"{count} gradients of replica {rank} in a row were not finite, the last at clock {clock}, "
                "so training does not go on. A smaller learning rate often helps."
            )
