"""Some rows of a large tensor: what a sparse model reads of it, and what it gives back.

A table of 262,144 rows of which a batch touches 1,280 is neither pulled nor pushed whole. ``RowValues`` is
what was pulled: rows that are not there are unknown, and reading one is an error. ``RowGradient`` is what is
pushed: rows that are not there are zeros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from paramserver.errors import RequestError
from paramserver.types import AnyArray, Array

RowIndices = npt.NDArray[np.int64]
"""Rows of a tensor, counted from 0, ``(n,)``, each once and in ascending order."""


@dataclass(frozen=True, eq=False)
class RowValues:
    """Hold the rows of a tensor that somebody asked for.

    Attributes:
        indices: ``(n,) int64``, ascending, each once: which rows these are.
        rows: ``(n, ...) float32``.
        shape: of the whole tensor.

    Raises:
        RequestError: the three do not fit together.

    Example:
        >>> table = RowValues(np.array([1, 7]), np.float32([[0.5], [0.25]]), (8, 1))
        >>> table[np.array([7, 7, 1])].ravel()
        array([0.25, 0.25, 0.5 ], dtype=float32)
    """

    indices: RowIndices
    rows: Array
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_rows("Row values", self.indices, self.rows, self.shape)

    def __getitem__(self, wanted: AnyArray) -> Array:
        """Copy rows by their index in the whole tensor.

        Args:
            wanted: int64 of any shape.

        Returns:
            ``(*wanted.shape, *shape[1:])``.

        Raises:
            RequestError: a row is wanted that is not here.
        """
        places = np.minimum(np.searchsorted(self.indices, wanted), len(self.indices) - 1)
        missing = self.indices[places] != wanted if len(self.indices) else np.ones(wanted.shape, np.bool_)
        if missing.any():
            raise RequestError(
                f"Row {wanted[missing][0]} of a table is read, but only {len(self.indices)} other rows of it "
                "were fetched. Fetch the rows that the model names for this batch."
            )
        return self.rows[places]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the rows."""
        return self.rows.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of rows and indices together."""
        return self.rows.nbytes + self.indices.nbytes


@dataclass(frozen=True, eq=False)
class RowGradient:
    """Hold a gradient that is zero but in some rows.

    It can be added to another one or to an array, multiplied by a number and divided by one: all that the
    sum of a round asks of a gradient.

    Attributes:
        indices: ``(n,) int64``, ascending, each once.
        rows: ``(n, ...) float32`` (float64 in a numeric check).
        shape: of the whole tensor.

    Raises:
        RequestError: the three do not fit together.

    Example:
        >>> once = RowGradient(np.array([0, 2]), np.float32([[1], [2]]), (4, 1))
        >>> twice = once + RowGradient(np.array([2, 3]), np.float32([[5], [6]]), (4, 1))
        >>> twice.indices, twice.dense().ravel()
        (array([0, 2, 3]), array([1., 0., 7., 6.], dtype=float32))
    """

    indices: RowIndices
    rows: Array
    shape: tuple[int, ...]

    # NumPy leaves all arithmetic with an array or a NumPy number to the methods of this class.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        check_rows("A row gradient", self.indices, self.rows, self.shape)

    @classmethod
    def summed(cls, indices: AnyArray, rows: AnyArray, shape: tuple[int, ...]) -> RowGradient:
        """Add up rows that belong to the same index.

        Rows of one index are added in the order in which they occur, so the same batch always gives the
        same bytes.

        Args:
            indices: int64 of any shape, each in ``[0, shape[0])``, in any order, any number of times.
            rows: ``(*indices.shape, *shape[1:])`` floats.
            shape: of the whole tensor.

        Raises:
            RequestError: an index is outside the tensor, or the shapes do not fit together.
        """
        unique, places = np.unique(indices.reshape(-1), return_inverse=True)
        width = math.prod(shape[1:])
        sums = np.zeros(len(unique) * width, rows.dtype)
        # One index for each element, because only in one dimension is `add.at` fast; it adds in order.
        elements = places.reshape(-1, 1) * width + np.arange(width)
        np.add.at(sums, elements.reshape(-1), rows.reshape(-1))
        return cls(unique, sums.reshape(len(unique), *shape[1:]), shape)

    def dense(self) -> Array:
        """Copy the gradient into an array of the tensor's shape, with zeros in all other rows."""
        whole = np.zeros(self.shape, self.rows.dtype)
        whole[self.indices] = self.rows
        return whole

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the rows."""
        return self.rows.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of rows and indices together."""
        return self.rows.nbytes + self.indices.nbytes

    def __add__(self, other: RowGradient | Array) -> Any:
        """Give the sum; a row gradient with another one, an array with an array.

        Raises:
            RequestError: the other one belongs to a tensor of another shape.
        """
        if other.shape != self.shape:
            raise RequestError(
                f"Gradients of one tensor have one shape, but these are {self.shape} and {other.shape}."
            )
        if not isinstance(other, RowGradient):
            whole = other.copy()
            whole[self.indices] += self.rows
            return whole
        indices = np.union1d(self.indices, other.indices)
        rows = np.zeros((len(indices), *self.shape[1:]), self.rows.dtype)
        rows[np.searchsorted(indices, self.indices)] = self.rows
        rows[np.searchsorted(indices, other.indices)] += other.rows
        return RowGradient(indices, rows, self.shape)

    __radd__ = __add__

    def __mul__(self, factor: float | np.floating[Any]) -> RowGradient:
        """Multiply every row by a number, rounded to the dtype of the rows first."""
        return RowGradient(self.indices, self.rows * self.rows.dtype.type(factor), self.shape)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | np.floating[Any]) -> RowGradient:
        """Divide every row by a number, rounded to the dtype of the rows first."""
        return RowGradient(self.indices, self.rows / self.rows.dtype.type(divisor), self.shape)


Gradient: TypeAlias = Array | RowGradient
"""The gradient of one tensor."""

Gradients: TypeAlias = Mapping[str, Gradient]
"""Gradients by key."""

Values: TypeAlias = Mapping[str, Array | RowValues]
"""A float32 tensor for each key; of a table that is read row by row, the rows of the batch suffice."""

RowsByKey: TypeAlias = Mapping[str, RowIndices]
"""Which rows of which tables; a key that is not there means the whole tensor."""


def dense(gradient: Gradient) -> Array:
    """Give a gradient as an array; an array is returned as it is."""
    return gradient.dense() if isinstance(gradient, RowGradient) else gradient


def check_rows(what: str, indices: AnyArray, rows: AnyArray, shape: tuple[int, ...]) -> None:
    """Refuse rows that do not fit a tensor.

    Args:
        what: begins the sentence.
        indices: should be ``(n,) int64``, ascending, each once, in ``[0, shape[0])``.
        rows: should be ``(n, *shape[1:])`` floats.
        shape: of the whole tensor.

    Raises:
        RequestError: says what was expected and what was found.
    """
    check_indices(what, indices, shape)
    if rows.shape != (len(indices), *shape[1:]) or rows.dtype.kind != "f":
        raise RequestError(
            f"{what}: expected {(len(indices), *shape[1:])} float32 for {len(indices)} indices into a tensor "
            f"of shape {shape}, found {rows.shape} {rows.dtype}."
        )


def check_indices(what: str, indices: AnyArray, shape: tuple[int, ...]) -> None:
    """Refuse indices that do not name rows of a tensor.

    Args:
        what: begins the sentence.
        indices: should be ``(n,) int64``, ascending, each once, in ``[0, shape[0])``.
        shape: of the whole tensor.

    Raises:
        RequestError: says what was expected and what was found.
    """
    if not shape:
        raise RequestError(f"{what}: the tensor is a single number and has no rows. Send it whole.")
    if indices.ndim != 1 or indices.dtype != np.int64:
        raise RequestError(f"{what}: expected indices (n,) int64, found {indices.shape} {indices.dtype}.")
    if not len(indices):
        return
    if indices.min() < 0 or indices.max() >= shape[0]:
        outside = indices[(indices < 0) | (indices >= shape[0])][0]
        raise RequestError(f"{what}: expected indices from 0 to {shape[0] - 1}, found {outside}.")
    steps = np.diff(indices)
    if (steps <= 0).any():
        place = int(np.argmax(steps <= 0))
        raise RequestError(
            f"{what}: expected indices in ascending order, each once, found them repeated or out of order: "
            f"{indices[place + 1]} after {indices[place]}."
        )
