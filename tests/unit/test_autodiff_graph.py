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


def test_text_lists_name_op_value_weights_and_inputs(build: GraphBuilder):
    assert small(build).text() == (
        "node           op           value               weights  from\n"
        "inputs         input        (batch, 4) float32\n"
        "dense1/weight  parameter    (4, 3) float32           12\n"
        "dense1/matmul  matmul       (batch, 3) float32           inputs, dense1/weight\n"
        "total          sum(axis=0)  (3,) float32                 dense1/matmul\n"
        "4 nodes; 12 weights in 1 tensors"
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
        ("conv2d", ("batch", 4, 4), (2, 3, 3, 1), "images (batch, height, width, channels)"),
        ("conv2d", ("batch", 4, 4, 2), (2, 3, 3, 1), "of as many channels"),
        ("conv2d", ("batch", 2, 4, 1), (2, 3, 3, 1), "no larger than the image"),
        ("squared_error", ("batch",), ("batch", 1), "two inputs (batch,)"),
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


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "expected"),
    [
        ("max_pool", ("batch", 4, 4, 2), {"size": 5}, "a square of 5 x 5"),
        ("average_pool", ("batch", 4, 4), {"size": 2}, r"images \(batch, height"),
        ("reshape", ("batch", 6), {"shape": (2, 2)}, r"as many values for each sample as \(2, 2\) has"),
        ("flatten", ("batch", 6, "width"), {}, "every dimension after the first is a count"),
        ("softmax", (), {}, "at least one axis"),
    ],
)
def test_an_attribute_that_does_not_fit_is_refused(
    build: GraphBuilder, op: str, shape: tuple[int, ...], attributes: dict[str, object], expected: str
):
    with pytest.raises(RequestError, match=expected):
        build.apply(op, build.input("x", shape), name="y", **attributes)


def test_dropout_needs_chance_of_its_shape_and_a_share(build: GraphBuilder):
    x, chance = build.input("x", ("batch", 4)), build.input("chance", ("batch", 3))
    for other, rate in ((chance, 0.5), (x, 1.0), (x, -0.1)):
        with pytest.raises(RequestError, match="same shape, and a rate from 0"):
            build.apply("dropout", x, other, name="y", rate=rate)


def test_bypassing_connects_what_reads_a_node_to_its_first_input(build: GraphBuilder):
    x, chance = build.input("x", ("batch", 4)), build.input("chance", ("batch", 4))
    once = build.apply("dropout", x, chance, name="once", rate=0.5)
    twice = build.apply("dropout", once, chance, name="twice", rate=0.5)
    build.apply("add", twice, once, name="y")
    graph = build.graph().bypassing("dropout")
    assert [node.name for node in graph.nodes] == ["x", "chance", "y"]
    assert graph["y"].inputs == ("x", "x")


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
