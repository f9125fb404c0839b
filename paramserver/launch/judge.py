"""How good weights are found to be: by the data of a job, or by the known solution of a problem."""

from __future__ import annotations

import math

import numpy as np

from paramserver.events import Score
from paramserver.launch.plan import Exercise, Plan
from paramserver.models import score
from paramserver.types import Tensors


def judge(plan: Plan, weights: Tensors, split: str, version: int, rounds: int) -> Score | None:
    """Judge weights.

    Args:
        plan: what was trained.
        weights: by key.
        split: ``validation`` or ``test``; a problem has neither, and one judgement for both.
        version: the largest shard version among the weights.
        rounds: finished rounds in them (synchronous modes; else -1).

    Returns:
        The score. Of a problem the loss is the squared distance to the solution, and the accuracy says how
        much of the way is made: 1 at the solution, 0 where it began, below that further off. None where
        there is nothing to find.
    """
    if not isinstance(plan, Exercise):
        data = getattr(plan.splits, split)
        found = score(plan.model, weights, data.inputs, data.labels)
        return Score(split, version, rounds, found.loss, found.accuracy, found.samples, found.auc)
    problem = plan.problem
    if problem.solution is None:
        return None
    distance = _squared_distance(weights, problem.solution)
    way = 1 - distance / _squared_distance(problem.initial, problem.solution)
    return Score(split, version, rounds, distance, way, 1)


def _squared_distance(one: Tensors, other: Tensors) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # what diverges is infinitely far
        parts = [float(np.sum(np.square(one[key].astype(np.float64) - other[key]))) for key in other]
    return math.fsum(parts) if all(map(math.isfinite, parts)) else math.inf
