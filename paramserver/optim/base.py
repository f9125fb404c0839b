"""An optimizer is a pair of pure functions, and `apply` walks a tensor with it.

`init` makes the state that belongs to one tensor; `update` turns a gradient into the step to be added to
the weights. Both know nothing of shards, locks or versions, so a new optimizer is two short functions
and never a class. The pair follows optax (DeepMind, `optax/_src/base.py`), except that `update` works in
place: a tensor of 400 MB must not cost a second one in temporaries.

If you write an `update`, keep to three rules, because they make the result the same bytes for any cut of
a tensor into shards and blocks: treat each element by itself, round scalars to float32 once (see
`scalar`), and touch no array but `updates` and `state`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from paramserver.errors import RequestError
from paramserver.types import AnyArray, Array

State = dict[str, Array]
"""State by plain name, such as ``0.adam/m``; each array has the parameter's shape, float32."""

BLOCK_ELEMENTS = 32_768
"""Elements in one block: 128 KiB per array, so that the five arrays of Adam stay in a 1 MiB cache.

Measured with sgd on 100 MB: 33.5 ms with 4,096, 24.8 ms with 32,768, 25.9 ms with 131,072 elements.
"""


@dataclass(frozen=True)
class Optimizer:
    """Hold the two functions of an optimizer, or of one part of a chain.

    Attributes:
        init: makes the state for parameters of any shape, float32.
        update: ``update(updates, state, parameters, count)`` on 1-D blocks of equal length, float32.
            `updates` holds the gradient and afterwards the step to add to the parameters; it and the
            arrays of `state` are changed in place, `parameters` are only read. `count` is the number
            of updates applied before this one.
    """

    init: Callable[[Array], State]
    update: Callable[[Array, State, Array, int], None]


def stateless(update: Callable[[Array, State, Array, int], None]) -> Optimizer:
    """Make an optimizer that keeps no state from its update alone."""
    return Optimizer(lambda parameters: {}, update)


def scalar(value: float) -> np.float32:
    """Round a Python float once, so that all arithmetic with arrays is float32 on every machine."""
    return np.float32(value)


def chain(*parts: Optimizer) -> Optimizer:
    """Run optimizers one after the other, each on what the one before it left.

    Args:
        parts: any number of optimizers; chains may be nested.

    Returns:
        An optimizer whose state names carry the position of the part: ``0.adam/m``.

    Example:
        >>> import numpy as np
        >>> from paramserver.optim import chain, scale_by_adam, scale_by_learning_rate
        >>> adam = chain(scale_by_adam(), scale_by_learning_rate(lambda count: 0.001))
        >>> sorted(adam.init(np.zeros(3, np.float32)))
        ['0.adam/m', '0.adam/v']
    """

    def init(parameters: Array) -> State:
        return {
            f"{position}.{name}": array
            for position, part in enumerate(parts)
            for name, array in part.init(parameters).items()
        }

    def update(updates: Array, state: State, parameters: Array, count: int) -> None:
        own: list[State] = [{} for _ in parts]
        for name, array in state.items():
            position, _, rest = name.partition(".")
            own[int(position)][rest] = array
        for part, part_state in zip(parts, own, strict=True):
            part.update(updates, part_state, parameters, count)

    return Optimizer(init, update)


def apply(
    optimizer: Optimizer,
    parameters: Array,
    gradient: Array,
    state: State,
    count: int,
    out: Array,
    block_elements: int = BLOCK_ELEMENTS,
) -> None:
    """Write the weights after one update to `out`, and advance `state` in place.

    Works in cache-sized blocks and allocates nothing of the tensor's size. The result is the same bytes
    for any block size and for any cut of the tensor.

    Args:
        optimizer: the pair of functions.
        parameters: any shape, float32, C order; only read, for readers may hold it.
        gradient: the same shape, float32; only read.
        state: what `optimizer.init` gave for this tensor; changed in place.
        count: updates applied before this one, which is the shard's version.
        out: the same shape, float32; receives the new weights. Must share no memory with the others.
        block_elements: elements per block.

    Raises:
        RequestError: an array has another shape or dtype, is not in C order, or `out` is one of the inputs.

    Example:
        >>> import numpy as np
        >>> from paramserver.optim import build_optimizer
        >>> weights, gradient = np.ones(2, np.float32), np.full(2, 0.5, np.float32)
        >>> after = np.empty_like(weights)
        >>> apply(build_optimizer("sgd", 0.5, "constant", 1), weights, gradient, {}, 0, after)
        >>> after
        array([0.75, 0.75], dtype=float32)
    """
    arrays = {"parameters": parameters, "gradient": gradient, "out": out}
    arrays |= {f"state '{name}'": array for name, array in state.items()}
    for name, array in arrays.items():
        _check_like(name, array, parameters)
        if name != "out" and np.may_share_memory(array, out):
            raise RequestError(f"The new weights need memory of their own, but 'out' overlaps {name}.")
    flat_parameters, flat_gradient, flat_out = parameters.reshape(-1), gradient.reshape(-1), out.reshape(-1)
    flat_state = {name: array.reshape(-1) for name, array in state.items()}
    for begin in range(0, flat_out.size, block_elements):
        block = slice(begin, begin + block_elements)
        # The block of `out` is the scratch: a buffer of its own would be one more array in the cache
        # (measured: 35 ms against 25 ms on 100 MB).
        updates = flat_out[block]
        np.copyto(updates, flat_gradient[block])
        block_state = {name: array[block] for name, array in flat_state.items()}
        optimizer.update(updates, block_state, flat_parameters[block], count)
        np.add(flat_parameters[block], updates, out=updates)


def _check_like(name: str, array: AnyArray, parameters: Array) -> None:
    if array.shape != parameters.shape or array.dtype != np.float32 or not array.flags.c_contiguous:
        order = "in C order" if array.flags.c_contiguous else "not in C order"
        raise RequestError(
            f"An update expects {name} as {parameters.shape} float32 in C order, like the parameters, "
            f"but found {array.shape} {array.dtype} {order}."
        )
