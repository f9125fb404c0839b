"""Which jobs can be run at all."""

from __future__ import annotations

import math

from paramserver.consistency import Consistency, parse_consistency
from paramserver.errors import RequestError
from paramserver.events import JobSpec
from paramserver.optim import build_optimizer

DURABILITIES = ("checkpoint", "journal", "none")


def check_job(spec: JobSpec) -> Consistency:
    """Refuse a job that could not run.

    Raises:
        RequestError: names the field, what was expected and what was found.
    """
    rule = parse_consistency(spec.consistency)
    build_optimizer(spec.optimizer, spec.learning_rate, spec.schedule, spec.versions_total)
    for tensor in spec.tensors:
        if tensor.dtype != "float32":
            raise RequestError(f"Tensor '{tensor.key}' is {tensor.dtype}; only float32 is served.")
    if [tensor.key for tensor in spec.tensors] != sorted({tensor.key for tensor in spec.tensors}):
        raise RequestError("The tensors of a job must be in key order, each key once.")
    if not 1 <= spec.replicas <= spec.replicas_max:
        raise RequestError(
            f"A job needs 1 <= replicas <= replicas_max, but has {spec.replicas} and {spec.replicas_max}."
        )
    if min(spec.samples, spec.batch - 1, spec.epochs - 1, *spec.shares) < 0:
        raise RequestError("A job needs samples >= 0, batch >= 1, epochs >= 1, and shares >= 0.")
    if spec.samples and not spec.shares and spec.replicas_max > spec.samples:
        raise RequestError(
            f"{spec.samples} samples are too few for as many as {spec.replicas_max} replicas: one would get "
            "none. Lower replicas_max."
        )
    if spec.shares and (len(spec.shares), sum(spec.shares)) != (spec.replicas, spec.samples):
        raise RequestError(
            f"The shares of a job are one for each of its {spec.replicas} replicas, and together its "
            f"{spec.samples} samples, but they are {len(spec.shares)} with {sum(spec.shares)}."
        )
    if spec.on_death not in ("restart", "drop"):
        raise RequestError(f"on_death is 'restart' or 'drop', not '{spec.on_death}'.")
    for name in ("lease_seconds", "step_timeout_seconds", "start_timeout_seconds"):
        seconds = getattr(spec, name)
        if not (math.isfinite(seconds) and seconds > 0):
            raise RequestError(f"{name} must be a number of seconds above 0, but is {seconds}.")
    if not (math.isfinite(spec.restart_timeout_seconds) and spec.restart_timeout_seconds >= 0):
        seconds = spec.restart_timeout_seconds
        raise RequestError(f"restart_timeout_seconds must be a number of seconds, but is {seconds}.")
    if not 0 <= spec.target_accuracy <= 1:
        raise RequestError(f"target_accuracy must be from 0 to 1, but is {spec.target_accuracy}.")
    if not (math.isfinite(spec.checkpoint_seconds) and spec.checkpoint_seconds >= 0):
        seconds = spec.checkpoint_seconds
        raise RequestError(f"checkpoint_seconds must be a number of seconds, but is {seconds}.")
    if spec.checkpoint_updates < 0:
        raise RequestError(f"checkpoint_updates must be 0 or more, but is {spec.checkpoint_updates}.")
    if spec.durability not in DURABILITIES:
        raise RequestError(f"durability is one of {', '.join(DURABILITIES)}, not '{spec.durability}'.")
    if spec.restarts_max < 0:
        raise RequestError(f"restarts_max must be 0 or more, but is {spec.restarts_max}.")
    return rule
