"""Places for the nodes of a graph, layer under layer, for a drawing.

The method is that of Sugiyama, Tagawa and Toda (Methods for visual understanding of hierarchical system
structures, 1981), made small: a row for each node is its longest way from the inputs; the order within a row
follows the rows above and below; each node then goes as near under its first input as its neighbours allow.
Two habits make drawings of models readable: a parameter stands beside the first node that reads it, and data
stands in the row just above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from paramserver.autodiff.graph import LEAVES, Graph, Node

COLUMN_GAP: Final = 28.0
ROW_GAP: Final = 30.0
SWEEPS: Final = 4
"""Passes over the rows to order them; more change nothing in graphs of models."""

LEAF_WEIGHT: Final = 1e-6
BEND_WEIGHT: Final = 1e-5
"""How strongly data, and the bends of long edges, hold their places against operations, which hold with 1:
the path of the computation stays straight."""


class Box(NamedTuple):
    """A rectangle, in pixels: its left and top edges, its width and height."""

    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> float:
        """The middle between left and right."""
        return self.left + self.width / 2


@dataclass(frozen=True)
class Layout:
    """A drawing before it has colours.

    Attributes:
        boxes: of each node, by name.
        bends: by edge (from, to) the points between its ends, from top to bottom; most edges have none.
        width: of the whole.
        height: of the whole.
    """

    boxes: Mapping[str, Box]
    bends: Mapping[tuple[str, str], Sequence[tuple[float, float]]]
    width: float
    height: float


@dataclass(eq=False)
class _Item:
    """A node of a row with the parameters beside it, or a bend of a long edge."""

    name: str
    width: float
    beside: tuple[list[str], list[str]]  # parameters to the left and to the right
    left: float  # from the middle of the node to the left end of all
    right: float
    weight: float
    above: list[_Item]  # neighbours in the row above, the first input first
    below: list[_Item]
    x: float = 0.0


def lay_out(graph: Graph, size: Callable[[Node], tuple[float, float]]) -> Layout:
    """Place all nodes of a graph.

    Args:
        graph: the graph.
        size: gives width and height of a node's box.

    Example:
        >>> from paramserver.autodiff import GraphBuilder
        >>> build = GraphBuilder()
        >>> x = build.input("x", ("batch", 2))
        >>> _ = build.apply("relu", x, name="y")
        >>> layout = lay_out(build.graph(), lambda node: (80, 40))
        >>> layout.boxes["x"][:2], layout.boxes["y"][:2]
        ((0.0, 0.0), (0.0, 70.0))
    """
    homes = _homes(graph)
    ranks = _ranks(graph, homes)
    sizes = {node.name: size(node) for node in graph.nodes}
    rows, bends = _rows(graph, homes, ranks, {name: width for name, (width, _) in sizes.items()})
    _order(rows)
    _straighten(rows)
    left = min((item.x - item.left for row in rows for item in row), default=0.0)
    right = max((item.x + item.right for row in rows for item in row), default=0.0)
    boxes: dict[str, Box] = {}
    middles: list[float] = []
    top = 0.0
    for row in rows:
        names = [
            name for item in row for name in (item.name, *item.beside[0], *item.beside[1]) if name in sizes
        ]
        height = max(sizes[name][1] for name in names)
        middles.append(top + height / 2)
        for item in row:
            if item.name in sizes:
                for name, begin in _side_by_side(item, sizes):
                    width, tall = sizes[name]
                    boxes[name] = Box(begin - left, top + (height - tall) / 2, width, tall)
        top += height + ROW_GAP
    points = {edge: [(item.x - left, middles[rank]) for rank, item in chain] for edge, chain in bends.items()}
    return Layout(boxes, points, right - left, max(top - ROW_GAP, 0.0))


def _homes(graph: Graph) -> dict[str, str]:
    """Give for each parameter that is read the first node that reads it."""
    homes: dict[str, str] = {}
    for node in graph.nodes:
        for name in node.inputs:
            if graph[name].op == "parameter":
                homes.setdefault(name, node.name)
    return homes


def _ranks(graph: Graph, homes: Mapping[str, str]) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for node in graph.nodes:
        if node.name not in homes:
            above = [ranks[name] for name in node.inputs if name not in homes]
            ranks[node.name] = max(above, default=-1) + 1
    for node in graph.nodes:  # data goes down to the row just above its first reader
        readers = [ranks[other.name] for other in graph.nodes if node.name in other.inputs]
        if node.op in LEAVES and node.name in ranks and readers:
            ranks[node.name] = max(min(readers) - 1, 0)
    return ranks


def _rows(
    graph: Graph, homes: Mapping[str, str], ranks: Mapping[str, int], widths: Mapping[str, float]
) -> tuple[list[list[_Item]], dict[tuple[str, str], list[tuple[int, _Item]]]]:
    rows: list[list[_Item]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    items: dict[str, _Item] = {}
    bends: dict[tuple[str, str], list[tuple[int, _Item]]] = {}
    for node in graph.nodes:
        if node.name in homes:
            continue
        beside = [name for name, home in homes.items() if home == node.name]
        sides = beside[::2], beside[1::2]
        left, right = (widths[node.name] / 2 + sum(widths[n] + COLUMN_GAP for n in side) for side in sides)
        weight = LEAF_WEIGHT if node.op in LEAVES else 1.0
        item = items[node.name] = _Item(node.name, widths[node.name], sides, left, right, weight, [], [])
        rows[ranks[node.name]].append(item)
    for source, target in graph.edges():
        if source in homes:
            continue
        last = items[source]
        for rank in range(ranks[source] + 1, ranks[target]):
            bend = _Item("", 0.0, ([], []), 0.0, 0.0, BEND_WEIGHT, [], [])
            rows[rank].append(bend)
            bends.setdefault((source, target), []).append((rank, bend))
            _connect(last, bend)
            last = bend
        _connect(last, items[target])
    for row in rows:
        row.sort(key=lambda item: item.weight == LEAF_WEIGHT)  # data to the right, parameters are on the left
    return rows, bends


def _connect(upper: _Item, lower: _Item) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _order(rows: list[list[_Item]]) -> None:
    """Sort each row by the mean place of its neighbours above, then of those below, and again."""
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        for row in rows if downwards else reversed(rows):
            places = {id(item): place for other in rows for place, item in enumerate(other)}

            def mean(item: _Item, down: bool = downwards, at: dict[int, int] = places) -> float:
                neighbours = item.above if down else item.below
                own = [at[id(neighbour)] for neighbour in neighbours]
                return sum(own) / len(own) if own else at[id(item)]

            row.sort(key=mean)


def _straighten(rows: list[list[_Item]]) -> None:
    """Put each item under its first input, or above its first reader, as nearly as its row allows."""
    for downwards in (True, False, True):
        for row in rows if downwards else reversed(rows):
            wishes = []
            for item in row:
                leads = [below for below in item.below if below.above[0] is item]
                if item.above:
                    wish = item.above[0].x
                else:
                    wish = item.below[0].x if item.below else item.x
                wishes.append(leads[0].x if leads and not downwards and item.weight < 1 else wish)
            _place(row, wishes)


def _place(row: list[_Item], wishes: list[float]) -> None:
    """Find the places nearest to the wishes (weighted least squares) that keep the order and the gaps.

    Pool adjacent violators (Ayer et al., 1955): neighbours that want to overlap are moved together.
    """
    offsets = [0.0]
    for before, item in pairwise(row):
        offsets.append(offsets[-1] + before.right + COLUMN_GAP + item.left)
    pools: list[tuple[float, float, int]] = []  # place, weight, members
    for item, wish, offset in zip(row, wishes, offsets, strict=True):
        place, weight, members = wish - offset, item.weight, 1
        while pools and pools[-1][0] > place:
            other, other_weight, other_members = pools.pop()
            place = (place * weight + other * other_weight) / (weight + other_weight)
            weight, members = weight + other_weight, members + other_members
        pools.append((place, weight, members))
    places = [place for place, _, members in pools for _ in range(members)]
    for item, place, offset in zip(row, places, offsets, strict=True):
        item.x = place + offset


def _side_by_side(item: _Item, sizes: Mapping[str, tuple[float, float]]) -> list[tuple[str, float]]:
    """Give the left edge of a node and of the parameters beside it."""
    found = [(item.name, item.x - item.width / 2)]
    begin = item.x - item.width / 2
    for name in item.beside[0]:
        begin -= COLUMN_GAP + sizes[name][0]
        found.append((name, begin))
    begin = item.x + item.width / 2
    for name in item.beside[1]:
        found.append((name, begin + COLUMN_GAP))
        begin += COLUMN_GAP + sizes[name][0]
    return found
