"""A data set in memory: what a model may take for granted about its samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paramserver.data.chance import generator
from paramserver.errors import RequestError
from paramserver.types import AnyArray, Array

Labels = npt.NDArray[np.int64]
"""Class numbers from 0, one for each sample."""

Indices = npt.NDArray[np.int64]
"""Positions of samples in a data set."""

CLASSES_MAX = 65_536
"""More classes than any public classification set has; a label above it is a mistake, and would ask for
a model of that width."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Hold checked samples with their labels; nobody can write to them.

    Attributes:
        inputs: (samples, features) float32, all finite.
        labels: (samples,) int64, each from 0 up to but not including `classes`.
        name: what errors and reports call it.
        classes: number of classes. Left at 0 it is the largest label plus one, and at least two different
            labels must occur; a part of a larger set is given the classes of the whole instead.

    Raises:
        RequestError: a sentence that names the data set, what was expected and what was found.

    Example:
        >>> points = Dataset(np.float32([[0, 1], [1, 0]]), np.array([0, 1]), "points")
        >>> len(points), points.features, points.classes
        (2, 2, 2)
    """

    inputs: Array
    labels: Labels
    name: str
    classes: int = 0

    def __post_init__(self) -> None:
        _check_inputs(self.name, self.inputs)
        _check_labels(self.name, self.labels, len(self.inputs))
        if not self.classes:
            _check_two_classes(self.name, self.labels)
            object.__setattr__(self, "classes", int(self.labels.max()) + 1)
        elif self.labels.max() >= self.classes:
            raise RequestError(
                f"The data set '{self.name}' has {self.classes} classes, so labels go from 0 to "
                f"{self.classes - 1}, but it has the label {self.labels.max()}."
            )
        for field in ("inputs", "labels"):
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Indices | slice) -> tuple[Array, Labels]:
        return self.inputs[index], self.labels[index]

    @property
    def features(self) -> int:
        """Number of features of a sample."""
        return int(self.inputs.shape[1])

    def take(self, indices: Indices, name: str) -> Dataset:
        """Copy some samples into a data set with the classes of this one.

        Args:
            indices: (n,) int64, n at least 1.
            name: the name of the part.
        """
        return Dataset(self.inputs[indices], self.labels[indices], name, self.classes)


def stratified_split(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set so that each class is in both parts in its proportion.

    A class of one sample stays in the rest; a larger one gives at least one sample to each side.

    Args:
        dataset: the whole.
        fraction: share of the samples that goes to the second part, between 0 and 1.
        seed: of the choice; the same seed gives the same split.

    Returns:
        (rest, part), each in the order of the whole.

    Raises:
        RequestError: the fraction is not between 0 and 1, or no class has two samples.
    """
    rest, part = stratified_indices(dataset.labels, fraction, seed)
    return dataset.take(rest, dataset.name), dataset.take(part, dataset.name)


def stratified_indices(labels: Labels, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Choose the samples of a stratified split from the labels alone.

    Args:
        labels: (samples,) int64, 0 or more.
        fraction: share of the samples that goes to the second part, between 0 and 1.
        seed: of the choice.

    Returns:
        (rest, part), each ascending; together all positions in `labels`.

    Raises:
        RequestError: the fraction is not between 0 and 1, or no class has two samples.
    """
    if not 0.0 < fraction < 1.0:
        raise RequestError(f"A split needs a fraction between 0 and 1, but got {fraction}.")
    rng = generator(seed, "stratified split")
    in_part = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            share = min(max(round(fraction * len(members)), 1), len(members) - 1)
            in_part[members[:share]] = True
    if not in_part.any():
        raise RequestError(
            f"A split needs a class with at least two samples, but each class of these {len(labels)} samples "
            f"has only one. Give more samples per class."
        )
    return np.flatnonzero(~in_part), np.flatnonzero(in_part)


def _check_inputs(name: str, inputs: AnyArray) -> None:
    if inputs.ndim != 2 or inputs.dtype != np.float32:
        raise RequestError(
            f"The data set '{name}' needs inputs of shape (samples, features) float32, "
            f"but they are {inputs.shape} {inputs.dtype}."
        )
    if inputs.size == 0:
        raise RequestError(
            f"The data set '{name}' is empty: it has {inputs.shape[0]} samples of {inputs.shape[1]} features."
        )
    if not np.isfinite(inputs).all():
        sample, feature = np.argwhere(~np.isfinite(inputs))[0]
        raise RequestError(
            f"The data set '{name}' needs finite inputs, but sample {sample} has "
            f"{inputs[sample, feature]} in feature {feature}. Remove or replace such values."
        )


def _check_labels(name: str, labels: AnyArray, samples: int) -> None:
    if labels.ndim != 1 or labels.dtype != np.int64:
        raise RequestError(
            f"The data set '{name}' needs labels of shape (samples,) int64, "
            f"but they are {labels.shape} {labels.dtype}."
        )
    if len(labels) != samples:
        raise RequestError(
            f"The data set '{name}' needs one label for each sample, but it has {samples} samples "
            f"and {len(labels)} labels."
        )
    if labels.min() < 0 or labels.max() >= CLASSES_MAX:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise RequestError(
            f"The data set '{name}' needs labels from 0 to {CLASSES_MAX - 1}, but it has the label {wrong}. "
            f"Number the classes from 0."
        )


def _check_two_classes(name: str, labels: Labels) -> None:
    if labels.min() == labels.max():
        raise RequestError(
            f"The data set '{name}' needs at least two classes, but all of its {len(labels)} samples "
            f"have the label {labels[0]}."
        )
