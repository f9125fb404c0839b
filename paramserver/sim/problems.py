"""What virtual replicas train: cheap problems with known answers, or nothing but time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from paramserver.consistency import parse_consistency
from paramserver.data import generator
from paramserver.errors import RequestError
from paramserver.events import Dealt, JobSpec, TensorSpec
from paramserver.quantities import check_known, parse_number, parse_size
from paramserver.sim.world import Machines
from paramserver.training import Step
from paramserver.types import Array, Shapes, Tensors

LOGISTIC_FEATURES = 16
LOGISTIC_BATCH = 32

PROBLEMS = ("quadratic", "logistic", "timing")


@dataclass(frozen=True)
class Task:
    """What replicas have to do.

    Attributes:
        steps: of each rank; a late one does as many as the longest.
        step: returns how a rank's gradients are made.
        initial: returns the first weights by key.
        bytes_in_all: what the weights weigh on the network and under the locks; None for what they are.
        dealt_step: returns how a rank's gradients are made, given what says which part of an epoch it does
            from a clock on; None where nothing is dealt out.
    """

    steps: tuple[int, ...]
    step: Callable[[int], Step[Any]]
    initial: Callable[[], Tensors]
    bytes_in_all: int | None = None
    dealt_step: Callable[[int, Callable[[int], Dealt | None]], Step[Any]] | None = None

    def steps_of(self, rank: int) -> int:
        """Return the steps of a rank."""
        return self.steps[rank] if rank < len(self.steps) else max(self.steps)


@dataclass(frozen=True)
class Problem:
    """Something to train that is not a job's model and data.

    Attributes:
        name: as it was given.
        shapes: of its weights by key.
        step: returns how a rank's gradients are made.
        initial: first weights by key.
        solution: the weights that training should find; None where nothing is trained.
        bytes_in_all: what the weights weigh on the network and under the locks; None for what they are.
    """

    name: str
    shapes: Shapes
    step: Callable[[int], Step[Any]]
    initial: Tensors
    solution: Tensors | None
    bytes_in_all: int | None = None

    def task(self, steps: int, machines: Machines, bytes_in_all: int | None = None) -> Task:
        """Return the task of so many steps of each replica; another weight wins over the problem's own."""
        size = self.bytes_in_all if bytes_in_all is None else bytes_in_all
        return Task((steps,) * machines.replicas, self.step, lambda: dict(self.initial), size)

    def spec(self, steps: int, machines: Machines, **changes: Any) -> JobSpec:
        """Return the job of so many steps; ``changes`` are fields of `JobSpec`, such as ``consistency``."""
        gathers = parse_consistency(changes.get("consistency", "sync")).gathers
        fields: dict[str, Any] = {
            "tensors": tuple(TensorSpec(key, self.shapes[key]) for key in sorted(self.shapes)),
            "model": self.name,
            "versions_total": max(1, steps if gathers else steps * machines.replicas),
            "replicas": machines.replicas,
            "replicas_max": machines.replicas,
            "on_death": "restart" if gathers else "drop",
        }
        return JobSpec(**fields | changes)


def parse_problem(text: str, shards: int = 1, seed: int = 0) -> Problem:
    """Make a problem.

    Args:
        text: ``quadratic:CURVATURE`` (or ``quadratic:CURVATURE,NOISE``), ``logistic``, or ``timing``, which
            may say what its weights weigh: ``timing:4MB``.
        shards: it has at least a row for each.
        seed: of its chance.

    Raises:
        RequestError: there is no such problem, or its numbers cannot be.

    Example:
        >>> parse_problem("quadratic:0.5").initial
        {'w': array([1.], dtype=float32)}
    """
    name, colon, rest = text.partition(":")
    check_known(name, PROBLEMS, "problem")
    if name == "timing":
        return _timing(text, shards, parse_size(rest, "the weights of the problem") if colon else None)
    numbers = [parse_number(number, f"the problem '{text}'") for number in rest.split(",")] if colon else []
    if name == "quadratic":
        if len(numbers) not in (1, 2) or numbers[0] <= 0:
            raise RequestError(f"Expected quadratic:CURVATURE with a curvature above 0, but found '{text}'.")
        return _quadratic(text, np.float32(numbers[0]), numbers[1] if len(numbers) > 1 else 0.0, shards, seed)
    if numbers:
        raise RequestError(f"The problem '{name}' takes no numbers, but found '{text}'.")
    return _logistic(seed)


def _quadratic(name: str, curvature: np.float32, noise: float, size: int, seed: int) -> Problem:
    """Return f(w) = curvature/2 |w|^2 from w = 1; gradients are exact, or with normal noise."""

    def step(rank: int) -> Step[Any]:
        def gradient(values: Tensors, clock: int) -> tuple[float, Tensors, int]:
            weights = values["w"]
            slope: Array = curvature * weights
            if noise:
                rng = generator(seed, "noise", rank, clock)
                slope = slope + np.float32(noise) * rng.standard_normal(size, np.float32)
            return float(curvature) / 2 * float(weights @ weights), {"w": slope}, 1

        return Step(lambda clock: clock, gradient)

    return Problem(
        name, {"w": (size,)}, step, {"w": np.ones(size, np.float32)}, {"w": np.zeros(size, np.float32)}
    )


def _logistic(seed: int) -> Problem:
    """Return logistic regression on fresh samples of a true model, which is its solution."""
    shape = (LOGISTIC_FEATURES,)
    truth = generator(seed, "truth").standard_normal(shape, np.float32)

    def step(rank: int) -> Step[Any]:
        def batch_at(clock: int) -> tuple[Array, Array]:
            rng = generator(seed, "samples", rank, clock)
            inputs = rng.standard_normal((LOGISTIC_BATCH, LOGISTIC_FEATURES), np.float32)
            labels = rng.random(LOGISTIC_BATCH) < 1 / (1 + np.exp(-inputs @ truth))
            return inputs, labels.astype(np.float32)

        def gradient(values: Tensors, batch: tuple[Array, Array]) -> tuple[float, Tensors, int]:
            inputs, labels = batch
            logits = inputs @ values["w"]
            loss = float(np.mean(np.logaddexp(0, logits) - labels * logits))
            slope = inputs.T @ (1 / (1 + np.exp(-logits)) - labels) / np.float32(LOGISTIC_BATCH)
            return loss, {"w": slope.astype(np.float32)}, LOGISTIC_BATCH

        return Step(batch_at, gradient)

    return Problem("logistic", {"w": shape}, step, {"w": np.zeros(shape, np.float32)}, {"w": truth})


def _timing(name: str, shards: int, bytes_in_all: int | None) -> Problem:
    """Return weights of one number for each shard, which no gradient moves."""
    nothing = {"w": np.zeros(shards, np.float32)}
    step: Step[Any] = Step(lambda clock: clock, lambda values, batch: (0.0, nothing, 1))
    return Problem(name, {"w": (shards,)}, lambda rank: step, nothing, None, bytes_in_all)
