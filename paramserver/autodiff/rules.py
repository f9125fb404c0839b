"""The table of operations: for each its shape rule, its value, and its vector-Jacobian products.

This table is all that the package knows about calculus. To add an operation, add a row:

* ``shape(*shapes, **attributes)`` gives the shape of the value (see ``shapes``);
* ``forward(*inputs, **attributes)`` gives ``(value, kept)``, where ``kept`` is whatever the backward walk
  would otherwise have to compute again, or None;
* ``vjps`` has one function for each input, or None where there is no derivative (integer labels).
  ``vjp(g, value, kept, *inputs, **attributes)`` is given ``g``, the gradient of the result with respect to
  this operation's value, and returns the gradient with respect to that input, in that input's shape.

The rules keep three promises: they write into nothing they were given; they return new arrays, or ``g`` or a
view of it, but never an input; and they keep the dtype (so the numeric check can run in float64). What a
vjp returns is only ever added with ``+`` to another of its kind, so a row-sparse gradient needs no more than
a class with ``__add__``.

Vector-Jacobian products: Griewank and Walther, Evaluating Derivatives, 2nd edition (2008), chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from paramserver.autodiff import shapes
from paramserver.errors import RequestError
from paramserver.types import AnyArray


@dataclass(frozen=True, slots=True)
class Rule:
    """One operation: how shapes combine, how values do, and how gradients flow back.

    Attributes:
        shape: the shape of the value; raises ``ShapeError``.
        forward: the value, and what the backward walk wants kept.
        vjps: one for each input; None where the input has no derivative.
        integer_inputs: positions of the inputs that are int64; all others are floats.
    """

    shape: Callable[..., shapes.Shape]
    forward: Callable[..., tuple[Any, Any]]
    vjps: tuple[Callable[..., Any] | None, ...]
    integer_inputs: frozenset[int] = frozenset()


def softmax(logits: AnyArray) -> AnyArray:
    """Turn each row of logits into probabilities, without overflow for logits of any size.

    Args:
        logits: ``(batch, classes)`` floats.

    Returns:
        ``(batch, classes)`` in the dtype of ``logits``; each row sums to 1.
    """
    _, exponentials, sums = _log_sum_exp(logits)
    exponentials /= sums[:, None]
    return exponentials


def cross_entropies(logits: AnyArray, labels: AnyArray) -> AnyArray:
    """Give minus the logarithm of the probability of each sample's label, in nats.

    Args:
        logits: ``(batch, classes)`` floats.
        labels: ``(batch,) int64``, each in ``[0, classes)``.

    Returns:
        ``(batch,)`` in the dtype of ``logits``.
    """
    shifted, _, sums = _log_sum_exp(logits)
    losses: AnyArray = np.log(sums) - shifted[np.arange(len(labels)), labels]
    return losses


def _log_sum_exp(logits: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Give each row minus its largest logit, the exponentials of that, and their sums.

    The largest exponential is exp(0), so nothing overflows and no sum is 0.
    """
    shifted: AnyArray = logits - logits.max(axis=1, keepdims=True)
    exponentials: AnyArray = np.exp(shifted)
    return shifted, exponentials, exponentials.sum(axis=1)


def _softmax_cross_entropy(logits: AnyArray, labels: AnyArray) -> tuple[Any, Any]:
    classes = logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        outside = labels[(labels < 0) | (labels >= classes)][0]
        raise RequestError(
            f"Labels must be at least 0 and less than {classes}, the number of classes, "
            f"but a label is {outside}. Give the model as many classes as the data has."
        )
    shifted, exponentials, sums = _log_sum_exp(logits)
    losses = np.log(sums) - shifted[np.arange(len(labels)), labels]
    exponentials /= sums[:, None]
    return losses.mean(), exponentials


def _softmax_cross_entropy_vjp(
    g: AnyArray, value: AnyArray, probabilities: AnyArray, logits: AnyArray, labels: AnyArray
) -> AnyArray:
    # (softmax(logits) - one_hot(labels)) * g / batch
    gradient = probabilities.copy()
    gradient[np.arange(len(labels)), labels] -= 1
    gradient *= g / g.dtype.type(len(labels))
    return gradient


def _sum_to(g: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """Undo the broadcast of a trailing shape: sum over the leading axes of ``g``."""
    surplus = g.ndim - len(shape)
    summed: AnyArray = g.sum(axis=tuple(range(surplus))) if surplus else g
    return summed


def _spread(g: AnyArray, shape: tuple[int, ...], axis: int | None) -> AnyArray:
    """Undo a reduction: repeat ``g`` along the axis that went, as a view."""
    return np.broadcast_to(g if axis is None else np.expand_dims(g, axis), shape)


def _mean_vjp(g: AnyArray, value: AnyArray, kept: None, a: AnyArray, *, axis: int | None = None) -> AnyArray:
    count = a.size if axis is None else a.shape[axis]
    return _spread(g / g.dtype.type(count), a.shape, axis)


RULES: Final[dict[str, Rule]] = {
    "matmul": Rule(
        shape=shapes.matrix_product,
        forward=lambda a, b: (a @ b, None),
        vjps=(
            lambda g, value, kept, a, b: g @ b.T,
            lambda g, value, kept, a, b: a.T @ g,
        ),
    ),
    "add": Rule(
        shape=shapes.element_wise,
        forward=lambda a, b: (a + b, None),
        vjps=(
            lambda g, value, kept, a, b: g,
            lambda g, value, kept, a, b: _sum_to(g, b.shape),
        ),
    ),
    "multiply": Rule(
        shape=shapes.element_wise,
        forward=lambda a, b: (a * b, None),
        vjps=(
            lambda g, value, kept, a, b: g * b,
            lambda g, value, kept, a, b: _sum_to(g * a, b.shape),
        ),
    ),
    "relu": Rule(
        shape=shapes.unchanged,
        forward=lambda a: (np.maximum(a, 0), None),
        # The derivative at 0 is taken as 0. (Value instead of input: then the input need not be kept.)
        vjps=(lambda g, value, kept, a: g * (value > 0),),
    ),
    "sum": Rule(
        shape=shapes.reduced,
        forward=lambda a, *, axis=None: (a.sum(axis=axis), None),
        vjps=(lambda g, value, kept, a, *, axis=None: _spread(g, a.shape, axis),),
    ),
    "mean": Rule(
        shape=shapes.reduced,
        forward=lambda a, *, axis=None: (a.mean(axis=axis), None),
        vjps=(_mean_vjp,),
    ),
    "softmax_cross_entropy": Rule(
        shape=shapes.labelled_mean,
        forward=_softmax_cross_entropy,
        vjps=(_softmax_cross_entropy_vjp, None),
        integer_inputs=frozenset({1}),
    ),
}
"""The operations by name."""
