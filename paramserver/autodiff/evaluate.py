"""Walk a graph: forward for values, backward for gradients.

Forward visits nodes in topological order and applies each operation. Backward visits them in reverse: a
node's gradient is complete when all nodes that read it have been visited; its rule then turns it into one
part for each input. Nodes that lie on no path from a wanted parameter to the output are never visited, so
no gradient with respect to the data is computed.

All that one evaluation writes is local to the call: many threads may use one ``Evaluator`` at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from paramserver.autodiff.feeds import Feed, FeedCheck
from paramserver.autodiff.graph import LEAVES, Graph
from paramserver.autodiff.rules import RULES
from paramserver.autodiff.shapes import shape_text
from paramserver.errors import RequestError
from paramserver.types import AnyArray

# Weights that have grown too large give infinity or NaN, not a warning from the middle of a walk: who
# receives the result refuses it by name. (errstate holds for the thread that enters it.)
_SILENT: Final = partial(np.errstate, over="ignore", invalid="ignore", divide="ignore")


class _Step(NamedTuple):
    """One operation of the walk; nodes are given by their positions in the graph."""

    position: int
    inputs: tuple[int, ...]
    attributes: dict[str, Any]
    forward: Callable[..., tuple[Any, Any]]
    vjps: tuple[tuple[int, Callable[..., Any]], ...]  # (input, vjp) where a gradient must flow
    last_read: tuple[int, ...]  # values that no later step reads


class Evaluator:
    """One output of a graph, ready to be computed again and again, with gradients.

    What the output needs is found once, here. An evaluator never changes afterwards.

    Args:
        graph: the graph.
        output: the name of the node to compute.
        with_respect_to: names of float32 leaves whose gradients are wanted; the output must then be ``()``.
        float_dtype: what float32 nodes are computed in; float64 is for numeric checks.

    Raises:
        RequestError: a name is unknown, a gradient does not exist, or the output is no scalar.
    """

    def __init__(
        self,
        graph: Graph,
        output: str,
        with_respect_to: Iterable[str] = (),
        float_dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self._output = graph.position(output)
        self._dtype = np.dtype(float_dtype)
        self._wanted = {name: graph.position(name) for name in with_respect_to}
        if self._wanted and graph[output].shape != ():
            raise RequestError(
                f"A gradient is taken of a scalar, but '{output}' is {shape_text(graph[output].shape)}. "
                "Reduce it with sum or mean."
            )
        needed, reached = _ancestors(graph, self._output)
        active = _descendants(graph, self._wanted.values()) & reached
        for name, position in self._wanted.items():
            if graph.nodes[position].op not in LEAVES or position not in active:
                raise RequestError(
                    f"The gradient of '{output}' with respect to '{name}' does not exist: "
                    f"'{name}' is not a float32 leaf that '{output}' depends on. Leave it out."
                )
        self._steps = _steps(graph, needed, active, self._output)
        self._backward = tuple(step for step in reversed(self._steps) if step.vjps)
        leaves = [graph.nodes[position] for position in needed if graph.nodes[position].op in LEAVES]
        self._feed_check = FeedCheck(graph, leaves, self._dtype)

    def value(self, feeds: Mapping[str, Feed]) -> AnyArray:
        """Compute the output.

        Args:
            feeds: an array for each leaf that the output needs; other leaves of the graph may be there, too.
                A table that is only gathered from may be fed as ``RowValues``.

        Returns:
            The output, in the shape of its node.

        Raises:
            RequestError: a feed is missing, unknown, or of a wrong shape or dtype.
        """
        with _SILENT():
            output, _ = self._forward(feeds)
        return output

    def value_and_gradients(self, feeds: Mapping[str, Feed]) -> tuple[AnyArray, dict[str, Any]]:
        """Compute the output and its gradient with respect to each wanted leaf.

        Returns:
            The output, and by name new C-contiguous arrays that share memory with nothing, each in the shape
            of its leaf; for a table that is only gathered from, a ``RowGradient``.

        Raises:
            RequestError: a feed is missing, unknown, or of a wrong shape or dtype.
        """
        with _SILENT():
            output, kept = self._forward(feeds)
            gradients: dict[int, Any] = {self._output: np.ones((), self._dtype)}
            for position, _, attributes, _, vjps, _ in self._backward:
                g, keep = gradients.pop(position), kept[position]
                for source, vjp in vjps:
                    part = vjp(g, keep, **attributes)
                    gradients[source] = gradients[source] + part if source in gradients else part
                kept[position] = None
        return output, self._separate(gradients)

    def _forward(self, feeds: Mapping[str, Feed]) -> tuple[AnyArray, list[Any]]:
        """Give the output, and what each step's vjps need, by the position of its node."""
        values: list[Any] = self._feed_check(feeds)
        kept: list[Any] = [None] * len(values)
        for position, inputs, attributes, forward, vjps, last_read in self._steps:
            values[position], keep = forward(*[values[source] for source in inputs], **attributes)
            if vjps:
                kept[position] = keep
            for source in last_read:
                values[source] = None
        return values[self._output], kept

    def _separate(self, gradients: Mapping[int, Any]) -> dict[str, Any]:
        """Copy what is a view, or was handed to two leaves; everything else is new already."""
        separate: dict[str, Any] = {}
        seen: set[int] = set()
        for name, position in self._wanted.items():
            gradient = gradients[position]
            if isinstance(gradient, np.generic):  # what NumPy makes of arrays of shape ()
                gradient = np.array(gradient)
            elif isinstance(gradient, np.ndarray):
                flags = gradient.flags
                if not (flags.owndata and flags.c_contiguous) or id(gradient) in seen:
                    gradient = gradient.copy(order="C")
                seen.add(id(gradient))
            separate[name] = gradient
        return separate


def _steps(graph: Graph, needed: list[int], active: Collection[int], output: int) -> tuple[_Step, ...]:
    steps: list[_Step] = []
    read = {output}
    for position in reversed(needed):
        node = graph.nodes[position]
        if node.op in LEAVES:
            continue
        rule = RULES[node.op]
        inputs = tuple(graph.position(name) for name in node.inputs)
        vjps = tuple(
            (source, vjp)
            for source, vjp in zip(inputs, rule.vjps, strict=True)
            if vjp is not None and source in active and position in active
        )
        last_read = tuple(set(inputs) - read)
        read.update(inputs)
        steps.append(_Step(position, inputs, dict(node.attributes), rule.forward, vjps, last_read))
    return tuple(reversed(steps))


def _ancestors(graph: Graph, output: int) -> tuple[list[int], set[int]]:
    """Find what the output is computed from, and from which of these a gradient can flow."""
    needed, reached = {output}, {output}
    for position in range(output, -1, -1):
        node = graph.nodes[position]
        if position not in needed or node.op in LEAVES:
            continue
        for name, vjp in zip(node.inputs, RULES[node.op].vjps, strict=True):
            needed.add(graph.position(name))
            if position in reached and vjp is not None:
                reached.add(graph.position(name))
    return sorted(needed), reached


def _descendants(graph: Graph, sources: Iterable[int]) -> set[int]:
    """Find the nodes whose value changes smoothly with one of the sources, and the sources themselves."""
    found = set(sources)
    for position, node in enumerate(graph.nodes):
        if node.op not in LEAVES and any(
            graph.position(name) in found and vjp is not None
            for name, vjp in zip(node.inputs, RULES[node.op].vjps, strict=True)
        ):
            found.add(position)
    return found
