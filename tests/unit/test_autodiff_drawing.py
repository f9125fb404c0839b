"""A drawing shows every node and edge, and no box lies on another."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import combinations

import pytest

from paramserver.autodiff import Graph, GraphBuilder, svg
from paramserver.autodiff.layout import COLUMN_GAP, ROW_GAP, Layout, lay_out

SVG = "{http://www.w3.org/2000/svg}"


def diamond() -> Graph:
    """A graph with a long edge, two data leaves, a norm, and a parameter that is read twice."""
    build = GraphBuilder()
    x, y = build.input("x", ("batch", 4)), build.input("y <late>", ("batch", 4))
    w = build.parameter("one/w", (4, 4))
    gain, offset = build.parameter("one/gain", (4,)), build.parameter("one/offset", (4,))
    first = build.apply("matmul", x, w, name="one/first")
    norm = build.apply("layer_norm", first, gain, offset, name="one/norm")
    second = build.apply("matmul", norm, w, name="second")
    third = build.apply("relu", second, name="third")
    skip = build.apply("add", third, x, name="skip")
    build.apply("add", skip, y, name="end")
    return build.graph()


def overlaps(layout: Layout) -> list[tuple[str, str]]:
    return [
        (a, b)
        for (a, one), (b, two) in combinations(layout.boxes.items(), 2)
        if one.left < two.left + two.width
        and two.left < one.left + one.width
        and one.top < two.top + two.height
        and two.top < one.top + one.height
    ]


def test_boxes_stand_apart_and_inside():
    layout = lay_out(diamond(), lambda node: (60 + 5 * len(node.name), 40))
    assert set(layout.boxes) == {node.name for node in diamond().nodes}
    assert overlaps(layout) == []
    for box in layout.boxes.values():
        assert box.left >= -1e-9
        assert box.left + box.width <= layout.width + 1e-9
        assert 0 <= box.top <= layout.height - 40


def test_the_path_of_the_computation_is_straight_and_goes_down():
    layout = lay_out(diamond(), lambda node: (80, 40))
    path = [layout.boxes[name] for name in ("one/first", "one/norm", "second", "third", "skip", "end")]
    assert [box.top for box in path] == [40 + ROW_GAP + 70 * i for i in range(6)]
    assert all(box.centre == pytest.approx(path[0].centre, abs=0.01) for box in path)


def test_parameters_stand_beside_their_reader_and_data_just_above():
    boxes = lay_out(diamond(), lambda node: (80, 40)).boxes
    assert boxes["one/w"].top == boxes["one/first"].top
    assert boxes["one/w"].left + 80 + COLUMN_GAP == pytest.approx(boxes["one/first"].left)
    assert boxes["one/gain"].left < boxes["one/norm"].left < boxes["one/offset"].left
    assert boxes["y <late>"].top == boxes["skip"].top


def test_a_long_edge_goes_around_what_is_between():
    layout = lay_out(diamond(), lambda node: (80, 40))
    assert set(layout.bends) == {("x", "skip")}
    bends = layout.bends["x", "skip"]
    assert [y for _, y in bends] == [90, 160, 230, 300]
    for x, y in bends:
        inside = [b for b in layout.boxes.values() if b.top < y < b.top + 40 and b.left < x < b.left + 80]
        assert inside == []


def test_svg_is_sound_and_shows_all():
    graph = diamond()
    text = svg(graph, title='a "small" <graph>')
    assert text == svg(diamond(), title='a "small" <graph>')
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == 'a "small" <graph>'
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles == [f"{node.name}: {node.op_text}, {node.type_text}" for node in graph.nodes]
    edges = [path for path in root.iter(f"{SVG}path") if (path.get("class") or "").startswith("edge")]
    assert len(edges) == len(list(graph.edges()))
    words = {element.text for element in root.iter(f"{SVG}text")}
    assert {"first", "(batch, 4)", "(4, 4) \u00b7 16", "one", "11 nodes, 24 weights in 3 tensors"} <= words


def test_a_layer_gets_no_box_where_another_node_stands_in_it():
    build = GraphBuilder()
    x = build.input("x", (2,))
    first = build.apply("relu", x, name="a/first")
    between = build.apply("relu", first, name="b/between")
    build.apply("relu", between, name="a/last")
    words = {element.text for element in ElementTree.fromstring(svg(build.graph())).iter(f"{SVG}text")}
    assert "a" not in words
    assert "b" in words


def test_an_empty_graph_and_a_lone_parameter_are_drawn():
    assert "0 nodes" in svg(Graph(()))
    build = GraphBuilder()
    build.parameter("w", (3,))
    assert "1 nodes, 3 weights" in svg(build.graph())
