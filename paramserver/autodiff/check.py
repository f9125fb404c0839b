"""Compare gradients with differences of values: the test that a rule is right.

Central differences in float64: the derivative along one element is (f(x + e) - f(x - e)) / 2e, with an error
of the order of e**2 (Press et al., Numerical Recipes, 3rd edition, 2007, section 5.7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from paramserver.autodiff.evaluate import Evaluator
from paramserver.autodiff.graph import Graph
from paramserver.rows import dense
from paramserver.types import AnyArray


def gradient_check(
    graph: Graph,
    output: str,
    feeds: Mapping[str, AnyArray],
    with_respect_to: Iterable[str] | None = None,
    epsilon: float = 1e-6,
) -> dict[str, float]:
    """Measure how far each gradient is from the numeric one.

    The cost is two evaluations for each element of each leaf: use small shapes.

    Args:
        graph: the graph.
        output: the name of a scalar node.
        feeds: an array for each leaf; floats are converted to float64.
        with_respect_to: names of float32 leaves; all parameters by default.
        epsilon: the step of the difference; keep inputs further than this from any kink, such as relu at 0.

    Returns:
        By name the largest difference over the elements, relative where the gradient exceeds 1 in size.
        A right rule stays below 1e-6, far from where values overflow.

    Raises:
        RequestError: as ``Evaluator`` does.

    Example:
        >>> import numpy as np
        >>> from paramserver.autodiff import GraphBuilder
        >>> build = GraphBuilder()
        >>> w = build.parameter("w", (3,))
        >>> _ = build.apply("sum", build.apply("multiply", w, w, name="square"), name="total")
        >>> gradient_check(build.graph(), "total", {"w": np.ones(3)})["w"] < 1e-6
        True
    """
    names = [node.name for node in graph.parameters] if with_respect_to is None else list(with_respect_to)
    doubles = {
        name: np.array(array, dtype=np.float64) if np.asarray(array).dtype.kind == "f" else array
        for name, array in feeds.items()
    }
    evaluator = Evaluator(graph, output, names, float_dtype=np.float64)
    _, gradients = evaluator.value_and_gradients(doubles)
    return {
        name: _largest_difference(dense(gradients[name]), _numeric(evaluator, doubles, name, epsilon))
        for name in names
    }


def _numeric(evaluator: Evaluator, feeds: Mapping[str, AnyArray], name: str, epsilon: float) -> AnyArray:
    moved = feeds[name].copy()
    numeric = np.empty_like(moved)
    for index in np.ndindex(moved.shape):
        there = moved[index]
        moved[index] = there + epsilon
        above = evaluator.value({**feeds, name: moved})
        moved[index] = there - epsilon
        below = evaluator.value({**feeds, name: moved})
        moved[index] = there
        numeric[index] = (above - below) / (2 * epsilon)
    return numeric


def _largest_difference(gradient: AnyArray, numeric: AnyArray) -> float:
    scale = np.maximum(1.0, np.maximum(np.abs(gradient), np.abs(numeric)))
    return float(np.max(np.abs(gradient - numeric) / scale))
