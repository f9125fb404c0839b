"""All chance of a job, from one seed.

A random choice is a function of the job's seed, a purpose in words and a position (rank, epoch, step).
No generator is shared and none is global, so nothing random depends on the order in which threads run.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """Make the random generator for one purpose at one position.

    Args:
        seed: the job's seed, 0 or more.
        purpose: what the numbers are for, such as ``order of samples``; purposes never share a stream.
        position: further integers of 0 or more, such as rank, epoch and step.

    Example:
        >>> draws = [int(generator(7, "noise", rank).integers(2**62)) for rank in (3, 3, 4)]
        >>> draws[0] == draws[1], draws[1] == draws[2]
        (True, False)
    """
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "little")
    # A spawn key, because a SeedSequence takes [1, 2] and [1, 2, 0] for the same entropy.
    sequence = np.random.SeedSequence(seed, spawn_key=(word, *position))
    return np.random.Generator(np.random.PCG64(sequence))
