"""The words every module shares: arrays, tensors and keys.

Keys order everything that must be the same on all sides: placement, hashes and sums walk tensors in
sorted key order, never in the order of a dictionary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
"""Weights and gradients: float32, any shape, C order."""

AnyArray = npt.NDArray[Any]
"""An array whose dtype has not been checked yet."""

Tensors = Mapping[str, Array]
"""Tensors by key, such as ``{"dense1/weight": (64, 128) float32}``."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by key."""

Empty = Callable[[tuple[int, ...]], Array]
"""Makes a float32 array of a shape, in C order, with any content."""


def empty(shape: tuple[int, ...]) -> Array:
    """Return a fresh float32 array with any content."""
    return np.empty(shape, np.float32)


def tensors_sha256(tensors: Tensors) -> str:
    """Hash the bytes of all tensors in key order.

    Args:
        tensors: float32 arrays of any shape.

    Returns:
        SHA-256 in hexadecimal over the little-endian float32 bytes of each tensor in C order. Keys and
        shapes are not hashed.

    Example:
        >>> import numpy as np
        >>> tensors_sha256({"b": np.zeros(2, np.float32)})[:8]
        'af5570f5'
    """
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[key], dtype="<f4").data)
    return digest.hexdigest()
