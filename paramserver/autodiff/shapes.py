"""Shapes with names in them, and the rules by which operations combine them.

A dimension is a count, or a name such as ``"batch"`` for a count that is known only when arrays are fed.
Two named dimensions are equal when their names are. A shape rule takes the shapes of an operation's inputs
(and its attributes) and returns the shape of its value, or raises ``ShapeError`` with the part of the
sentence that only it knows; the builder adds the node, the layer and the shapes found.

Nothing broadcasts by accident: the second input of an element-wise operation has the shape of the first or
the trailing part of it, as a bias has.
"""

from __future__ import annotations

import math

Dimension = int | str
"""A count, or the name of a count such as ``"batch"``."""

Shape = tuple[Dimension, ...]
"""A shape whose dimensions may be named."""


class ShapeError(Exception):
    """Say what shapes an operation takes; caught by the builder, never seen by a user."""


def shape_text(shape: Shape) -> str:
    """Write a shape as people do.

    Example:
        >>> shape_text(("batch", 784)), shape_text((10,)), shape_text(())
        ('(batch, 784)', '(10,)', '()')
    """
    inner = ", ".join(str(dimension) for dimension in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def matrix_product(left: Shape, right: Shape) -> Shape:
    """Give ``(m, n)`` for ``(m, k)`` and ``(k, n)``."""
    if len(left) != 2 or len(right) != 2 or left[1] != right[0]:
        raise ShapeError("two matrices (m, k) and (k, n), as many columns in the first as rows in the second")
    return (left[0], right[1])


def element_wise(left: Shape, right: Shape) -> Shape:
    """Give the first shape, if the second equals it or its trailing dimensions (a bias)."""
    if right != left[len(left) - len(right) :] or len(right) > len(left):
        raise ShapeError("a second input with the shape of the first, or with its trailing dimensions")
    return left


def unchanged(shape: Shape) -> Shape:
    """Give the shape of the only input."""
    return shape


def reduced(shape: Shape, *, axis: int | None = None) -> Shape:
    """Give the shape without one axis, or ``()`` where ``axis`` is None."""
    if axis is None:
        return ()
    if not 0 <= axis < len(shape):
        raise ShapeError(f"an input that has axis {axis}, counted from 0")
    return shape[:axis] + shape[axis + 1 :]


def labelled_mean(logits: Shape, labels: Shape) -> Shape:
    """Give ``()`` for logits ``(batch, classes)`` and labels ``(batch,)``."""
    if len(logits) != 2 or labels != logits[:1]:
        raise ShapeError("logits (batch, classes) and labels (batch,) of the same batch")
    return ()


def paired_mean(values: Shape, targets: Shape) -> Shape:
    """Give ``()`` for values ``(batch,)`` and targets ``(batch,)``."""
    if len(values) != 1 or targets != values:
        raise ShapeError("two inputs (batch,) of the same batch")
    return ()


def last_axis(shape: Shape) -> Shape:
    """Give the shape of the only input, which has at least one axis."""
    if not shape:
        raise ShapeError("an input with at least one axis")
    return shape


def with_chance(shape: Shape, chance: Shape, *, rate: float) -> Shape:
    """Give the first shape, if the second is equal and the rate is a share."""
    if chance != shape or not 0 <= rate < 1:
        raise ShapeError("two inputs of the same shape, and a rate from 0 up to but not including 1")
    return shape


def normalised(shape: Shape, gain: Shape, offset: Shape) -> Shape:
    """Give the first shape, if the others are its last dimension."""
    if not shape or gain != shape[-1:] or offset != gain:
        raise ShapeError("an input (..., width), a gain (width,) and an offset (width,)")
    return shape


def reshaped(before: Shape, *, shape: tuple[int, ...]) -> Shape:
    """Give ``(batch, *shape)``: axis 0 stays, the others are arranged anew."""
    inner = _counts(before[1:])
    if not before or inner is None or math.prod(inner) != math.prod(shape):
        raise ShapeError(
            f"(batch, ...) with as many values for each sample as {shape_text(tuple(shape))} has"
        )
    return (before[0], *shape)


def flattened(shape: Shape) -> Shape:
    """Give ``(batch, n)``: axis 0 stays, the others become one."""
    inner = _counts(shape[1:])
    if not shape or inner is None:
        raise ShapeError("(batch, ...), where every dimension after the first is a count")
    return (shape[0], math.prod(inner))


def gathered(table: Shape, indices: Shape) -> Shape:
    """Give ``(*indices, *row)`` for a table ``(rows, *row)``."""
    if not table or not indices:
        raise ShapeError("a table (rows, ...) and indices with at least one axis")
    return indices + table[1:]


def convolved(images: Shape, filters: Shape, *, stride: int = 1, padding: int = 0) -> Shape:
    """Give ``(batch, down, across, filters)``, where ``down = (height + 2 padding - tall) // stride + 1``."""
    sides, window = _counts(images[1:3]), _counts(filters)
    if (
        (len(images), len(filters)) != (4, 4)
        or sides is None
        or window is None
        or images[3] != window[3]
        or stride < 1
        or padding < 0
        or any(side + 2 * padding < span for side, span in zip(sides, window[1:3], strict=True))
    ):
        raise ShapeError(
            "images (batch, height, width, channels) and filters (filters, height, width, channels) of as "
            f"many channels and no larger than the image with its padding of {padding}, at a stride from 1 up"
        )
    down, across = (
        (side + 2 * padding - w) // stride + 1 for side, w in zip(sides, window[1:3], strict=True)
    )
    return (images[0], down, across, window[0])


def pooled(images: Shape, *, size: int) -> Shape:
    """Give ``(batch, height // size, width // size, channels)``."""
    sides = _counts(images[1:3])
    if len(images) != 4 or sides is None or size < 1 or min(sides) < size:
        raise ShapeError(f"images (batch, height, width, channels) that hold a square of {size} x {size}")
    return (images[0], sides[0] // size, sides[1] // size, images[3])


def _counts(dimensions: Shape) -> tuple[int, ...] | None:
    """Give the dimensions if all are counts, else None."""
    counts = tuple(dimension for dimension in dimensions if isinstance(dimension, int))
    return counts if len(counts) == len(dimensions) else None
