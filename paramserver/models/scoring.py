"""Scoring: from logits to loss, accuracy and probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramserver.autodiff import binary_cross_entropies, cross_entropies, sigmoid, softmax
from paramserver.errors import RequestError
from paramserver.models.model import Task
from paramserver.models.trainable import Trainable
from paramserver.rows import Values
from paramserver.types import AnyArray, Array

BATCH = 100
"""Samples that go through a model at once: 2,000 images through ``cnn`` take 149 ms in batches of 100 and 296
ms in batches of 1,000, which leave the cache; a perceptron does not care."""


@dataclass(frozen=True, slots=True)
class Score:
    """How well a model does on some samples.

    Attributes:
        loss: mean cross-entropy in nats, or in a regression the mean squared error.
        accuracy: the share of samples whose predicted class is their label, 0 to 1; in a regression R2, the
            share of the variance that is explained: 1 at best, 0 for always predicting the mean, below that
            for less.
        samples: how many were scored.
        auc: for two classes by one logit: how often a sample of label 1 has the larger logit of a random pair
            of both labels, 0 to 1. None for other models, and where all labels are equal.
    """

    loss: float
    accuracy: float
    samples: int
    auc: float | None = None


def score(model: Trainable, values: Values, inputs: AnyArray, labels: AnyArray, batch: int = BATCH) -> Score:
    """Score a model on labelled samples.

    Args:
        model: the model.
        values: a float32 tensor for each key.
        inputs: ``(samples, features)`` in the dtype of the model's inputs.
        labels: ``(samples,)``, int64 in ``[0, classes)`` or in a regression float32.
        batch: how many samples go through the model at once; it bounds the memory, not the result, which is
            summed in float64.

    Raises:
        RequestError: the data does not fit the model, or there is none.
    """
    if batch < 1:
        raise RequestError(f"A batch has at least 1 sample, found {batch}. Choose a larger one.")
    model.check_inputs(inputs)
    model.check_labels(labels, samples=len(inputs))
    starts = range(0, len(labels), batch)
    logits = np.concatenate([model.logits(values, inputs[start : start + batch]) for start in starts])
    return score_logits(model.task, logits, labels)


def score_logits(task: Task, logits: Array, labels: AnyArray) -> Score:
    """Score logits that have been computed.

    Args:
        task: what the model predicts.
        logits: ``(samples, classes) float32``, or ``(samples,)`` where the task is not classification.
        labels: ``(samples,)``, at least one, int64 or in a regression float32.
    """
    # Diverged weights make logits of infinity or NaN: then the loss says so, not a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        if task == "regression":
            return _regression(logits.astype(np.float64), labels.astype(np.float64))
        if task == "binary":
            loss = binary_cross_entropies(logits, labels).mean(dtype=np.float64)
            right, auc = (logits > 0) == labels, area_under_curve(logits, labels)
        else:
            loss, auc = cross_entropies(logits, labels).mean(dtype=np.float64), None
            right = logits.argmax(axis=1) == labels
    return Score(float(loss), int(np.count_nonzero(right)) / len(labels), len(labels), auc)


def _regression(predictions: AnyArray, targets: AnyArray) -> Score:
    loss = float(np.square(predictions - targets).mean())
    if not np.isfinite(loss):
        return Score(loss, float("-inf"), len(targets))
    variance = float(targets.var())
    # Equal targets have no variance to explain: then a perfect prediction counts 1, any other 0.
    explained = 1 - loss / variance if variance else float(loss == 0)
    return Score(loss, explained, len(targets))


def area_under_curve(logits: Array, labels: AnyArray) -> float | None:
    """Compute the area under the receiver operating characteristic from ranks.

    Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic (ROC) curve,
    1982: the share of pairs of both labels in which the sample of label 1 has the larger logit; ties count
    half.

    Args:
        logits: ``(samples,)`` floats.
        labels: ``(samples,) int64``, each 0 or 1.

    Returns:
        0 to 1, or None where one of the labels does not occur.

    Example:
        >>> area_under_curve(np.float32([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.75
    """
    ones = int(np.count_nonzero(labels))
    zeros = len(labels) - ones
    if not ones or not zeros:
        return None
    _, places, counts = np.unique(logits, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # the mean rank of each value, from 1
    rank_sum = float(ranks[places[labels == 1]].sum())
    return (rank_sum - ones * (ones + 1) / 2) / (ones * zeros)


def probabilities(logits: Array) -> Array:
    """Turn logits into probabilities.

    Args:
        logits: ``(batch, classes) float32``, of any size, or ``(batch,)`` of a model of two classes.

    Returns:
        ``(batch, classes) float32``; each row sums to 1. Of one logit a sample ``(batch, 2)``.

    Example:
        >>> probabilities(np.array([[1000.0, 1000.0]], np.float32))
        array([[0.5, 0.5]], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return softmax(logits) if logits.ndim == 2 else np.stack([sigmoid(-logits), sigmoid(logits)], axis=1)
