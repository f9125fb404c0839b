"""Losses and their vector-Jacobian products: means over a batch, in nats or in squared units.

Each is computed from logits, never from probabilities, so that nothing overflows and no logarithm of 0 is
taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from paramserver.errors import RequestError
from paramserver.types import AnyArray


def softmax(logits: AnyArray) -> AnyArray:
    """Turn each row of logits into probabilities, without overflow for logits of any size.

    Args:
        logits: ``(..., classes)`` floats.

    Returns:
        ``(..., classes)`` in the dtype of ``logits``; the last axis sums to 1.
    """
    _, exponentials, sums = _log_sum_exp(logits)
    exponentials /= sums[..., None]
    return exponentials


def sigmoid(logits: AnyArray) -> AnyArray:
    """Turn each logit into the probability 1 / (1 + exp(-logit)), without overflow.

    Args:
        logits: floats of any shape.

    Returns:
        The same shape and dtype.
    """
    small = np.exp(-np.abs(logits))  # at most 1
    probabilities: AnyArray = np.where(logits >= 0, 1, small) / (1 + small)
    return probabilities


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


def binary_cross_entropies(logits: AnyArray, labels: AnyArray) -> AnyArray:
    """Give minus the logarithm of the probability of each sample's label, in nats.

    With z for the logit and y for the label this is max(z, 0) - z y + log(1 + exp(-abs(z))).

    Args:
        logits: ``(batch,)`` floats; the probability of label 1 is their sigmoid.
        labels: ``(batch,) int64``, each 0 or 1.

    Returns:
        ``(batch,)`` in the dtype of ``logits``.
    """
    rests = np.log1p(np.exp(-np.abs(logits)))
    losses: AnyArray = np.maximum(logits, 0) - logits * labels.astype(logits.dtype) + rests
    return losses


def _log_sum_exp(logits: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Give each row minus its largest logit, the exponentials of that, and their sums.

    The largest exponential is exp(0), so nothing overflows and no sum is 0.
    """
    shifted: AnyArray = logits - logits.max(axis=-1, keepdims=True)
    exponentials: AnyArray = np.exp(shifted)
    return shifted, exponentials, exponentials.sum(axis=-1)


def _check_labels(labels: AnyArray, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        outside = labels[(labels < 0) | (labels >= classes)][0]
        raise RequestError(
            f"Labels must be at least 0 and less than {classes}, the number of classes, "
            f"but a label is {outside}. Give the model as many classes as the data has."
        )


def softmax_cross_entropy(logits: AnyArray, labels: AnyArray) -> tuple[Any, Any]:
    """Compute the mean of ``cross_entropies``, and keep what its vjp needs."""
    _check_labels(labels, logits.shape[1])
    shifted, probabilities, sums = _log_sum_exp(logits)
    rows = np.arange(len(labels))
    losses = np.log(sums) - shifted[rows, labels]
    probabilities /= sums[:, None]
    return losses.mean(), (probabilities, rows, labels)


def softmax_cross_entropy_vjp(g: AnyArray, kept: tuple[AnyArray, AnyArray, AnyArray]) -> AnyArray:
    """Give (softmax(logits) - one_hot(labels)) * g / batch."""
    probabilities, rows, labels = kept
    gradient = probabilities.copy()
    gradient[rows, labels] -= 1
    gradient *= g / g.dtype.type(len(labels))
    return gradient


def binary_cross_entropy(logits: AnyArray, labels: AnyArray) -> tuple[Any, Any]:
    """Compute the mean of ``binary_cross_entropies``, and keep what its vjp needs."""
    _check_labels(labels, 2)
    return binary_cross_entropies(logits, labels).mean(), (logits, labels)


def binary_cross_entropy_vjp(g: AnyArray, kept: tuple[AnyArray, AnyArray]) -> AnyArray:
    """Give (sigmoid(logits) - labels) * g / batch."""
    logits, labels = kept
    gradient: AnyArray = sigmoid(logits) - labels.astype(logits.dtype)
    gradient *= g / g.dtype.type(len(labels))
    return gradient


def squared_error(predictions: AnyArray, targets: AnyArray) -> tuple[Any, Any]:
    """Compute the mean of (predictions - targets)**2, and keep what its vjps need."""
    differences = predictions - targets
    return np.square(differences).mean(), differences


def squared_error_vjp(g: AnyArray, kept: AnyArray) -> AnyArray:
    """Give 2 * (predictions - targets) * g / batch."""
    gradient: AnyArray = kept * (g * g.dtype.type(2) / g.dtype.type(len(kept)))
    return gradient
