"""Clip a gradient by its global norm: on the replica, before the push.

It needs the whole gradient, and a shard sees only its part; so this is no part of an optimizer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from paramserver.errors import RequestError
from paramserver.optim.base import BLOCK_ELEMENTS
from paramserver.rows import Gradients, RowGradient


def global_norm(gradients: Gradients) -> float:
    """Compute the root of the sum of all squares, over all tensors in key order.

    Args:
        gradients: float32 arrays or row gradients by key.

    Returns:
        The norm, summed in float64, so that no square of a float32 overflows.
    """
    total = 0.0
    for key in sorted(gradients):
        gradient = gradients[key]
        flat = (gradient.rows if isinstance(gradient, RowGradient) else gradient).reshape(-1)
        for begin in range(0, flat.size, BLOCK_ELEMENTS):
            block = flat[begin : begin + BLOCK_ELEMENTS].astype(np.float64)
            total += float(np.dot(block, block))
    return math.sqrt(total)


def clip_by_global_norm(gradients: Gradients, norm_max: float) -> tuple[dict[str, Any], float]:
    """Scale a gradient down to a largest norm; its direction stays.

    Pascanu, Mikolov and Bengio, 2013, "On the difficulty of training recurrent neural networks",
    algorithm 1.

    Args:
        gradients: float32 arrays or row gradients by key; only read.
        norm_max: the largest norm that stays as it is, above 0.

    Returns:
        The gradients, new ones where they were scaled, and the norm before. A gradient that is not finite
        is returned as it is: whoever sends it refuses it by name.

    Raises:
        RequestError: the largest norm is not above 0.

    Example:
        >>> clipped, norm = clip_by_global_norm({"a": np.float32([3]), "b": np.float32([4])}, 2.5)
        >>> clipped, norm
        ({'a': array([1.5], dtype=float32), 'b': array([2.], dtype=float32)}, 5.0)
    """
    if not norm_max > 0:
        raise RequestError(f"A gradient is clipped to a norm above 0, but this one is {norm_max}.")
    norm = global_norm(gradients)
    if not math.isfinite(norm) or norm <= norm_max:
        return dict(gradients), norm
    factor = np.float32(norm_max / norm)
    return {key: gradient * factor for key, gradient in gradients.items()}, norm
