"""What a job trains on what: its data, its model, and the steps of each replica, all made from the job alone.

Launcher, workers and the plain loop each make the same workload from the same job, so none of it travels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paramserver.data import Batches, Dataset, generator, samples_of_rank, shares, steps_of_ranks
from paramserver.datasets import NAMES, Splits, load
from paramserver.datasets.splits import cut_whole, with_validation
from paramserver.errors import RequestError
from paramserver.events import Dealt, JobSpec
from paramserver.job import CODE, Job
from paramserver.models import Model, OwnModel, Trainable, build_for, predicts_a_number
from paramserver.optim import clip_by_global_norm
from paramserver.rows import Gradients, RowsByKey, Values
from paramserver.training import Step
from paramserver.types import AnyArray, Tensors
from paramserver.user_code import UserCode

NextPart = Callable[[int], Dealt | None]
"""Says what a replica does from a clock on."""


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
    model: Trainable
    steps: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        job = self.job
        steps = steps_of_ranks(self.splits.train, job.replicas, job.batch, job.epochs, job.seed, job.split)
        object.__setattr__(self, "steps", steps)

    @property
    def spec(self) -> JobSpec:
        """What the replicas agree on with the servers."""
        job, train = self.job, self.splits.train
        spec = job.spec(self.model.shapes, self.steps, self.model.tables)
        fixed = () if job.split == "iid" else shares(job.split, train, job.replicas, job.seed)
        spec = replace(
            spec,
            samples=len(train),
            batch=job.batch,
            epochs=job.epochs,
            shares=tuple(len(share) for share in fixed),
            replicas_max=min(spec.replicas_max, len(train)),
        )
        return replace(spec, model=self.model.spec) if self.job.model == CODE else spec

    @property
    def dealing(self) -> str:
        """Say in a sentence how an epoch's samples are dealt, and what becomes of the remainder."""
        job, train = self.job, self.splits.train
        if job.split == "iid":
            sizes = [samples_of_rank(len(train), rank, job.replicas) for rank in range(job.replicas)]
        else:
            sizes = [len(share) for share in shares(job.split, train, job.replicas, job.seed)]
        rests = [(size - 1) % job.batch + 1 for size in sizes]
        return (
            f"An epoch deals {len(train):,} samples ({job.split}), {_span(sizes)} to a replica, in batches "
            f"of {job.batch}; the last one of each has {_span(rests)}. None is repeated or left out."
        )

    def initial(self) -> Tensors:
        """Return the first weights by key."""
        return self.model.initial(self.job.seed)

    def step(self, rank: int, next_part: NextPart | None = None) -> Step[Any]:
        """Return how one rank makes its gradients.

        Args:
            rank: from 0.
            next_part: says what the rank does from a clock on, None if nothing is left; without it every rank
                does its share of each epoch.
        """
        job, model = self.job, self.model
        first = rank if next_part is None else 0  # the batches of any share will do
        batches = Batches(self.splits.train, job.batch, job.epochs, job.seed, first, job.replicas, job.split)
        dealt: Dealt | None = None

        def batch_at(clock: int) -> Batch | None:
            nonlocal dealt
            if next_part is None:
                return Batch(clock, *batches.batch_at(clock))
            if dealt is None or not dealt.clock <= clock < dealt.end:
                dealt = next_part(clock)
            if dealt is None:
                return None
            epoch, place, places, begin, _ = dealt.part
            return Batch(clock, *batches.batch_of(epoch, place, places, begin + clock - dealt.clock))

        def rows(batch: Batch) -> RowsByKey:
            return model.rows(batch.inputs)

        def gradient(values: Values, batch: Batch) -> tuple[float, Gradients, int]:
            rng = generator(job.seed, "chance", rank, batch.clock) if model.uses_chance else None
            loss, gradients = model.gradient(values, batch.inputs, batch.labels, rng)
            if job.clip_norm:
                gradients, _ = clip_by_global_norm(gradients, job.clip_norm)
            return loss, gradients, len(batch.labels)

        return Step(batch_at, gradient)


def load_workload(job: Job, code: UserCode | None = None) -> Workload:
    """Read a job's data, build its model, and see that they fit together.

    Args:
        job: resolved.
        code: the user's file, if the job has one; it has been named by a person and run.

    Raises:
        RequestError: data or model are wrong, or do not fit; or the job needs a file that is not there.
    """
    if job.code and code is None:
        raise RequestError(
            f"This job has Python code of your own, {job.code}, and a job file never runs code. If you trust "
            f"that file, name it: --code {job.code}."
        )
    splits = load_data(job.data, job.data_dir, code)
    if predicts_a_number(job.model) and _may_be_quantities(job.data, splits.train):
        splits = splits.with_task("regression")
    model = load_model(job.model, splits.train, code)
    for part in (splits.validation, splits.test):
        model.check_data(part)
    return Workload(job, splits, model)


def load_data(data: str, data_dir: str = "", code: UserCode | None = None) -> Splits:
    """Read the data that a job names.

    Args:
        data: as `Job.data`.
        data_dir: where files are looked for; empty for the usual places.
        code: the user's file, for data of its own.

    Raises:
        RequestError: there is no such data, or it is not sound.
    """
    if data != CODE:
        return load(data, data_dir or None)
    if code is None or not code.defines("data"):
        raise RequestError("The data of this job is that of a Python file, which defines no 'data'.")
    found, name = code.call("data"), code.path.name
    if isinstance(found, str | Path):
        return load(found, data_dir or None)
    if isinstance(found, Splits):
        return found
    if isinstance(found, Dataset):
        return cut_whole(found)
    if isinstance(found, tuple | list) and len(found) == 2:
        if all(isinstance(part, tuple) and len(part) == 2 for part in found):
            train = _dataset(name, found[0])
            return with_validation(train, _dataset(name, found[1], train.classes))
        return cut_whole(_dataset(name, found))
    raise RequestError(
        f"data() of {name} should give (inputs, labels), ((inputs, labels), (test inputs, test labels)), a "
        f"Dataset, Splits, or a name such as 'digits', but it gives a {type(found).__name__}."
    )


def load_model(text: str, train: Dataset, code: UserCode | None = None) -> Trainable:
    """Build the model that a job names.

    Args:
        text: as `Job.model`.
        train: what it is to fit.
        code: the user's file, for a model of its own.

    Raises:
        RequestError: there is no such model, or it does not fit.
    """
    if text != CODE:
        return build_for(text, train)
    if code is None or not code.defines("model"):
        raise RequestError("The model of this job is that of a Python file, which defines no 'model'.")
    found = code.call("model", train.features, train.classes)
    if isinstance(found, str):
        return build_for(found, train)
    if isinstance(found, Model):
        named = replace(found, spec=code.spec)
        named.check_data(train)
        return named
    return OwnModel(found, code.spec, train, code.guarded)


def _dataset(name: str, arrays: Any, classes: int = 0) -> Dataset:
    """Make a data set of plain arrays: whole numbers as labels are classes, others are quantities."""
    try:
        rows, marks = (np.asarray(array) for array in arrays)
        numbers = rows.dtype.kind in "fiub" and marks.dtype.kind in "fiub"
    except ValueError:  # rows of different lengths
        numbers = False
    if not numbers or not rows.ndim:
        raise RequestError(f"data() of {name} should give arrays of numbers, one row for each sample.")
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        rows = rows.reshape(len(rows), -1).astype(np.float32)
        quantities = marks.dtype.kind == "f"
        marks = marks.astype(np.float32 if quantities else np.int64)
    task = "regression" if quantities else "classification"
    return Dataset(rows, marks, name, classes, task)


def _may_be_quantities(data: str, train: Dataset) -> bool:
    """Say whether the whole numbers of a user's own file may be meant as quantities."""
    is_file = data not in NAMES and not data.startswith("synthetic:")
    return is_file and train.task == "classification" and not train.class_names


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    if low == high:
        return f"{low:,}"
    return f"{low:,} {'or' if high == low + 1 else 'to'} {high:,}"
