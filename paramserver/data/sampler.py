"""The indices of one replica for a training loop of your own, under the names that PyTorch uses.

Samples are dealt as `paramserver.data.assignment` deals them. PyTorch's class of this name pads: it repeats
samples until all ranks have equally many. This one never does; the shares differ by at most one sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np

from paramserver.data.batches import assignment, samples_of_rank
from paramserver.errors import RequestError


class DistributedSampler:
    """Iterate over the positions of the samples that one rank sees in one epoch.

    Call ``set_epoch`` before each epoch; without it every epoch has the same order.

    Args:
        dataset: anything with a length.
        num_replicas: number of ranks that share the data, at least 1.
        rank: this rank, from 0.
        shuffle: deal anew in each epoch; without it, rank r has the r-th contiguous share in order.
        seed: of the order; the same on all ranks.
        drop_last: leave out up to ``num_replicas - 1`` samples of an epoch, so that all ranks have equally
            many. Without it nothing is left out, and nothing is repeated to fill up either: some ranks have
            one sample more than others.

    Raises:
        RequestError: this rank would get no sample, or there is no such rank.

    Example:
        >>> samplers = [DistributedSampler(range(10), num_replicas=3, rank=rank) for rank in range(3)]
        >>> [len(sampler) for sampler in samplers]
        [3, 3, 4]
        >>> sorted(index for sampler in samplers for index in sampler)
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int,
        rank: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.num_replicas = num_replicas
        self.rank = rank
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0
        self._samples = len(dataset)
        mine = samples_of_rank(self._samples, rank, num_replicas)
        self._length = self._samples // num_replicas if drop_last else mine
        if not self._length:
            raise RequestError(
                f"{self._samples} samples are too few for {num_replicas} replicas: with drop_last each would "
                f"get none. Use fewer replicas, or drop_last=False."
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, whose order the next iteration gives.

        Raises:
            RequestError: the epoch is negative.
        """
        if epoch < 0:
            raise RequestError(f"Epochs go from 0 up, but got {epoch}.")
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            share = assignment(self.seed, self.epoch, self.rank, self.num_replicas, self._samples)
        else:
            begin = self._samples * self.rank // self.num_replicas
            share = np.arange(begin, begin + self._length)
        return iter(share[: self._length].tolist())

    def __len__(self) -> int:
        return self._length
