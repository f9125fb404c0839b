"""Activations, normalisation and dropout, and their vector-Jacobian products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from paramserver.autodiff.losses import sigmoid, softmax
from paramserver.types import AnyArray

LAYER_NORM_EPSILON = 1e-5
"""Added to the variance, so that a sample whose values are all equal divides by something."""


def relu(a: AnyArray) -> tuple[Any, Any]:
    """Compute max(a, 0)."""
    value = np.maximum(a, 0)
    return value, value  # the next layer keeps the value anyway, the input would be one array more


def relu_vjp(g: AnyArray, value: AnyArray) -> AnyArray:
    """Give ``g`` where the value is above 0; the derivative at 0 is taken as 0."""
    return g * (value > 0)


def tanh(a: AnyArray) -> tuple[Any, Any]:
    """Compute the hyperbolic tangent."""
    value = np.tanh(a)
    return value, value


def tanh_vjp(g: AnyArray, value: AnyArray) -> AnyArray:
    """Give g * (1 - tanh(a)**2)."""
    gradient: AnyArray = g * (1 - value * value)
    return gradient


def logistic(a: AnyArray) -> tuple[Any, Any]:
    """Compute the sigmoid."""
    value = sigmoid(a)
    return value, value


def logistic_vjp(g: AnyArray, value: AnyArray) -> AnyArray:
    """Give g * s * (1 - s), where s is the sigmoid."""
    gradient: AnyArray = g * value * (1 - value)
    return gradient


def softmax_of_last_axis(a: AnyArray) -> tuple[Any, Any]:
    """Compute probabilities along the last axis."""
    value = softmax(a)
    return value, value


def softmax_vjp(g: AnyArray, value: AnyArray) -> AnyArray:
    """Give s * (g - sum(g * s)), where s is the softmax."""
    product = g * value
    product -= value * product.sum(axis=-1, keepdims=True)
    return product


def layer_norm(a: AnyArray, gain: AnyArray, offset: AnyArray) -> tuple[Any, Any]:
    """Shift and scale the last axis of each sample to mean 0 and variance 1, then by gain and offset.

    Ba, Kiros and Hinton, Layer normalization, 2016, equation 4, with the biased variance.

    Args:
        a: ``(..., width)`` floats.
        gain: ``(width,)``.
        offset: ``(width,)``.
    """
    centred = a - a.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt(variance + a.dtype.type(LAYER_NORM_EPSILON))
    centred *= scale
    return centred * gain + offset, (centred, scale, gain)


def layer_norm_vjp(g: AnyArray, kept: tuple[AnyArray, AnyArray, AnyArray]) -> AnyArray:
    """Give the gradient with respect to ``a``: what is left of it across the mean and the variance."""
    normal, scale, gain = kept
    gained = g * gain
    part: AnyArray = gained - gained.mean(axis=-1, keepdims=True)
    part -= normal * (gained * normal).mean(axis=-1, keepdims=True)
    part *= scale
    return part


def layer_norm_gain_vjp(g: AnyArray, kept: tuple[AnyArray, AnyArray, AnyArray]) -> AnyArray:
    """Give the gradient with respect to the gain."""
    product: AnyArray = (g * kept[0]).sum(axis=tuple(range(g.ndim - 1)))
    return product


def layer_norm_offset_vjp(g: AnyArray, kept: tuple[AnyArray, AnyArray, AnyArray]) -> AnyArray:
    """Give the gradient with respect to the offset."""
    total: AnyArray = g.sum(axis=tuple(range(g.ndim - 1)))
    return total


def dropout(a: AnyArray, chance: AnyArray, *, rate: float) -> tuple[Any, Any]:
    """Set a share of the values to 0, and scale the others up so that the mean stays.

    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout: a simple way to prevent neural
    networks from overfitting, 2014, section 4, with the scaling moved from prediction to training.

    Args:
        a: floats of any shape.
        chance: the same shape, each uniform in [0, 1): a value is kept where its chance is at least ``rate``.
        rate: the share that is dropped, in [0, 1).
    """
    mask = (chance >= a.dtype.type(rate)) * a.dtype.type(1 / (1 - rate))
    return a * mask, mask


def dropout_vjp(g: AnyArray, mask: AnyArray, *, rate: float) -> AnyArray:
    """Give ``g`` where the value was kept, scaled as it was."""
    return g * mask


def sum_to(g: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """Undo the broadcast of a trailing shape: sum over the leading axes of ``g``."""
    surplus = g.ndim - len(shape)
    summed: AnyArray = g.sum(axis=tuple(range(surplus))) if surplus else g
    return summed


def spread(g: AnyArray, shape: tuple[int, ...], *, axis: int | None = None) -> AnyArray:
    """Undo a reduction: repeat ``g`` along the axis that went, as a view."""
    return np.broadcast_to(g if axis is None else np.expand_dims(g, axis), shape)


def mean_vjp(g: AnyArray, shape: tuple[int, ...], *, axis: int | None = None) -> AnyArray:
    """Undo a mean: share ``g`` equally along the axis that went."""
    count = math.prod(shape) if axis is None else shape[axis]
    return spread(g / g.dtype.type(count), shape, axis=axis)
