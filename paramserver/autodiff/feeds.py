"""Check the arrays that are fed to a graph before anything is computed from them.

A wrong array must never reach an operation: NumPy would broadcast or convert it, and the training would go
on with a wrong result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from paramserver.autodiff.graph import LEAVES, Graph, Node
from paramserver.autodiff.shapes import Dimension, shape_text
from paramserver.errors import Fault, RequestError, did_you_mean
from paramserver.rows import RowValues
from paramserver.types import AnyArray

Feed = AnyArray | RowValues
"""What a leaf is fed with: an array, or for a table that is only gathered from, some of its rows."""


class FeedCheck:
    """Check feeds against leaves; named dimensions must agree among all feeds of one call.

    Args:
        graph: the graph; feeds for leaves that are not needed are ignored, other names are refused.
        leaves: the leaves that need an array.
        float_dtype: the dtype of float32 leaves, float64 in a numeric check.
    """

    def __init__(self, graph: Graph, leaves: Iterable[Node], float_dtype: np.dtype[Any]) -> None:
        self._known = frozenset(node.name for node in graph.nodes if node.op in LEAVES)
        self._nodes = len(graph.nodes)
        tables = graph.tables
        self._leaves = tuple(
            (
                graph.position(node.name),
                node,
                float_dtype if node.dtype == "float32" else np.dtype(np.int64),
                (np.ndarray, RowValues) if node.name in tables else (np.ndarray,),
            )
            for node in leaves
        )

    def __call__(self, feeds: Mapping[str, Feed]) -> list[Feed | None]:
        """Give a list with one place for each node of the graph, filled where a leaf is needed.

        Raises:
            RequestError: a feed is missing, unknown, no array, empty, or of a wrong shape or dtype.
        """
        if not feeds.keys() <= self._known:
            name = min(feeds.keys() - self._known)
            raise RequestError(
                f"There is nothing to feed under the name '{name}'.{did_you_mean(name, self._known)}",
                Fault.UNKNOWN,
            )
        values: list[Feed | None] = [None] * self._nodes
        counts: dict[str, int] = {}
        for position, node, dtype, kinds in self._leaves:
            array = feeds.get(node.name)
            if not isinstance(array, kinds) or array.dtype != dtype:
                _refuse(node, dtype, array)
            if array.shape != node.shape and not _agrees(node.shape, array.shape, counts):
                _refuse(node, dtype, array, counts)
            values[position] = array
        return values


def _agrees(expected: tuple[Dimension, ...], found: tuple[int, ...], counts: dict[str, int]) -> bool:
    """Compare two shapes; a name takes the first count it meets, which is at least 1."""
    if len(expected) != len(found):
        return False
    for dimension, count in zip(expected, found, strict=True):
        if isinstance(dimension, str):
            dimension = counts.setdefault(dimension, count or 1)
        if dimension != count:
            return False
    return True


def _refuse(
    node: Node, dtype: np.dtype[Any], array: object, counts: Mapping[str, int] | None = None
) -> NoReturn:
    expected = f"{shape_text(node.shape)} {dtype}"
    if array is None:
        raise RequestError(f"{node.place} takes an array {expected}, found none. Feed '{node.name}'.")
    misfit = isinstance(array, RowValues) and (array.shape != node.shape or array.dtype != dtype)
    if not isinstance(array, np.ndarray | RowValues) or not (misfit or isinstance(array, np.ndarray)):
        raise RequestError(
            f"{node.place} takes an array {expected}, found a {type(array).__name__}. "
            "Make a NumPy array of it first."
        )
    where = "".join(
        f" where {name} is {counts[name]}" for name in node.shape if isinstance(name, str) and name in counts
    ) if counts else ""  # fmt: skip
    advice = "Convert it first." if array.dtype != dtype else "Feed an array of that shape."
    raise RequestError(
        f"{node.place} takes {expected}{where}, found {shape_text(array.shape)} {array.dtype}. {advice}"
    )
