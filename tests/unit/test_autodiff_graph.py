"""Building a graph: what it lists, and what it refuses."""

from __future__ import annotations

import pytest

from paramserver.autodiff import Graph, GraphBuilder, Node
from paramserver.errors import RequestError


@pytest.fixture
def build() -> GraphBuilder:
    return GraphBuilder()


def small(build: GraphBuilder) -> Graph:
    x, w = build.input("inputs", ("batch", 4)), build.parameter("dense1/weight", (4, 3))
    y = build.apply("matmul", x, w, name="dense1/matmul")
    build.apply("sum", y, name="total", axis=0)
    return build.graph()


def test_nodes_come_after_their_inputs(build: GraphBuilder):
    graph = small(build)
    assert [node.name for node in graph.nodes] == ["inputs", "dense1/weight", "dense1/matmul", "total"]
    assert list(graph.edges()) == [
        ("inputs", "dense1/matmul"),
        ("dense1/weight", "dense1/matmul"),
        ("dense1/matmul", "total"),
    ]
    assert [node.name for node in graph.inputs] == ["inputs"]
    assert [node.name for node in graph.parameters] == ["dense1/weight"]
    assert (graph["dense1/matmul"].layer, graph["total"].layer) == ("dense1", "")


def test_text_lists_name_op_value_and_inputs(build: GraphBuilder):
    assert small(build).text() == (
        "node           op           value               from\n"
        "inputs         input        (batch, 4) float32\n"
        "dense1/weight  parameter    (4, 3) float32\n"
        "dense1/matmul  matmul       (batch, 3) float32  inputs, dense1/weight\n"
        "total          sum(axis=0)  (3,) float32        dense1/matmul"
    )


def test_dot_draws_every_node_and_edge(build: GraphBuilder):
    build.input('odd "name"', (1,))
    dot = small(build).dot()
    assert dot.startswith("digraph {")
    assert '"dense1/matmul" [shape=box, label="dense1/matmul\\nmatmul\\n(batch, 3) float32"];' in dot
    assert '"inputs" -> "dense1/matmul";' in dot
    assert '"odd \\"name\\"" [shape=oval' in dot
    assert dot.count("->") == 3


@pytest.mark.parametrize(
    ("op", "left", "right", "expected"),
    [
        ("matmul", ("batch", 784), (256, 784), "as many columns in the first as rows"),
        ("matmul", ("batch", 4), (4,), "two matrices"),
        ("matmul", (4, "batch"), (4, 2), "two matrices"),
        ("add", ("batch", 10), ("batch", 1), "trailing dimensions"),
        ("add", (10,), (3, 10), "trailing dimensions"),
        ("add", ("batch", 10), ("batch",), "trailing dimensions"),
        ("multiply", ("batch", 10), (9,), "trailing dimensions"),
    ],
)
def test_a_wrong_shape_names_node_layer_and_both_shapes(
    build: GraphBuilder, op: str, left: tuple[int, ...], right: tuple[int, ...], expected: str
):
    a, b = build.input("a", left), build.input("b", right)
    with pytest.raises(RequestError) as caught:
        build.apply(op, a, b, name="dense7/result")
    sentence = str(caught.value)
    assert sentence.startswith(f"Node 'dense7/result' in layer 'dense7': {op} takes ")
    assert expected in sentence
    for node in (a, b):
        shape = str(node.shape).replace("'", "")
        assert f"{shape} from '{node.name}'" in sentence


def test_labels_must_match_the_batch_of_the_logits(build: GraphBuilder):
    logits, labels = build.input("logits", ("batch", 3)), build.input("labels", ("others",), "int64")
    with pytest.raises(RequestError, match=r"of the same batch, found \(batch, 3\) .* \(others,\)"):
        build.apply("softmax_cross_entropy", logits, labels, name="loss")


def test_a_wrong_dtype_is_refused(build: GraphBuilder):
    logits, labels = build.input("logits", ("batch", 3)), build.input("labels", ("batch",))
    with pytest.raises(RequestError, match=r"input 2 of softmax_cross_entropy is int64, but 'labels' is"):
        build.apply("softmax_cross_entropy", logits, labels, name="loss")


def test_a_misspelt_operation_suggests_the_near_one(build: GraphBuilder):
    with pytest.raises(RequestError, match="Did you mean 'matmul'"):
        build.apply("matmull", name="x")


def test_wrong_uses_are_refused(build: GraphBuilder):
    x = build.input("x", ("batch", 4))
    with pytest.raises(RequestError, match="takes 2 inputs, found 1"):
        build.apply("add", x, name="y")
    with pytest.raises(RequestError, match="empty or taken"):
        build.input("x", (1,))
    with pytest.raises(RequestError, match="has axis 2"):
        build.apply("sum", x, name="y", axis=2)
    with pytest.raises(RequestError, match="does not take the attributes"):
        build.apply("relu", x, name="y", slope=0.1)
    with pytest.raises(RequestError, match="not a node of this builder"):
        GraphBuilder().apply("relu", x, name="y")
    with pytest.raises(RequestError, match="at least 1"):
        build.parameter("w", (0, 3))
    with pytest.raises(RequestError, match="a number for each"):
        build.parameter("w", ("batch",))  # type: ignore[arg-type]
    assert [node.name for node in build.graph().nodes] == ["x"]


def test_a_graph_holds_no_cycle_and_no_name_twice():
    a, b = Node("a", "relu", ("b",), (1,)), Node("b", "relu", ("a",), (1,))
    with pytest.raises(RequestError, match="'a' reads 'b', which does not come before it"):
        Graph((a, b))
    leaf = Node("a", "input", (), (1,))
    with pytest.raises(RequestError, match="Two nodes are named 'a'"):
        Graph((leaf, leaf))


def test_an_unknown_node_suggests_the_near_one(build: GraphBuilder):
    with pytest.raises(RequestError, match="Did you mean 'total'"):
        small(build)["totals"]


def test_graphs_built_alike_are_equal():
    first, second = small(GraphBuilder()), small(GraphBuilder())
    assert first == second
    assert hash(first) == hash(second)
