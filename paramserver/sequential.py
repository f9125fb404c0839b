"""The dumb twin: the same training in one plain loop, with no server, no thread and no message.

It shares nothing with shard and session, not even the blocked arithmetic of `optim.apply` and
`optim.combine`: it writes the same expressions over whole tensors. A synchronous job must end with the same
bytes here and there, which shows that cutting, sending, waiting and summing have changed nothing.

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
            leaves: list[tuple[Tensors, int] | None] = [None] * len(replicas)
            contributions = []
            for rank in together:
                loss, gradients, samples = replicas[rank].gradient(weights, replicas[rank].batch_at(clock))
                finite = all(np.isfinite(gradient).all() for gradient in gradients.values())
                if finite:
                    leaves[rank] = (gradients, samples)
                refused[rank] = 0 if finite else refused[rank] + 1
                contributions.append(Contribution(rank, loss, samples, finite))
            if any(leaves):
                weights = {
                    key: _updated(optimizer, weights[key], _mean(leaves, key), state[key], version)
                    for key in weights
                }
                version += 1
            yield Update(version, clock, weights, state, tuple(contributions))
            _check_refusals(refused, clock)


def _mean(leaves: Sequence[tuple[Tensors, int] | None], key: str) -> Array:
    """Return the mean, weighted by samples, summed over the tree ((0+1)+(2+3))+… of rank positions."""
    nodes = [None if leaf is None else np.float32(leaf[1]) * leaf[0][key] for leaf in leaves]
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


def _updated(
    optimizer: Optimizer, weights: Array, gradient: Array, state: dict[str, Array], count: int
) -> Array:
    updates, flat = gradient.reshape(-1).copy(), weights.reshape(-1)
    optimizer.update(updates, state, flat, count)
    return (flat + updates).reshape(weights.shape)


def _check_refusals(refused: Sequence[int], clock: int) -> None:
    for rank, count in enumerate(refused):
        if count >= REFUSALS_MAX:
            raise JobError(
                f"{count} gradients of replica {rank} in a row were not finite, the last at clock {clock}, "
                "so training does not go on. A smaller learning rate often helps."
            )
