"""Optimizers by the names that a job file uses: ``sgd``, ``momentum:0.9``, ``adam:0.9,0.999+decay:0.01``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from paramserver.errors import RequestError, did_you_mean
from paramserver.optim.base import Optimizer, chain
from paramserver.optim.schedules import Schedule, build_schedule
from paramserver.optim.transforms import (
    accumulate_nesterov,
    accumulate_velocity,
    add_decayed_weights,
    scale_by_adagrad,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_rms,
)

ADAMW_DECAY: Final = 0.01
"""Weight decay of ``adamw`` without a number, as in PyTorch."""


def sgd(schedule: Schedule, weight_decay: float = 0.0) -> Optimizer:
    """Build stochastic gradient descent: a step against the gradient, times the learning rate."""
    return _step(schedule, weight_decay)


def momentum(schedule: Schedule, decay: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """Build gradient descent with a heavy ball: `accumulate_velocity`, then the learning rate."""
    return _step(schedule, weight_decay, accumulate_velocity(decay))


def nesterov(schedule: Schedule, decay: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """Build Nesterov's accelerated gradient: `accumulate_nesterov`, then the learning rate."""
    return _step(schedule, weight_decay, accumulate_nesterov(decay))


def adagrad(schedule: Schedule, weight_decay: float = 0.0) -> Optimizer:
    """Build Adagrad: `scale_by_adagrad`, then the learning rate."""
    return _step(schedule, weight_decay, scale_by_adagrad())


def rmsprop(schedule: Schedule, decay: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """Build RMSProp: `scale_by_rms`, then the learning rate."""
    return _step(schedule, weight_decay, scale_by_rms(decay))


def adam(
    schedule: Schedule, beta1: float = 0.9, beta2: float = 0.999, weight_decay: float = 0.0
) -> Optimizer:
    """Build Adam: `scale_by_adam`, then the learning rate."""
    return _step(schedule, weight_decay, scale_by_adam(beta1, beta2))


def adamw(
    schedule: Schedule, beta1: float = 0.9, beta2: float = 0.999, weight_decay: float = ADAMW_DECAY
) -> Optimizer:
    """Build AdamW: Adam with decoupled weight decay, which is ``adam+decay:0.01`` by another name."""
    return adam(schedule, beta1, beta2, weight_decay)


def _step(schedule: Schedule, weight_decay: float, *parts: Optimizer) -> Optimizer:
    decays = (add_decayed_weights(weight_decay),) if weight_decay else ()
    chained = (*parts, *decays, scale_by_learning_rate(schedule))
    return chain(*chained) if len(chained) > 1 else chained[0]


@dataclass(frozen=True, slots=True)
class _Named:
    line: str
    build: Callable[..., Optimizer]
    decays_max: int  # the numbers that may follow the name; each is a decay in [0, 1)


_BUILDERS: Final[dict[str, _Named]] = {
    "sgd": _Named("a step against the gradient", sgd, 0),
    "momentum": _Named("momentum:DECAY (0.9): along the decaying sum of all gradients", momentum, 1),
    "nesterov": _Named("nesterov:DECAY (0.9): momentum that looks one step ahead", nesterov, 1),
    "adagrad": _Named("each weight by the root of all its squared gradients; good for rare rows", adagrad, 0),
    "rmsprop": _Named(
        "rmsprop:DECAY (0.9): each weight by a running mean of its squared gradients", rmsprop, 1
    ),
    "adam": _Named("adam:BETA1,BETA2 (0.9,0.999): running means of gradients and of their squares", adam, 2),
    "adamw": _Named("adamw:BETA1,BETA2 (0.9,0.999): adam with a weight decay of 0.01", adamw, 2),
}

OPTIMIZERS: Final = MappingProxyType({name: named.line for name, named in _BUILDERS.items()})
"""The optimizers that a job may name, with a line each; ``+decay:RATE`` after any sets weight decay."""


def optimizer_name(spec: str) -> str:
    """Give the name at the beginning of an optimizer's text.

    Example:
        >>> optimizer_name("momentum:0.8+decay:0.001"), optimizer_name("sgd+decay:0.001")
        ('momentum', 'sgd')
    """
    return spec.partition("+")[0].partition(":")[0]


def build_optimizer(spec: str, learning_rate: float, schedule: str, versions_total: int) -> Optimizer:
    """Build the optimizer that a job names.

    Args:
        spec: a name of ``OPTIMIZERS``; its decays after a colon, as in ``momentum:0.8`` or
            ``adam:0.9,0.99``; then, if wanted, weight decay as in ``sgd+decay:0.0001``.
        learning_rate: the base rate, above 0.
        schedule: as ``build_schedule`` takes it, such as ``cosine`` or ``warmup:5%+cosine``.
        versions_total: updates in the whole job, at least 1; ``cosine`` ends there.

    Raises:
        RequestError: a name is unknown, or a number is missing, surplus or out of range.

    Example:
        >>> optimizer = build_optimizer("momentum:0.8+decay:0.001", 0.1, "cosine", versions_total=100)
    """
    named_text, plus, decay_text = spec.partition("+")
    name, separator, rest = named_text.partition(":")
    if name not in _BUILDERS:
        raise RequestError(
            f"Unknown optimizer '{name}': expected one of {', '.join(OPTIMIZERS)}."
            f"{did_you_mean(name, OPTIMIZERS)}"
        )
    named = _BUILDERS[name]
    texts = rest.split(",") if separator else []
    if len(texts) > named.decays_max:
        raise RequestError(
            f"The optimizer '{name}' takes at most {named.decays_max} numbers after its name, but '{spec}' "
            f"has {len(texts)}. Leave them out for the defaults."
        )
    decays = [_decay(spec, text) for text in texts]
    options = {"weight_decay": _weight_decay(spec, decay_text)} if plus else {}
    return named.build(build_schedule(schedule, learning_rate, versions_total), *decays, **options)


def _decay(spec: str, text: str) -> float:
    value = _number(text)
    if not 0.0 <= value < 1.0:
        raise RequestError(
            f"The numbers of an optimizer are decays from 0 up to but not including 1, such as 0.9, "
            f"but '{spec}' has '{text}'."
        )
    return value


def _weight_decay(spec: str, text: str) -> float:
    word, _, number = text.partition(":")
    value = _number(number)
    if word != "decay" or not 0.0 <= value < math.inf:
        raise RequestError(
            f"After an optimizer may come its weight decay, 0 or more, as in sgd+decay:0.0001, "
            f"but '{spec}' has '{text}'."
        )
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
