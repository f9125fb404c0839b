"""Data that is made, not read: small problems whose truth is known, from a seed.

Each generator is a pure function of its arguments. The seed is of the data and not of the job, so that jobs
of any seed meet the same samples.
"""

from __future__ import annotations

import numpy as np

from paramserver.data.chance import generator
from paramserver.data.dataset import Dataset


def spirals(n: int = 3000, classes: int = 3, noise: float = 0.2, seed: int = 0) -> Dataset:
    """Make intertwined spirals in the plane, one for each class: no straight line can part them.

    Args:
        n: number of samples, evenly spread over the classes.
        classes: number of arms, at least 2.
        noise: standard deviation of the angle in radians.
        seed: of the data.

    Returns:
        Inputs (n, 2) float32 in [-1, 1], labels (n,) int64.

    Example:
        >>> data = spirals(n=300)
        >>> data.inputs.shape, data.classes
        ((300, 2), 3)
    """
    rng = generator(seed, "spirals")
    labels = rng.permutation(np.arange(n) % classes)
    radius = np.sqrt(rng.random(n))  # evenly over the disk, so that the centre is not crowded
    angle = 2 * np.pi * labels / classes + 1.5 * np.pi * radius + noise * rng.standard_normal(n)
    inputs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return Dataset(inputs.astype(np.float32), labels, "synthetic:spirals", classes)


def linear(n: int = 3000, features: int = 10, noise: float = 0.1, seed: int = 0) -> Dataset:
    """Make quantities that are linear in their features, plus noise: y = x·w + b + noise.

    Args:
        n: number of samples.
        features: number of features, each standard normal.
        noise: standard deviation of the noise. The best mean squared error is its square. The weights have
            norm 1, so without noise the labels have variance 1.
        seed: of the data.

    Returns:
        Inputs (n, features) float32, labels (n,) float32; the task is regression.
    """
    rng = generator(seed, "linear")
    weights, bias = rng.standard_normal(features), rng.standard_normal()
    weights /= np.linalg.norm(weights)
    inputs = rng.standard_normal((n, features), dtype=np.float32)
    labels = inputs @ weights + bias + noise * rng.standard_normal(n)
    return Dataset(inputs, labels.astype(np.float32), "synthetic:linear", task="regression")


def teacher(
    n: int = 6000, features: int = 20, hidden: int = 32, classes: int = 4, noise: float = 0.0, seed: int = 0
) -> Dataset:
    """Make labels with a fixed random network of one hidden layer of relus: a truth that can be learned.

    Args:
        n: number of samples.
        features: number of features, each standard normal.
        hidden: width of the teacher's hidden layer.
        classes: number of classes, at least 2. Each logit is centred and scaled to variance 1 over the
            samples, so that every class is about equally likely.
        noise: share of the labels that are replaced by a random one, from 0 to 1.
        seed: of the teacher and the samples.

    Returns:
        Inputs (n, features) float32, labels (n,) int64.
    """
    rng = generator(seed, "teacher")
    first = rng.standard_normal((features, hidden)) * np.sqrt(2 / features)
    second = rng.standard_normal((hidden, classes)) * np.sqrt(2 / hidden)
    inputs = rng.standard_normal((n, features), dtype=np.float32)
    logits = np.maximum(inputs @ first, 0) @ second
    # Where all samples agree on a logit there is nothing to scale.
    logits = (logits - logits.mean(axis=0)) / np.maximum(logits.std(axis=0), 1e-9)
    labels = logits.argmax(axis=1)
    labels = np.where(rng.random(n) < noise, rng.integers(classes, size=n), labels)
    return Dataset(inputs, labels.astype(np.int64), "synthetic:teacher", classes)


def clicks(
    n: int = 20_000, fields: int = 8, values: int = 32_768, zipf: float = 1.1, seed: int = 0
) -> Dataset:
    """Make sparse categories with a yes or no, as in predicting clicks.

    A few values are everywhere, and most are rare: each field has its own values, and the k-th most frequent
    one occurs in proportion to 1 / k**zipf (Zipf's law). A value is a row of one table; its place in the
    field's part of the table is random, as a hash would put it. The label is drawn from a logistic
    regression over the rows: the log odds are -1 plus the weights of the sample's rows, which are normal with
    variance 4 / fields.

    Args:
        n: number of samples.
        fields: number of fields.
        values: number of values of each field; the table has ``fields * values`` rows.
        zipf: exponent of the law; 0 makes all values equally frequent.
        seed: of the data.

    Returns:
        Inputs (n, fields) int64 in ``[field * values, (field + 1) * values)``, labels (n,) int64 of 0 and
        1; the task is binary.
    """
    rng = generator(seed, "clicks")
    frequency = np.arange(1, values + 1, dtype=np.float64) ** -zipf
    reached = np.cumsum(frequency / frequency.sum())
    inputs = np.empty((n, fields), np.int64)
    for field in range(fields):
        ranks = np.minimum(np.searchsorted(reached, rng.random(n), side="right"), values - 1)
        inputs[:, field] = field * values + rng.permutation(values)[ranks]
    weights = rng.standard_normal(fields * values) * 2 / np.sqrt(fields)
    log_odds = weights[inputs].sum(axis=1) - 1
    labels = (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)
    return Dataset(inputs, labels, "synthetic:clicks", task="binary", rows=fields * values)
