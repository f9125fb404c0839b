"""Scoring: from logits to loss, accuracy and probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramserver.autodiff import cross_entropies, softmax
from paramserver.errors import RequestError
from paramserver.models.model import Model
from paramserver.types import AnyArray, Array, Tensors


@dataclass(frozen=True, slots=True)
class Score:
    """How well a model does on some samples.

    Attributes:
        loss: mean cross-entropy in nats.
        accuracy: the share of samples whose largest logit is that of their label, 0 to 1.
        samples: how many were scored.
    """

    loss: float
    accuracy: float
    samples: int


def score(model: Model, values: Tensors, inputs: Array, labels: AnyArray, batch: int = 1000) -> Score:
    """Score a model on labelled samples.

    Args:
        model: the model.
        values: a float32 tensor for each key.
        inputs: ``(samples, features) float32``.
        labels: ``(samples,) int64``, each in ``[0, classes)``.
        batch: how many samples go through the model at once; it bounds the memory, not the result, which is
            summed in float64.

    Raises:
        RequestError: the data does not fit the model, or there is none.
    """
    if batch < 1:
        raise RequestError(f"A batch has at least 1 sample, found {batch}. Choose a larger one.")
    model.check_inputs(inputs)
    model.check_labels(labels, samples=len(inputs))
    loss, right = 0.0, 0
    for start in range(0, len(labels), batch):
        rows = slice(start, start + batch)
        logits = model.logits(values, inputs[rows])
        # Diverged weights make logits of infinity or NaN: then the loss says so, not a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            loss += float(cross_entropies(logits, labels[rows]).sum(dtype=np.float64))
        right += int(np.count_nonzero(logits.argmax(axis=1) == labels[rows]))
    return Score(loss / len(labels), right / len(labels), len(labels))


def probabilities(logits: Array) -> Array:
    """Turn logits into probabilities.

    Args:
        logits: ``(batch, classes) float32``, of any size.

    Returns:
        ``(batch, classes) float32``; each row sums to 1.

    Example:
        >>> probabilities(np.array([[1000.0, 1000.0]], np.float32))
        array([[0.5, 0.5]], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return softmax(logits)
