"""The computation graph as data: nodes, edges, a listing and a drawing.

A graph is a directed acyclic graph written down in an order in which every node comes after its inputs; so
it needs no search to be walked, and it cannot hold a cycle. Leaves are ``input`` (data) and ``parameter``
(what is learnt); every other node applies one operation of the table in ``rules``. Nodes hold no values:
any number of threads may evaluate one graph at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from paramserver.autodiff.shapes import Shape, shape_text
from paramserver.errors import Fault, RequestError, did_you_mean

DTypeName = Literal["float32", "int64"]
"""The two kinds of values: weights and activations, and labels."""

LEAVES: Final = ("input", "parameter")
"""The operations of nodes whose values are fed."""


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the computation, before it has one.

    Attributes:
        name: unique in its graph; ``layer/what``, such as ``dense1/matmul``.
        op: ``input``, ``parameter``, or an operation of the table.
        inputs: the names of the nodes it is computed from, in the order of the operation's arguments.
        shape: its shape; dimensions may be named, as in ``("batch", 784)``.
        dtype: ``float32`` or ``int64``.
        attributes: keyword arguments of the operation, such as ``{"axis": 0}``.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: Shape
    dtype: DTypeName = "float32"
    attributes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def layer(self) -> str:
        """The part of the name before the last slash; empty where there is none."""
        return self.name.rpartition("/")[0]

    @property
    def place(self) -> str:
        """The node and its layer in words, for error sentences."""
        return f"Node '{self.name}' in layer '{self.layer}'" if self.layer else f"Node '{self.name}'"

    @property
    def type_text(self) -> str:
        """Shape and dtype as in ``(batch, 784) float32``."""
        return f"{shape_text(self.shape)} {self.dtype}"

    @property
    def op_text(self) -> str:
        """The operation with its attributes, as in ``conv2d(stride=1, padding=1)``."""
        attributes = ", ".join(f"{key}={value}" for key, value in self.attributes.items())
        return f"{self.op}({attributes})" if attributes else self.op

    @property
    def weights(self) -> int:
        """How many numbers of it are learnt; 0 for all but parameters."""
        counts = [dimension for dimension in self.shape if isinstance(dimension, int)]
        return math.prod(counts) if self.op == "parameter" else 0


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order.

    Args:
        nodes: every node after its inputs, each name once.

    Raises:
        RequestError: two nodes share a name, or a node comes before one of its inputs.
    """

    nodes: tuple[Node, ...]
    _positions: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        positions: dict[str, int] = {}
        for position, node in enumerate(self.nodes):
            if node.name in positions:
                raise RequestError(f"Two nodes are named '{node.name}'; give each node its own name.")
            for name in node.inputs:
                if name not in positions:
                    raise RequestError(
                        f"{node.place} reads '{name}', which does not come before it. "
                        "List every node after its inputs; a graph has no cycles."
                    )
            positions[node.name] = position
        object.__setattr__(self, "_positions", MappingProxyType(positions))

    def __getitem__(self, name: str) -> Node:
        """Look a node up by its name.

        Raises:
            RequestError: no node has this name.
        """
        return self.nodes[self.position(name)]

    def position(self, name: str) -> int:
        """Give the place of a node in ``nodes``.

        Raises:
            RequestError: no node has this name.
        """
        if name not in self._positions:
            raise RequestError(
                f"The graph has no node '{name}'.{did_you_mean(name, self._positions)}", Fault.UNKNOWN
            )
        return self._positions[name]

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The leaves that are data."""
        return tuple(node for node in self.nodes if node.op == "input")

    @property
    def parameters(self) -> tuple[Node, ...]:
        """The leaves that are learnt."""
        return tuple(node for node in self.nodes if node.op == "parameter")

    def edges(self) -> Iterator[tuple[str, str]]:
        """Give each edge as (from, to), in the order of ``nodes``."""
        for node in self.nodes:
            for name in node.inputs:
                yield name, node.name

    @property
    def tables(self) -> Mapping[str, frozenset[str]]:
        """The parameters that are only read row by row, each with the nodes that name its rows.

        Of such a parameter an evaluation needs no more than the named rows, and its gradient has no others.
        """
        tables: dict[str, frozenset[str]] = {}
        for parameter in self.parameters:
            readers = [node for node in self.nodes if parameter.name in node.inputs]
            if readers and all(
                node.op == "gather" and node.inputs.index(parameter.name) == 0 for node in readers
            ):
                tables[parameter.name] = frozenset(node.inputs[1] for node in readers)
        return tables

    def bypassing(self, op: str) -> Graph:
        """Give the graph in which each node of one operation is replaced by its first input.

        What noise is to training, such as dropout, is left out of prediction in this way.
        """
        stands_for: dict[str, str] = {}
        kept: list[Node] = []
        for node in self.nodes:
            inputs = tuple(stands_for.get(name, name) for name in node.inputs)
            if node.op == op:
                stands_for[node.name] = inputs[0]
            else:
                kept.append(replace(node, inputs=inputs))
        return Graph(tuple(kept))

    def text(self) -> str:
        """List the graph: a line for each node with op, value, weights and inputs, and the totals."""
        rows = [("node", "op", "value", "weights", "from")]
        for node in self.nodes:
            weights = f"{node.weights:,}" if node.op == "parameter" else ""
            rows.append((node.name, node.op_text, node.type_text, weights, ", ".join(node.inputs)))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join(
                cell.rjust(width) if column == 3 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        total = sum(node.weights for node in self.parameters)
        lines.append(f"{len(self.nodes)} nodes; {total:,} weights in {len(self.parameters)} tensors")
        return "\n".join(lines)

    def dot(self) -> str:
        """Draw the graph in Graphviz' language: data as ovals, parameters as folders, operations as boxes."""
        outlines = {"input": "oval", "parameter": "folder"}
        lines = ["digraph {", "  rankdir=BT;"]
        for node in self.nodes:
            label = f"{_quoted(node.name)}\\n{node.op_text}\\n{node.type_text}"
            outline = outlines.get(node.op, "box")
            lines.append(f'  "{_quoted(node.name)}" [shape={outline}, label="{label}"];')
        lines += [f'  "{_quoted(source)}" -> "{_quoted(target)}";' for source, target in self.edges()]
        return "\n".join([*lines, "}"])


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')
