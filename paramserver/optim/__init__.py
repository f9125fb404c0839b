"""Optimizers as pairs of pure functions, and the mean of a round.

Read `base` first (the pair, `chain`, `apply`), then `transforms` (the mathematics), then `combine`. `lazy`
applies gradients of some rows of a table; `clip` works on the replica.
"""

from paramserver.optim.base import BLOCK_ELEMENTS, Optimizer, State, apply, chain, stateless
from paramserver.optim.clip import clip_by_global_norm, global_norm
from paramserver.optim.combine import combine, combine_rows
from paramserver.optim.lazy import apply_rows
from paramserver.optim.named import (
    OPTIMIZERS,
    adagrad,
    adam,
    adamw,
    build_optimizer,
    momentum,
    nesterov,
    optimizer_name,
    rmsprop,
    sgd,
)
from paramserver.optim.schedules import (
    SCHEDULES,
    Schedule,
    build_schedule,
    constant,
    cosine,
    step,
    warmup,
)
from paramserver.optim.transforms import (
    accumulate_nesterov,
    accumulate_velocity,
    add_decayed_weights,
    scale_by_adagrad,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_rms,
)

__all__ = [
    "BLOCK_ELEMENTS",
    "OPTIMIZERS",
    "SCHEDULES",
    "Optimizer",
    "Schedule",
    "State",
    "accumulate_nesterov",
    "accumulate_velocity",
    "adagrad",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply",
    "apply_rows",
    "build_optimizer",
    "build_schedule",
    "chain",
    "clip_by_global_norm",
    "combine",
    "combine_rows",
    "constant",
    "cosine",
    "global_norm",
    "momentum",
    "nesterov",
    "optimizer_name",
    "rmsprop",
    "scale_by_adagrad",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_rms",
    "sgd",
    "stateless",
    "step",
    "warmup",
]
