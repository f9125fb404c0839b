"""Draw a graph as a picture (SVG), by its own layout: no other program is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from itertools import pairwise
from typing import Final

from paramserver.autodiff.graph import Graph, Node
from paramserver.autodiff.layout import Box, Layout, lay_out
from paramserver.autodiff.shapes import shape_text
from paramserver.svg import CHARACTER, FONT, opening

MARGIN: Final = 24.0
LAYER_PADDING: Final = 10.0
LAYER_LINE: Final = 6.0
"""Room at the bottom of a layer, beyond its padding, for its name."""

COLOURS: Final = {
    "input": ("#e3f3e6", "#3f8f52"),
    "parameter": ("#fdf1d6", "#c08a1e"),
    "operation": ("#ffffff", "#4a6a94"),
    "result": ("#e4ecfb", "#2f5fb3"),
}
"""Fill and outline by the part that a node plays."""

STYLE: Final = f"""
text {{ font: 12px {FONT}; fill: #1f2933; }}
.name {{ font-weight: 600; text-anchor: middle; }}
.value {{ font-size: 10.5px; fill: #52606d; text-anchor: middle; }}
.layer {{ font-size: 10.5px; font-weight: 600; fill: #7b8794; }}
.title {{ font-size: 15px; font-weight: 600; }}
.edge {{ fill: none; stroke: #7b8794; stroke-width: 1.3; marker-end: url(#arrow); }}
.learnt {{ stroke: #c9a14a; }}
""".strip()


def svg(graph: Graph, title: str = "") -> str:
    """Draw a graph: data in green, parameters in yellow, operations in white, results in blue.

    Args:
        graph: the graph.
        title: a line above it, such as the model's text.

    Returns:
        An SVG document. The same graph gives the same text.
    """
    layout = lay_out(graph, _size)
    total = sum(node.weights for node in graph.parameters)
    summary = f"{len(graph.nodes)} nodes, {total:,} weights in {len(graph.parameters)} tensors"
    head = 44.0
    wide = max(layout.width, CHARACTER * (len(summary) + 2), 9 * len(title)) + 2 * MARGIN
    high = layout.height + 2 * MARGIN + head
    across, down = (wide - layout.width) / 2, MARGIN + head
    read = {name for node in graph.nodes for name in node.inputs}
    lines = [
        opening(wide, high, title or summary),
        f"<style>{STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0.5 L8,4 L0,7.5 z" fill="#7b8794"/></marker></defs>',
        f'<rect width="{wide:.0f}" height="{high:.0f}" fill="#ffffff"/>',
        f'<text class="title" x="{MARGIN:.0f}" y="30">{escape(title or "graph")}</text>',
        f'<text class="layer" x="{MARGIN:.0f}" y="47">{summary}</text>',
        f'<g transform="translate({across:.1f},{down:.1f})">',
        *_layers(graph, layout.boxes),
        *_edges(graph, layout),
        *(line for node in graph.nodes for line in _node(node, layout.boxes[node.name], node.name in read)),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _texts(node: Node) -> tuple[str, str]:
    """Give the two lines in a node's box; its layer is written on the layer's own box."""
    name = node.name.rpartition("/")[2]
    attributes = ", ".join(f"{key} {_short(value)}" for key, value in node.attributes.items())
    parts = [shape_text(node.shape)]
    if node.dtype != "float32":
        parts.append(node.dtype)
    if node.op == "parameter":
        parts.append(f"{node.weights:,}")
    elif node.op != "input":
        said = node.op if name != node.op else ""
        # The value of a reshape shows its attribute already.
        parts = [text for text in (said, "" if node.op == "reshape" else attributes) if text] + parts
    return name, " · ".join(parts)


def _short(value: object) -> str:
    return shape_text(value) if isinstance(value, tuple) else str(value)


def _size(node: Node) -> tuple[float, float]:
    longest = max(len(text) for text in _texts(node))
    return max(longest * CHARACTER * 0.9 + 20, 84.0), 38.0


def _node(node: Node, box: Box, is_read: bool) -> Iterator[str]:
    role = node.op if node.op in COLOURS else "operation" if is_read else "result"
    if node.name == "logits":
        role = "result"
    fill, outline = COLOURS[role]
    radius = box.height / 2 if node.op == "input" else 3 if node.op == "parameter" else 8
    name, value = _texts(node)
    whole = f"{node.name}: {node.op_text}, {node.type_text}"
    yield f"<g><title>{escape(whole)}</title>"
    yield (
        f'<rect x="{box.left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{radius:.0f}" fill="{fill}" stroke="{outline}" stroke-width="1.2"/>'
    )
    yield f'<text class="name" x="{box.centre:.1f}" y="{box.top + 16:.1f}">{escape(name)}</text>'
    yield f'<text class="value" x="{box.centre:.1f}" y="{box.top + 30:.1f}">{escape(value)}</text></g>'


def _layers(graph: Graph, boxes: Mapping[str, Box]) -> Iterator[str]:
    """Draw a box behind the nodes of each layer, where no other node stands in it."""
    members: dict[str, list[str]] = {}
    for node in graph.nodes:
        # A result such as the logits has no layer in its name, but its bias has.
        learnt = [graph[name].layer for name in node.inputs if graph[name].op == "parameter"]
        layer = node.layer or (learnt[0] if learnt else "")
        if layer:
            members.setdefault(layer, []).append(node.name)
    for layer, names in members.items():
        own = [boxes[name] for name in names]
        left = min(box.left for box in own) - LAYER_PADDING
        top = min(box.top for box in own) - LAYER_PADDING
        right = max(box.left + box.width for box in own) + LAYER_PADDING
        bottom = max(box.top + box.height for box in own) + LAYER_PADDING + LAYER_LINE
        if any(
            box.left < right
            and box.left + box.width > left
            and box.top < bottom
            and box.top + box.height > top
            for name, box in boxes.items()
            if name not in names
        ):
            continue
        yield (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" '
            'rx="10" fill="#f3f5f8" stroke="#dde3ea"/>'
        )
        yield f'<text class="layer" x="{left + 8:.1f}" y="{bottom - 4:.1f}">{escape(layer)}</text>'


def _edges(graph: Graph, layout: Layout) -> Iterator[str]:
    for node in graph.nodes:
        target = layout.boxes[node.name]
        sources = [(name, layout.boxes[name]) for name in dict.fromkeys(node.inputs)]
        from_above = sorted(
            (name for name, box in sources if box.top + box.height <= target.top),
            key=lambda name: _last_x(name, node.name, layout),
        )
        for name, box in sources:
            learnt = " learnt" if graph[name].op == "parameter" else ""
            if name not in from_above:  # beside it
                to_right = box.centre < target.centre
                x1, x2 = (
                    (box.left + box.width, target.left)
                    if to_right
                    else (box.left, target.left + target.width)
                )
                y = box.top + box.height / 2
                yield f'<path class="edge{learnt}" d="M{x1:.1f},{y:.1f} H{x2:.1f}"/>'
                continue
            port = from_above.index(name) - (len(from_above) - 1) / 2
            end = (target.centre + port * min(26.0, target.width / (len(from_above) + 1)), target.top)
            points = [(box.centre, box.top + box.height), *layout.bends.get((name, node.name), ()), end]
            yield f'<path class="edge{learnt}" d="{_curve(points)}"/>'


def _last_x(source: str, target: str, layout: Layout) -> float:
    """Give where an edge comes from when it arrives."""
    bends = layout.bends.get((source, target))
    return bends[-1][0] if bends else layout.boxes[source].centre


def _curve(points: list[tuple[float, float]]) -> str:
    """Write a path that leaves and reaches every point straight downwards."""
    parts = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        half = (y1 + y2) / 2
        parts.append(f"C{x1:.1f},{half:.1f} {x2:.1f},{half:.1f} {x2:.1f},{y2:.1f}")
    return " ".join(parts)
