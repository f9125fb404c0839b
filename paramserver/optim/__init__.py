"""Optimizers as pairs of pure functions, and the mean of a round.

Read `base` first (the pair, `chain`, `apply`), then `transforms` (the mathematics), then `combine`.
"""

from paramserver.optim.base import BLOCK_ELEMENTS, Optimizer, State, apply, chain, stateless
from paramserver.optim.combine import combine
from paramserver.optim.named import (
    OPTIMIZERS,
    SCHEDULES,
    adam,
    build_optimizer,
    build_schedule,
    momentum,
    sgd,
)
from paramserver.optim.schedules import Schedule, constant, cosine
from paramserver.optim.transforms import accumulate_velocity, scale_by_adam, scale_by_learning_rate

__all__ = [
    "BLOCK_ELEMENTS",
    "OPTIMIZERS",
    "SCHEDULES",
    "Optimizer",
    "Schedule",
    "State",
    "accumulate_velocity",
    "adam",
    "apply",
    "build_optimizer",
    "build_schedule",
    "chain",
    "combine",
    "constant",
    "cosine",
    "momentum",
    "scale_by_adam",
    "scale_by_learning_rate",
    "sgd",
    "stateless",
]
