"""A data set in memory: what a model may take for granted about its samples.

The task says what a label is: the number of a class (``classification``), yes or no (``binary``), or a
quantity (``regression``). The dtype of the inputs says what a sample is: numbers (float32), or rows of a
table (int64), one for each field, as hashed categories are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from paramserver.errors import RequestError, did_you_mean
from paramserver.types import AnyArray

Labels = npt.NDArray[np.int64]
"""Class numbers from 0, one for each sample."""

Indices = npt.NDArray[np.int64]
"""Positions of samples in a data set."""

TASKS: Final = ("classification", "binary", "regression")
"""What a label may be."""

CLASSES_MAX = 65_536
"""More classes than any public classification set has; a label above it is a mistake, and would ask for
a model of that width."""

ROWS_MAX = 1 << 31
"""More table rows than fit in the memory of one machine; a larger index is a mistake."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Hold checked samples with their labels; nobody can write to them.

    Attributes:
        inputs: (samples, features) float32, all finite; or (samples, fields) int64, rows of a table.
        labels: (samples,) int64, each from 0 up to but not including `classes`; for regression (samples,)
            float32, all finite.
        name: what errors and reports call it.
        classes: number of classes; 2 for a binary task, 0 for regression. Left at 0 it is the largest label
            plus one, and at least two different labels must occur; a part of a larger set is given the
            classes of the whole instead.
        task: ``classification``, ``binary`` or ``regression``.
        rows: rows of the table that int64 inputs point into; left at 0 it is the largest one plus one.
            For float32 inputs it is 0.
        class_names: what the classes are called, in order; empty where they are just numbers.

    Raises:
        RequestError: a sentence that names the data set, what was expected and what was found.

    Example:
        >>> points = Dataset(np.float32([[0, 1], [1, 0]]), np.array([0, 1]), "points")
        >>> len(points), points.features, points.classes
        (2, 2, 2)
        >>> points[1]
        (array([1., 0.], dtype=float32), np.int64(1))
    """

    inputs: AnyArray
    labels: AnyArray
    name: str
    classes: int = 0
    task: str = "classification"
    rows: int = 0
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise RequestError(
                f"The task of the data set '{self.name}' is one of {', '.join(TASKS)}, not '{self.task}'."
                f"{did_you_mean(self.task, TASKS)}"
            )
        object.__setattr__(self, "rows", _checked_rows(self.name, self.inputs, self.rows))
        if self.task == "regression":
            _check_quantities(self.name, self.labels, len(self.inputs))
            object.__setattr__(self, "classes", 0)
        else:
            classes = 2 if self.task == "binary" else self.classes
            object.__setattr__(self, "classes", _checked_classes(self, classes))
        if self.class_names and len(self.class_names) != self.classes:
            raise RequestError(
                f"The data set '{self.name}' has {self.classes} classes, but {len(self.class_names)} names "
                f"for them."
            )
        for field in ("inputs", "labels"):
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | Indices | slice) -> tuple[AnyArray, AnyArray]:
        return self.inputs[index], self.labels[index]

    @property
    def features(self) -> int:
        """Number of features (or fields) of a sample."""
        return int(self.inputs.shape[1])

    def take(self, indices: Indices, name: str) -> Dataset:
        """Copy some samples into a data set with the task, classes and rows of this one.

        Args:
            indices: (n,) int64, n at least 1.
            name: the name of the part.
        """
        return Dataset(
            self.inputs[indices],
            self.labels[indices],
            name,
            self.classes,
            self.task,
            self.rows,
            self.class_names,
        )

    def with_task(self, task: str) -> Dataset:
        """Take the same labels for another task.

        Two classes may be asked for as yes or no, and class numbers may be read as quantities.

        Args:
            task: one of `TASKS`.

        Raises:
            RequestError: these labels cannot be read so.

        Example:
            >>> Dataset(np.float32([[0], [1]]), np.array([0, 1]), "points").with_task("regression").labels
            array([0., 1.], dtype=float32)
        """
        if task == self.task:
            return self
        if self.task == "regression" or (task == "binary" and self.classes != 2):
            found = "quantities" if self.task == "regression" else f"{self.classes} classes"
            raise RequestError(
                f"The labels of the data set '{self.name}' are {found}, so the task is {self.task}, and "
                f"cannot be {task}. Choose a model for {self.task}."
            )
        regression = task == "regression"
        labels = self.labels.astype(np.float32) if regression else self.labels
        names = () if regression else self.class_names
        return Dataset(self.inputs, labels, self.name, self.classes, task, self.rows, names)


def _checked_rows(name: str, inputs: AnyArray, rows: int) -> int:
    """Return the number of table rows, after the inputs have been found sound."""
    if inputs.ndim != 2 or inputs.dtype not in (np.float32, np.int64):
        raise RequestError(
            f"The data set '{name}' needs inputs of shape (samples, features) float32, or (samples, fields) "
            f"int64 for rows of a table, but they are {inputs.shape} {inputs.dtype}."
        )
    if inputs.size == 0:
        raise RequestError(
            f"The data set '{name}' is empty: it has {inputs.shape[0]} samples of {inputs.shape[1]} features."
        )
    if inputs.dtype == np.int64:
        limit = rows or ROWS_MAX
        if inputs.min() < 0 or inputs.max() >= limit:
            sample, field = np.argwhere((inputs < 0) | (inputs >= limit))[0]
            raise RequestError(
                f"The data set '{name}' needs table rows from 0 to {limit - 1}, but sample {sample} has "
                f"{inputs[sample, field]} in field {field}."
            )
        return rows or int(inputs.max()) + 1
    if rows:
        raise RequestError(
            f"The data set '{name}' is said to point into {rows} table rows, but its inputs are float32. "
            f"Rows are int64."
        )
    if not np.isfinite(inputs).all():
        sample, feature = np.argwhere(~np.isfinite(inputs))[0]
        raise RequestError(
            f"The data set '{name}' needs finite inputs, but sample {sample} has "
            f"{inputs[sample, feature]} in feature {feature}. Remove or replace such values."
        )
    return 0


def _checked_classes(data: Dataset, classes: int) -> int:
    """Return the number of classes, after the labels have been found sound."""
    name, labels = data.name, data.labels
    _check_labels(name, labels, len(data.inputs))
    if not classes:
        if labels.min() == labels.max():
            raise RequestError(
                f"The data set '{name}' needs at least two classes, but all of its {len(labels)} samples "
                f"have the label {labels[0]}."
            )
        return int(labels.max()) + 1
    if labels.max() >= classes:
        raise RequestError(
            f"The data set '{name}' has {classes} classes, so labels go from 0 to "
            f"{classes - 1}, but it has the label {labels.max()}."
        )
    return classes


def _check_labels(name: str, labels: AnyArray, samples: int) -> None:
    if labels.ndim != 1 or labels.dtype != np.int64:
        raise RequestError(
            f"The data set '{name}' needs labels of shape (samples,) int64, "
            f"but they are {labels.shape} {labels.dtype}."
        )
    _check_length(name, labels, samples)
    if labels.min() < 0 or labels.max() >= CLASSES_MAX:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise RequestError(
            f"The data set '{name}' needs labels from 0 to {CLASSES_MAX - 1}, but it has the label {wrong}. "
            f"Number the classes from 0."
        )


def _check_quantities(name: str, labels: AnyArray, samples: int) -> None:
    if labels.ndim != 1 or labels.dtype != np.float32:
        raise RequestError(
            f"The data set '{name}' is for regression, so it needs labels of shape (samples,) float32, "
            f"but they are {labels.shape} {labels.dtype}."
        )
    _check_length(name, labels, samples)
    if not np.isfinite(labels).all():
        sample = int(np.flatnonzero(~np.isfinite(labels))[0])
        raise RequestError(
            f"The data set '{name}' needs finite labels, but sample {sample} has {labels[sample]}. "
            f"Remove or replace such values."
        )


def _check_length(name: str, labels: AnyArray, samples: int) -> None:
    if len(labels) != samples:
        raise RequestError(
            f"The data set '{name}' needs one label for each sample, but it has {samples} samples "
            f"and {len(labels)} labels."
        )
