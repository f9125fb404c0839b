"""Cut a part off a data set, to watch or to judge training by: at random, each class in its proportion."""

from __future__ import annotations

import numpy as np

from paramserver.data.chance import generator
from paramserver.data.dataset import Dataset, Indices, Labels
from paramserver.errors import RequestError


def held_out_indices(dataset: Dataset, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Choose the samples of a part: stratified by class, or for regression by chance alone.

    Args:
        dataset: the whole.
        fraction: share of the samples that goes to the second part, between 0 and 1.
        seed: of the choice; the same seed gives the same split.

    Returns:
        (rest, part), each ascending; together all positions.

    Raises:
        RequestError: the fraction is not between 0 and 1, or there are too few samples.
    """
    if dataset.task != "regression":
        return stratified_indices(dataset.labels, fraction, seed)
    if len(dataset) < 2:
        raise RequestError(
            f"A split needs at least two samples, but '{dataset.name}' has one. Give more samples."
        )
    # One stratum: the quantities themselves are not classes.
    return stratified_indices(np.zeros(len(dataset), np.int64), fraction, seed)


def stratified_split(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set so that each class is in both parts in its proportion.

    A class of one sample stays in the rest; a larger one gives at least one sample to each side. A data set
    for regression has no classes and is split by chance alone.

    Args:
        dataset: the whole.
        fraction: share of the samples that goes to the second part, between 0 and 1.
        seed: of the choice; the same seed gives the same split.

    Returns:
        (rest, part), each in the order of the whole.

    Raises:
        RequestError: the fraction is not between 0 and 1, or no class has two samples.
    """
    rest, part = held_out_indices(dataset, fraction, seed)
    return dataset.take(rest, dataset.name), dataset.take(part, dataset.name)


def stratified_indices(labels: Labels, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Choose the samples of a stratified split from the labels alone.

    Args:
        labels: (samples,) int64, 0 or more.
        fraction: share of the samples that goes to the second part, between 0 and 1.
        seed: of the choice.

    Returns:
        (rest, part), each ascending; together all positions in `labels`.

    Raises:
        RequestError: the fraction is not between 0 and 1, or no class has two samples.
    """
    if not 0.0 < fraction < 1.0:
        raise RequestError(f"A split needs a fraction between 0 and 1, but got {fraction}.")
    rng = generator(seed, "stratified split")
    in_part = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            share = min(max(round(fraction * len(members)), 1), len(members) - 1)
            in_part[members[:share]] = True
    if not in_part.any():
        raise RequestError(
            f"A split needs a class with at least two samples, but each class of these {len(labels)} samples "
            f"has only one. Give more samples per class."
        )
    return np.flatnonzero(~in_part), np.flatnonzero(in_part)
