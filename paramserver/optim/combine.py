"""The sum of a round: one expression, whatever the number of shards, servers, threads or blocks.

Floating-point addition is not associative, so the order of a sum is part of its result. Here the order is
a binary tree over rank positions, ``((0+1)+(2+3))+((4+5)+...)``: it depends on ranks alone, never on who
arrived first or on how a tensor was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paramserver.errors import RequestError
from paramserver.optim.base import BLOCK_ELEMENTS, scalar
from paramserver.rows import RowGradient
from paramserver.types import AnyArray, Array


@dataclass(frozen=True)
class _Leaf:
    gradient: Array  # flat
    samples: np.float32


@dataclass(frozen=True)
class _Node:
    left: _Leaf | _Node
    right: _Leaf | _Node


def combine(
    gradients: Sequence[tuple[Array, int] | None], out: Array, block_elements: int = BLOCK_ELEMENTS
) -> int:
    """Write the mean of a round's gradients to `out`, weighted by their samples.

    The leaf of rank i is ``float32(n_i) * g_i``. A rank that is absent, or that brings no samples, is no
    leaf; a node with one child is that child. The root is divided by ``float32(sum of n)``.

    Works in cache-sized blocks; beside `out` it needs one block of memory for each level of the tree.

    Args:
        gradients: for each rank its mean gradient (the shape of `out`, float32) and its number of
            samples, or None where the rank is not in the round.
        out: any shape, float32, C order. It may be the very array of one of the gradients.
        block_elements: elements per block; the result does not depend on it.

    Returns:
        The samples in the round. Where it is 0, `out` has not been touched.

    Raises:
        RequestError: a gradient has another shape or dtype than `out`, or a negative number of
            samples; or `out` is not in C order.

    Example:
        >>> import numpy as np
        >>> mean = np.empty(1, np.float32)
        >>> combine([(np.float32([1.0]), 1), None, (np.float32([3.0]), 3)], mean), mean
        (4, array([2.5], dtype=float32))
    """
    if not out.flags.c_contiguous:
        raise RequestError("The mean of a round is written in place, so 'out' must be in C order.")
    leaves: list[_Leaf | _Node | None] = []
    samples_total = 0
    for rank, entry in enumerate(gradients):
        if entry is None:
            leaves.append(None)
            continue
        gradient, samples = entry
        _check_leaf(rank, gradient, samples, out)
        leaves.append(_Leaf(gradient.reshape(-1), scalar(samples)) if samples else None)
        samples_total += samples
    root = _tree(leaves)
    if root is None:
        return 0
    flat_out, divisor = out.reshape(-1), scalar(samples_total)
    rows = (len(leaves) - 1).bit_length() + 1  # one for each level of the tree
    scratch = np.empty((rows, min(block_elements, flat_out.size)), np.float32)
    for begin in range(0, flat_out.size, block_elements):
        block = slice(begin, begin + block_elements)
        target = flat_out[block]
        sums = scratch[:, : target.size]
        _sum(root, block, sums)
        np.divide(sums[0], divisor, out=target)
    return samples_total


def combine_rows(gradients: Sequence[tuple[RowGradient, int] | None]) -> tuple[RowGradient | None, int]:
    """Compute the mean of a round's row gradients, weighted by their samples: `combine` for sparse tensors.

    A row that a replica has not touched counts as zeros in its gradient, so the mean is the same as that of
    the dense gradients, in the rows that anybody has touched.

    Args:
        gradients: for each rank its mean gradient and its number of samples, or None where the rank is not in
            the round.

    Returns:
        The mean, and the samples in the round; None and 0 where there are no samples.

    Raises:
        RequestError: the gradients belong to tensors of different shapes, or a number of samples is negative.
    """
    nodes: list[RowGradient | None] = []
    samples_total = 0
    for rank, entry in enumerate(gradients):
        gradient, samples = entry or (None, 0)
        _check_samples(samples, rank)
        nodes.append(gradient * scalar(samples) if gradient is not None and samples else None)
        samples_total += samples
    while len(nodes) > 1:
        pairs = zip(nodes[::2], [*nodes[1::2], None], strict=False)
        nodes = [left + right if left and right else left or right for left, right in pairs]
    if not nodes or nodes[0] is None:
        return None, 0
    return nodes[0] / scalar(samples_total), samples_total


def _tree(nodes: list[_Leaf | _Node | None]) -> _Leaf | _Node | None:
    """Pair neighbours until one is left; a parent of one child is that child."""
    while len(nodes) > 1:
        pairs = zip(nodes[::2], [*nodes[1::2], None], strict=False)
        nodes = [_Node(left, right) if left and right else left or right for left, right in pairs]
    return nodes[0] if nodes else None


def _sum(node: _Leaf | _Node, block: slice, scratch: Array) -> None:
    """Write the sum below `node` into the first row of `scratch`; the rows after it are overwritten."""
    if isinstance(node, _Leaf):
        np.multiply(node.gradient[block], node.samples, out=scratch[0])
        return
    _sum(node.left, block, scratch)
    _sum(node.right, block, scratch[1:])
    np.add(scratch[0], scratch[1], out=scratch[0])


def _check_leaf(rank: int, gradient: AnyArray, samples: int, out: Array) -> None:
    if gradient.shape != out.shape or gradient.dtype != np.float32:
        raise RequestError(
            f"The gradient of rank {rank} must be {out.shape} float32 like the mean of its round, "
            f"but it is {gradient.shape} {gradient.dtype}."
        )
    _check_samples(samples, rank)


def _check_samples(samples: int, rank: int) -> None:
    if samples < 0:
        raise RequestError(
            f"A gradient stands for 0 samples or more, but that of rank {rank} says {samples}."
        )
