"""The table of operations: for each its shape rule, its value, and its vector-Jacobian products.

This table is all that the package knows about calculus. To add an operation, add a row:

* ``shape(*shapes, **attributes)`` gives the shape of the value (see ``shapes``);
* ``forward(*inputs, **attributes)`` gives ``(value, kept)``, where ``kept`` is all that the vjps will need
  to know of this evaluation; values that no rule keeps are given up as soon as they have been read;
* ``vjps`` has one function for each input, or None where there is no derivative (integer labels).
  ``vjp(g, kept, **attributes)`` is given ``g``, the gradient of the result with respect to this operation's
  value, and returns the gradient with respect to that input, in that input's shape.

The rules keep three promises: they write into nothing they were given; their vjps return new arrays, or ``g``
or a view of it, but nothing that was kept; and they keep the dtype (so the numeric check can run in float64).
What a vjp returns is only ever added with ``+`` to another of its kind, so a row-sparse gradient needs no
more than a class with ``__add__``.

Vector-Jacobian products: Griewank and Walther, Evaluating Derivatives, 2nd edition (2008), chapter 3.
"""

from __future__ import annotations

import math
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
        forward: the value, and what the vjps need.
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
    shifted, probabilities, sums = _log_sum_exp(logits)
    rows = np.arange(len(labels))
    losses = np.log(sums) - shifted[rows, labels]
    probabilities /= sums[:, None]
    return losses.mean(), (probabilities, rows, labels)


def _softmax_cross_entropy_vjp(g: AnyArray, kept: tuple[AnyArray, AnyArray, AnyArray]) -> AnyArray:
    # (softmax(logits) - one_hot(labels)) * g / batch
    probabilities, rows, labels = kept
    gradient = probabilities.copy()
    gradient[rows, labels] -= 1
    gradient *= g / g.dtype.type(len(labels))
    return gradient


def _relu(a: AnyArray) -> tuple[Any, Any]:
    value = np.maximum(a, 0)
    return value, value  # the next layer keeps the value anyway, the input would be one array more


def _sum_to(g: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """Undo the broadcast of a trailing shape: sum over the leading axes of ``g``."""
    surplus = g.ndim - len(shape)
    summed: AnyArray = g.sum(axis=tuple(range(surplus))) if surplus else g
    return summed


def _spread(g: AnyArray, shape: tuple[int, ...], *, axis: int | None = None) -> AnyArray:
    """Undo a reduction: repeat ``g`` along the axis that went, as a view."""
    return np.broadcast_to(g if axis is None else np.expand_dims(g, axis), shape)


def _mean_vjp(g: AnyArray, shape: tuple[int, ...], *, axis: int | None = None) -> AnyArray:
    count = math.prod(shape) if axis is None else shape[axis]
    return _spread(g / g.dtype.type(count), shape, axis=axis)


RULES: Final[dict[str, Rule]] = {
    "matmul": Rule(
        shape=shapes.matrix_product,
        forward=lambda a, b: (a @ b, (a, b)),
        vjps=(
            lambda g, kept: g @ kept[1].T,
            lambda g, kept: kept[0].T @ g,
        ),
    ),
    "add": Rule(
        shape=shapes.element_wise,
        forward=lambda a, b: (a + b, b.shape),
        vjps=(
            lambda g, kept: g,
            lambda g, kept: _sum_to(g, kept),
        ),
    ),
    "multiply": Rule(
        shape=shapes.element_wise,
        forward=lambda a, b: (a * b, (a, b)),
        vjps=(
            lambda g, kept: g * kept[1],
            lambda g, kept: _sum_to(g * kept[0], kept[1].shape),
        ),
    ),
    "relu": Rule(
        shape=shapes.unchanged,
        forward=_relu,
        # The derivative at 0 is taken as 0.
        vjps=(lambda g, kept: g * (kept > 0),),
    ),
    "sum": Rule(
        shape=shapes.reduced,
        forward=lambda a, *, axis=None: (a.sum(axis=axis), a.shape),
        vjps=(_spread,),
    ),
    "mean": Rule(
        shape=shapes.reduced,
        forward=lambda a, *, axis=None: (a.mean(axis=axis), a.shape),
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
