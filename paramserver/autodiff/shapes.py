"""Shapes with names in them, and the rules by which operations combine them.

A dimension is a count, or a name such as ``"batch"`` for a count that is known only when arrays are fed.
Two named dimensions are equal when their names are. A shape rule takes the shapes of an operation's inputs
(and its attributes) and returns the shape of its value, or raises ``ShapeError`` with the part of the
sentence that only it knows; the builder adds the node, the layer and the shapes found.

Nothing broadcasts by accident: the second input of an element-wise operation has the shape of the first or
the trailing part of it, as a bias has.
"""

from __future__ import annotations

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
