"""Which samples a replica sees at which step: a function of (seed, epoch, rank, replicas) and nothing else.

An epoch shuffles all samples once, with the same permutation on every replica, and rank r takes the r-th
contiguous share of it. So the replicas' shares are a partition of the data without a word exchanged, and
a restarted replica finds its place by its step alone. Under a skewed split (see `shares`) each rank keeps
its own samples, and shuffles them anew in each epoch.

Nothing is padded, repeated or dropped: where shares are uneven, some ranks have a sample or a step more, and
the last batch of an epoch is smaller where the batch size does not divide the share.
"""

from __future__ import annotations

import numpy as np

from paramserver.data.chance import generator
from paramserver.data.dataset import Dataset, Indices
from paramserver.data.shares import parse_split, shares
from paramserver.errors import Fault, RequestError
from paramserver.types import AnyArray


def assignment(seed: int, epoch: int, rank: int, replicas: int, samples: int) -> Indices:
    """Give the samples of one replica in one epoch, in the order in which it sees them.

    Args:
        seed: the job's seed.
        epoch: from 0.
        rank: the replica's rank, from 0.
        replicas: number of replicas that share the data.
        samples: number of samples in the data set.

    Returns:
        (n,) int64. Together the ranks' indices are a permutation of ``range(samples)``, and their sizes
        differ by at most one.

    Raises:
        RequestError: this rank would get no sample.

    Example:
        >>> shares = [assignment(0, 0, rank, 3, 10) for rank in range(3)]
        >>> [len(share) for share in shares], sorted(int(i) for share in shares for i in share)
        ([3, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    begin, end = _bounds(samples, rank, replicas)
    order = generator(seed, "order of samples", epoch).permutation(samples)
    return order[begin:end].astype(np.int64)


def samples_of_rank(samples: int, rank: int, replicas: int) -> int:
    """Count the samples that a rank sees in each epoch.

    Raises:
        RequestError: this rank would get no sample.
    """
    begin, end = _bounds(samples, rank, replicas)
    return end - begin


def steps_per_epoch(samples_of_rank: int, batch: int) -> int:
    """Count the batches in one epoch; the last one is smaller where they do not divide evenly.

    Args:
        samples_of_rank: samples that the rank sees in an epoch.
        batch: samples in a full batch, at least 1.

    Raises:
        RequestError: the batch is smaller than 1.

    Example:
        >>> steps_per_epoch(10, batch=4)
        3
    """
    if batch < 1:
        raise RequestError(f"A batch needs at least 1 sample, but got {batch}.")
    return -(-samples_of_rank // batch)


def steps_of_rank(samples: int, rank: int, replicas: int, batch: int, epochs: int) -> int:
    """Count the steps of one replica in the whole job.

    The rounds of a synchronous job are the largest count over its ranks; the versions of an asynchronous
    one are their sum.

    Args:
        samples: number of samples in the data set.
        rank: the replica's rank, from 0.
        replicas: number of replicas that share the data.
        batch: samples in a full batch, at least 1.
        epochs: passes over the data.

    Raises:
        RequestError: this rank would get no sample, or a count is too small.
    """
    return _steps(samples_of_rank(samples, rank, replicas), batch, epochs)


def steps_of_ranks(
    dataset: Dataset, replicas: int, batch: int, epochs: int, seed: int, split: str = "iid"
) -> tuple[int, ...]:
    """Count the steps of every replica in the whole job, in rank order.

    Args:
        dataset: the training set.
        replicas: number of replicas that share it.
        batch: samples in a full batch, at least 1.
        epochs: passes over the data, at least 1.
        seed: the job's seed.
        split: ``iid``, ``by-label`` or ``dirichlet:A``.

    Returns:
        For each rank as many steps as its `Batches` have, at least 1.

    Raises:
        RequestError: a rank would get no sample, a count is too small, or the split is unknown.

    Example:
        >>> points = Dataset(np.zeros((5, 1), np.float32), np.array([0, 1, 0, 1, 0]), "points")
        >>> steps_of_ranks(points, replicas=2, batch=2, epochs=3, seed=0)
        (3, 6)
    """
    kind, _ = parse_split(split)
    if kind == "iid":
        return tuple(steps_of_rank(len(dataset), rank, replicas, batch, epochs) for rank in range(replicas))
    return tuple(_steps(len(share), batch, epochs) for share in shares(split, dataset, replicas, seed))


class Batches:
    """Give the batches of one replica by step, in any order and from any step on.

    One thread uses it at a time; threads may take turns. It keeps the order of the epoch last asked for.

    Args:
        dataset: the samples that all replicas share.
        batch: samples in a full batch, at least 1.
        epochs: passes over the data, at least 1.
        seed: the job's seed.
        rank: this replica's rank, from 0.
        replicas: number of replicas that share the data.
        split: ``iid``, ``by-label`` or ``dirichlet:A``.

    Raises:
        RequestError: this rank would get no sample, a count is too small, or the split is unknown.

    Example:
        >>> points = Dataset(np.float32([[0], [1], [2]]), np.array([0, 1, 0]), "points")
        >>> batches = Batches(points, batch=2, epochs=5, seed=0, rank=0, replicas=1)
        >>> batches.steps, [len(batches.batch_at(step)[1]) for step in range(4)]
        (10, [2, 1, 2, 1])
    """

    def __init__(
        self,
        dataset: Dataset,
        batch: int,
        epochs: int,
        seed: int,
        rank: int,
        replicas: int,
        split: str = "iid",
    ) -> None:
        samples = samples_of_rank(len(dataset), rank, replicas)
        kind, _ = parse_split(split)
        self._split = split
        self._shares = None if kind == "iid" else shares(split, dataset, replicas, seed)
        self.steps = _steps(samples if self._shares is None else len(self._shares[rank]), batch, epochs)
        self.steps_per_epoch = self.steps // epochs
        self._dataset = dataset
        self._batch = batch
        self._seed = seed
        self._rank = rank
        self._replicas = replicas
        self._order: tuple[tuple[int, int, int], Indices] | None = None  # a share of an epoch

    def batch_at(self, step: int) -> tuple[AnyArray, AnyArray]:
        """Copy the batch of one step of the job.

        Args:
            step: from 0, over all epochs.

        Returns:
            inputs (n, features) and labels (n,) of the data set's dtypes, where n is the batch size or, in
            the last step of an epoch, what is left.

        Raises:
            RequestError: the job has no such step.
        """
        if not 0 <= step < self.steps:
            raise RequestError(
                f"Rank {self._rank} has the steps 0 to {self.steps - 1}, but step {step} was asked for.",
                Fault.OUT_OF_RANGE,
            )
        epoch, position = divmod(step, self.steps_per_epoch)
        return self.batch_of(epoch, self._rank, self._replicas, position)

    def batch_of(self, epoch: int, place: int, places: int, position: int) -> tuple[AnyArray, AnyArray]:
        """Copy one batch of one share of an epoch, whosever it is.

        Args:
            epoch: from 0.
            place: whose share, from 0.
            places: how many share the epoch.
            position: of the batch in the share, from 0.

        Returns:
            As `batch_at`.

        Raises:
            RequestError: there is no such share.
        """
        whose = (epoch, place, places)
        if self._order is None or self._order[0] != whose:
            self._order = (whose, self._order_of(*whose))
        order = self._order[1]
        return self._dataset[order[position * self._batch : (position + 1) * self._batch]]

    def _order_of(self, epoch: int, place: int, places: int) -> Indices:
        if parse_split(self._split)[0] == "iid":
            return assignment(self._seed, epoch, place, places, len(self._dataset))
        if self._shares is None or len(self._shares) != places:
            self._shares = shares(self._split, self._dataset, places, self._seed)
        return generator(self._seed, "order of a share", epoch, place).permutation(self._shares[place])


def _steps(samples: int, batch: int, epochs: int) -> int:
    if epochs < 1:
        raise RequestError(f"A job needs at least 1 epoch, but got {epochs}.")
    return epochs * steps_per_epoch(samples, batch)


def _bounds(samples: int, rank: int, replicas: int) -> tuple[int, int]:
    if not 0 <= rank < replicas:
        raise RequestError(
            f"With {replicas} replicas, ranks go from 0 to {replicas - 1}, but got rank {rank}."
        )
    begin, end = samples * rank // replicas, samples * (rank + 1) // replicas
    if begin == end:
        raise RequestError(
            f"{samples} samples are too few for {replicas} replicas: rank {rank} would get none. "
            f"Use at most {samples} replicas, which is workers times threads."
        )
    return begin, end
