"""Gradients that leave marks: each read shows which steps it has seen, on every shard, and how often.

The weights are a table with a column for each step of each replica. The gradient of a step adds a mark to its
own column, in every row; rows are on different shards.
"""

import numpy as np

from paramserver.events import JobSpec, TensorSpec

STEPS_MAX = 5


def job(consistency, replicas, shape, **changes):
    changes = {"optimizer": "sgd", "learning_rate": 1.0, "replicas_max": replicas} | changes
    return JobSpec((TensorSpec("w", shape),), consistency=consistency, replicas=replicas, **changes)


def marking_gradient(refused=frozenset()):
    """The gradients of these steps (rank, clock) are refused."""

    def gradient(rank, clock, weights):
        marks = np.zeros_like(weights)
        marks[:, rank * STEPS_MAX + clock] = np.nan if (rank, clock) in refused else -1
        return marks, 1 + (rank + clock) % 3

    return gradient


def seen(row):
    """The steps (rank, clock) that have left a mark in a row of the weights."""
    return {divmod(int(column), STEPS_MAX) for column in np.flatnonzero(row)}
