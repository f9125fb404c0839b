"""How the training set is dealt out to the replicas: evenly mixed, or skewed on purpose.

- ``iid``: shuffled and dealt anew in each epoch, so every rank sees every sample in time.
- ``by-label``: sorted by label and cut in equal shares, so a rank knows few classes (McMahan et al.,
  "Communication-efficient learning of deep networks from decentralized data", 2017, section 3).
- ``dirichlet:A``: each class is divided by proportions drawn from a Dirichlet distribution with
  concentration A (Yurochkin et al., "Bayesian nonparametric federated learning", 2019, section 4): 100 is
  nearly even, 0.1 leaves a rank with a class or two.

In the last two a sample stays with its rank for the whole job, shares may differ in size, and an epoch of
a rank is one pass over its own share. Every rank has at least one sample.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from paramserver.data.chance import generator
from paramserver.data.dataset import Dataset, Indices
from paramserver.errors import RequestError, did_you_mean

SPLITS: Final = ("iid", "by-label", "dirichlet")
"""The kinds of splits by the word before the colon."""


def parse_split(split: str) -> tuple[str, float]:
    """Read a split as a person writes it.

    Args:
        split: ``iid``, ``by-label`` or ``dirichlet:A`` with a number A above 0.

    Returns:
        The kind, one of `SPLITS`, and the concentration A; 0 where there is none.

    Raises:
        RequestError: there is no such split.

    Example:
        >>> parse_split("dirichlet:0.5")
        ('dirichlet', 0.5)
    """
    kind, colon, text = split.strip().lower().partition(":")
    if kind not in SPLITS:
        raise RequestError(
            f"Unknown split '{split}': expected iid, by-label or dirichlet:A.{did_you_mean(kind, SPLITS)}"
        )
    if kind != "dirichlet":
        if colon:
            raise RequestError(f"The split {kind} takes no number, but it is '{split}'.")
        return kind, 0.0
    try:
        concentration = float(text)
    except ValueError:
        concentration = math.nan
    # Below it, the gamma draws behind the proportions underflow; above it they are even anyway.
    if not 1e-3 <= concentration <= 1e6:
        raise RequestError(
            f"The split dirichlet needs a number from 0.001 to 1000000, such as dirichlet:0.5, "
            f"but it is '{split}'."
        )
    return kind, concentration


def shares(split: str, dataset: Dataset, replicas: int, seed: int) -> tuple[Indices, ...]:
    """Deal the samples out to the ranks for the whole job.

    Args:
        split: ``by-label`` or ``dirichlet:A``; for ``iid`` the shares have the sizes that each epoch has,
            but which samples are in them changes with every epoch: see `paramserver.data.assignment`.
        dataset: the training set.
        replicas: number of ranks, at least 1.
        seed: the job's seed.

    Returns:
        For each rank (n,) int64, ascending, n at least 1. Together they are all positions in the data set.
        A rank that the Dirichlet draw leaves empty is given a sample of the rank that has the most.

    Raises:
        RequestError: the split is unknown, there are fewer samples than ranks, or there are no classes to
            divide.

    Example:
        >>> points = Dataset(np.zeros((4, 1), np.float32), np.array([0, 1, 0, 1]), "points")
        >>> [share.tolist() for share in shares("by-label", points, 2, seed=0)]
        [[0, 2], [1, 3]]
    """
    kind, concentration = parse_split(split)
    samples = len(dataset)
    if replicas < 1:
        raise RequestError(f"A job has at least 1 replica, but got {replicas}.")
    if samples < replicas:
        raise RequestError(
            f"{samples} samples are too few for {replicas} replicas: a rank would get none. "
            f"Use at most {samples} replicas, which is workers times threads."
        )
    if kind == "dirichlet":
        return _dirichlet(dataset, replicas, seed, concentration)
    order = generator(seed, "order of samples", 0).permutation(samples)
    if kind == "by-label":
        order = order[np.argsort(dataset.labels[order], kind="stable")]
    cuts = [samples * rank // replicas for rank in range(1, replicas)]
    return tuple(np.sort(part).astype(np.int64) for part in np.split(order, cuts))


def _dirichlet(dataset: Dataset, replicas: int, seed: int, concentration: float) -> tuple[Indices, ...]:
    if dataset.task == "regression":
        raise RequestError(
            f"The split dirichlet divides classes, but the labels of '{dataset.name}' are quantities. "
            f"Use iid or by-label."
        )
    rng = generator(seed, "dirichlet split")
    owner = np.empty(len(dataset), np.int64)
    for label in np.unique(dataset.labels):
        members = rng.permutation(np.flatnonzero(dataset.labels == label))
        proportions = rng.dirichlet(np.full(replicas, concentration))
        cuts = np.rint(np.cumsum(proportions) * len(members)).astype(np.int64)
        owner[members] = np.searchsorted(cuts[:-1], np.arange(len(members)), side="right")
    counts = np.bincount(owner, minlength=replicas)
    for rank in np.flatnonzero(counts == 0):
        richest = int(counts.argmax())
        owner[np.flatnonzero(owner == richest)[0]] = rank
        counts[richest] -= 1
        counts[rank] = 1
    return tuple(np.flatnonzero(owner == rank) for rank in range(replicas))
