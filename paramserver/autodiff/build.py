"""Build a graph, node by node; every shape is checked on the way.

Example:
    >>> build = GraphBuilder()
    >>> x = build.input("inputs", ("batch", 4))
    >>> w = build.parameter("dense1/weight", (4, 3))
    >>> build.apply("matmul", x, w, name="dense1/matmul").shape
    ('batch', 3)
    >>> len(build.graph().nodes)
    3
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from paramserver.autodiff.graph import DTypeName, Graph, Node
from paramserver.autodiff.rules import RULES
from paramserver.autodiff.shapes import Shape, ShapeError, shape_text
from paramserver.errors import Fault, RequestError, did_you_mean


class GraphBuilder:
    """Collect nodes, then give the finished graph."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def input(self, name: str, shape: Shape, dtype: DTypeName = "float32") -> Node:
        """Add data that is fed; dimensions may be named, as in ``("batch", 784)``.

        Raises:
            RequestError: the name is taken, or a dimension is not a positive count or a name.
        """
        return self._add(name, "input", (), shape, dtype, {})

    def parameter(self, name: str, shape: tuple[int, ...]) -> Node:
        """Add a float32 tensor that is learnt, named by its key.

        Raises:
            RequestError: the name is taken, or a dimension is not a positive count.
        """
        if any(isinstance(dimension, str) for dimension in shape):
            raise RequestError(
                f"Parameter '{name}' has the shape {shape_text(shape)}, but the dimensions of "
                "a parameter are counts. Give a number for each."
            )
        return self._add(name, "parameter", (), shape, "float32", {})

    def apply(self, op: str, *inputs: Node, name: str, **attributes: Any) -> Node:
        """Add a node that applies an operation of the table to earlier nodes.

        Args:
            op: a key of ``RULES``.
            inputs: nodes of this builder, in the order of the operation's arguments.
            name: ``layer/what``, unique in the graph.
            attributes: keyword arguments of the operation, such as ``axis=0``.

        Raises:
            RequestError: no such operation; a wrong number, shape or dtype of inputs (the message names the
                node, its layer and the shapes); an input of another builder; a name that is taken.
        """
        if op not in RULES:
            raise RequestError(f"There is no operation '{op}'.{did_you_mean(op, RULES)}", Fault.UNKNOWN)
        rule = RULES[op]
        place = Node(name, op, (), ()).place
        if len(inputs) != len(rule.vjps):
            raise RequestError(
                f"{place}: {op} takes {len(rule.vjps)} inputs, found {len(inputs)}. Give one node for each."
            )
        for position, node in enumerate(inputs):
            if self._nodes.get(node.name) is not node:
                raise RequestError(
                    f"{place} reads '{node.name}', which is not a node of this builder. "
                    "Build all nodes of a graph with one builder."
                )
            dtype = "int64" if position in rule.integer_inputs else "float32"
            if node.dtype != dtype:
                raise RequestError(
                    f"{place}: input {position + 1} of {op} is {dtype}, but '{node.name}' is "
                    f"{node.type_text}. Connect a node of that dtype."
                )
        found = " and ".join(f"{shape_text(node.shape)} from '{node.name}'" for node in inputs)
        try:
            shape = rule.shape(*(node.shape for node in inputs), **attributes)
        except ShapeError as expected:
            raise RequestError(
                f"{place}: {op} takes {expected}, found {found}. Correct the shapes or the attributes."
            ) from None
        except TypeError as error:
            raise RequestError(
                f"{place}: {op} does not take the attributes {attributes} ({error})."
            ) from None
        return self._add(name, op, tuple(node.name for node in inputs), shape, "float32", attributes)

    def graph(self) -> Graph:
        """Give the graph of all nodes added so far."""
        return Graph(tuple(self._nodes.values()))

    def _add(
        self,
        name: str,
        op: str,
        inputs: tuple[str, ...],
        shape: Shape,
        dtype: DTypeName,
        attributes: Mapping[str, Any],
    ) -> Node:
        node = Node(name, op, inputs, tuple(shape), dtype, MappingProxyType(dict(attributes)))
        if not name or name in self._nodes:
            raise RequestError(f"The name '{name}' is empty or taken; give each node its own name.")
        if any(not dimension or (isinstance(dimension, int) and dimension < 1) for dimension in shape):
            raise RequestError(
                f"{node.place} has the shape {shape_text(shape)}, but a dimension is at least 1, "
                "or has a name. Correct the shape."
            )
        self._nodes[name] = node
        return node
