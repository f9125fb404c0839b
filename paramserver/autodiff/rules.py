"""The table of operations: for each its shape rule, its value, and its vector-Jacobian products.

This table is all that the package knows about calculus. To add an operation, add a row:

* ``shape(*shapes, **attributes)`` gives the shape of the value (see ``shapes``);
* ``forward(*inputs, **attributes)`` gives ``(value, kept)``, where ``kept`` is all that the vjps will need
  to know of this evaluation; values that no rule keeps are given up as soon as they have been read;
* ``vjps`` has one function for each input, or None where there is no derivative (integer labels, chance).
  ``vjp(g, kept, **attributes)`` is given ``g``, the gradient of the result with respect to this operation's
  value, and returns the gradient with respect to that input, in that input's shape.

The rules keep three promises: they write into nothing they were given; their vjps return new arrays, or ``g``
or a view of it, but nothing that was kept; and they keep the dtype (so the numeric check can run in float64).
What a vjp returns is only ever added with ``+`` to another of its kind, so a row-sparse gradient (of
``gather``) needs no more than a class with ``__add__``.

Rules of one line stand in the table; longer ones are written out in ``pointwise``, ``images``, ``gather`` and
``losses``.

Vector-Jacobian products: Griewank and Walther, Evaluating Derivatives, 2nd edition (2008), chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from paramserver.autodiff import gather, images, losses, pointwise, shapes


@dataclass(frozen=True, slots=True)
class Rule:
    """One operation: how shapes combine, how values do, and how gradients flow back.

    Attributes:
        shape: the shape of the value; raises ``ShapeError``.
        forward: the value, and what the vjps need.
        vjps: one for each input; None where the input has no derivative (or none is wanted, as of chance).
        integer_inputs: positions of the inputs that are int64; all others are floats.
    """

    shape: Callable[..., shapes.Shape]
    forward: Callable[..., tuple[Any, Any]]
    vjps: tuple[Callable[..., Any] | None, ...]
    integer_inputs: frozenset[int] = frozenset()


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
            lambda g, kept: pointwise.sum_to(g, kept),
        ),
    ),
    "multiply": Rule(
        shape=shapes.element_wise,
        forward=lambda a, b: (a * b, (a, b)),
        vjps=(
            lambda g, kept: g * kept[1],
            lambda g, kept: pointwise.sum_to(g * kept[0], kept[1].shape),
        ),
    ),
    "sum": Rule(
        shape=shapes.reduced,
        forward=lambda a, *, axis=None: (a.sum(axis=axis), a.shape),
        vjps=(pointwise.spread,),
    ),
    "mean": Rule(
        shape=shapes.reduced,
        forward=lambda a, *, axis=None: (a.mean(axis=axis), a.shape),
        vjps=(pointwise.mean_vjp,),
    ),
    "reshape": Rule(
        shape=shapes.reshaped,
        forward=lambda a, *, shape: (a.reshape(len(a), *shape), a.shape),
        vjps=(lambda g, kept, *, shape: g.reshape(kept),),
    ),
    "flatten": Rule(
        shape=shapes.flattened,
        forward=lambda a: (a.reshape(len(a), -1), a.shape),
        vjps=(lambda g, kept: g.reshape(kept),),
    ),
    "gather": Rule(
        shape=shapes.gathered,
        forward=gather.gather,
        vjps=(gather.gather_vjp, None),
        integer_inputs=frozenset({1}),
    ),
    "relu": Rule(shapes.unchanged, pointwise.relu, (pointwise.relu_vjp,)),
    "tanh": Rule(shapes.unchanged, pointwise.tanh, (pointwise.tanh_vjp,)),
    "sigmoid": Rule(shapes.unchanged, pointwise.logistic, (pointwise.logistic_vjp,)),
    "softmax": Rule(shapes.last_axis, pointwise.softmax_of_last_axis, (pointwise.softmax_vjp,)),
    "dropout": Rule(shapes.with_chance, pointwise.dropout, (pointwise.dropout_vjp, None)),
    "layer_norm": Rule(
        shape=shapes.normalised,
        forward=pointwise.layer_norm,
        vjps=(
            pointwise.layer_norm_vjp,
            pointwise.layer_norm_gain_vjp,
            pointwise.layer_norm_offset_vjp,
        ),
    ),
    "conv2d": Rule(
        shape=shapes.convolved,
        forward=images.conv2d,
        vjps=(images.conv2d_images_vjp, images.conv2d_filters_vjp),
    ),
    "max_pool": Rule(shapes.pooled, images.max_pool, (images.max_pool_vjp,)),
    "average_pool": Rule(shapes.pooled, images.average_pool, (images.average_pool_vjp,)),
    "softmax_cross_entropy": Rule(
        shape=shapes.labelled_mean,
        forward=losses.softmax_cross_entropy,
        vjps=(losses.softmax_cross_entropy_vjp, None),
        integer_inputs=frozenset({1}),
    ),
    "binary_cross_entropy": Rule(
        shape=shapes.paired_mean,
        forward=losses.binary_cross_entropy,
        vjps=(losses.binary_cross_entropy_vjp, None),
        integer_inputs=frozenset({1}),
    ),
    "squared_error": Rule(
        shape=shapes.paired_mean,
        forward=losses.squared_error,
        vjps=(
            losses.squared_error_vjp,
            lambda g, kept: losses.squared_error_vjp(-g, kept),
        ),
    ),
}
"""The operations by name."""
