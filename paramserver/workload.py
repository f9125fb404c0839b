"""What a job trains on what: its data, its model, and the steps of each replica, all made from the job alone.

Launcher, workers and the plain loop each make the same workload from the same job, so none of it travels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from paramserver.data import Batches, generator, steps_of_ranks
from paramserver.datasets import Splits
from paramserver.events import JobSpec
from paramserver.job import Job
from paramserver.models import Model
from paramserver.optim import clip_by_global_norm
from paramserver.training import Step
from paramserver.types import AnyArray, Tensors


class Batch(NamedTuple):
    """The samples of one step, and which step it is: what chance there is in it depends on that."""

    clock: int
    inputs: AnyArray
    labels: AnyArray


@dataclass(frozen=True)
class Workload:
    """A job with all that it works on.

    Attributes:
        job: resolved.
        splits: the data.
        model: fits the data.
        steps: of each replica, in rank order.
    """

    job: Job
    splits: Splits
    model: Model
    steps: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        job = self.job
        steps = steps_of_ranks(self.splits.train, job.replicas, job.batch, job.epochs, job.seed, job.split)
        object.__setattr__(self, "steps", steps)

    @property
    def spec(self) -> JobSpec:
        """What the replicas agree on with the servers."""
        return self.job.spec(self.model.shapes, self.steps)

    def initial(self) -> Tensors:
        """Return the first weights by key."""
        return self.model.initial(self.job.seed)

    def step(self, rank: int) -> Step[Any]:
        """Return how one rank makes its gradients.

        Args:
            rank: from 0.
        """
        job, model = self.job, self.model
        batches = Batches(self.splits.train, job.batch, job.epochs, job.seed, rank, job.replicas, job.split)

        def batch_at(clock: int) -> Batch:
            return Batch(clock, *batches.batch_at(clock))

        def gradient(values: Tensors, batch: Batch) -> tuple[float, Tensors, int]:
            rng = generator(job.seed, "chance", rank, batch.clock) if model.uses_chance else None
            loss, gradients = model.gradient(values, batch.inputs, batch.labels, rng)
            if job.clip_norm:
                gradients, _ = clip_by_global_norm(gradients, job.clip_norm)
            return loss, gradients, len(batch.labels)

        return Step(batch_at, gradient)
