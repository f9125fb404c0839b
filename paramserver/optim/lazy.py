"""Apply a gradient that has only some rows of a tensor: only these rows and their state change.

That is what makes a table of millions of rows affordable, and it is not the same as applying the gradient
with zeros in all other rows. A row that no batch has touched:

* keeps its velocity (momentum, nesterov) and its moments (adam, adamw, rmsprop) as they were, while with
  zeros they would decay, and the velocity would move the row on;
* is not made smaller by weight decay;
* is the same either way under sgd and adagrad, where a gradient of 0 changes nothing.

A touched row is updated as if it had been touched at every version: schedules and Adam's bias correction use
the shard's count, so in its first updates a rare row takes smaller steps than at the beginning of the job
(as in PyTorch's ``SparseAdam``).
"""

from __future__ import annotations

import math

import numpy as np

from paramserver.errors import RequestError
from paramserver.optim.base import BLOCK_ELEMENTS, Optimizer, State
from paramserver.rows import RowIndices, check_rows
from paramserver.types import Array


def apply_rows(
    optimizer: Optimizer,
    parameters: Array,
    indices: RowIndices,
    rows: Array,
    state: State,
    count: int,
    out: Array,
    block_elements: int = BLOCK_ELEMENTS,
) -> None:
    """Write the touched rows after one update to `out`, and advance their state in place.

    Args:
        optimizer: the pair of functions.
        parameters: ``(rows, ...) float32``; only read, for readers may hold it.
        indices: ``(n,) int64``, ascending, each once: the rows that the gradient has.
        rows: ``(n, ...) float32``: the gradient of these rows; only read.
        state: what `optimizer.init` gave for the whole tensor; the touched rows are changed in place.
        count: updates applied before this one, which is the shard's version.
        out: the shape of `parameters`, float32. Its touched rows receive the new weights, and nothing else
            in it is written: give a copy of `parameters`, or `parameters` itself where nobody reads it.
        block_elements: elements per block; the result does not depend on it.

    Raises:
        RequestError: indices or rows do not fit the tensor, or an array has another shape or dtype.

    Example:
        >>> from paramserver.optim import build_optimizer
        >>> weights, gradient = np.ones((4, 1), np.float32), np.float32([[0.5]])
        >>> sgd = build_optimizer("sgd", 0.5, "constant", 1)
        >>> apply_rows(sgd, weights, np.array([2]), gradient, {}, 0, out=weights)
        >>> weights.ravel()
        array([1.  , 1.  , 0.75, 1.  ], dtype=float32)
    """
    check_rows("An update of rows", indices, rows, parameters.shape)
    arrays = {"parameters": parameters, "out": out, **{f"state '{name}'": state[name] for name in state}}
    for name, array in arrays.items():
        if array.shape != parameters.shape or array.dtype != np.float32:
            raise RequestError(
                f"An update of rows expects {name} as {parameters.shape} float32, like the parameters, "
                f"but found {array.shape} {array.dtype}."
            )
    if rows.dtype != np.float32:
        raise RequestError(f"An update of rows expects rows of float32, but found {rows.dtype}.")
    rows_of_block = max(block_elements // max(math.prod(parameters.shape[1:]), 1), 1)
    for begin in range(0, len(indices), rows_of_block):
        touched = indices[begin : begin + rows_of_block]
        updates = rows[begin : begin + rows_of_block].copy()
        weights = parameters[touched]
        block_state = {name: array[touched] for name, array in state.items()}
        flat_state = {name: array.reshape(-1) for name, array in block_state.items()}
        optimizer.update(updates.reshape(-1), flat_state, weights.reshape(-1), count)
        for name, array in block_state.items():
            state[name][touched] = array
        out[touched] = weights + updates
