"""Walking a graph: what is fed, what is visited, what comes back."""

from __future__ import annotations

import numpy as np
import pytest

from paramserver.autodiff import RULES, Evaluator, Graph, GraphBuilder, Rule, gradient_check
from paramserver.errors import RequestError


def perceptron() -> Graph:
    build = GraphBuilder()
    x, y = build.input("inputs", ("batch", 4)), build.input("labels", ("batch",), "int64")
    w, b = build.parameter("dense1/weight", (4, 3)), build.parameter("dense1/bias", (3,))
    z = build.apply("matmul", x, w, name="dense1/matmul")
    logits = build.apply("add", z, b, name="dense1/add")
    build.apply("softmax_cross_entropy", logits, y, name="loss")
    return build.graph()


def feeds(batch: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "inputs": rng.standard_normal((batch, 4), dtype=np.float32),
        "labels": rng.integers(0, 3, batch),
        "dense1/weight": rng.standard_normal((4, 3), dtype=np.float32),
        "dense1/bias": rng.standard_normal(3, dtype=np.float32),
    }


def test_a_value_needs_only_what_it_is_computed_from():
    given = feeds()
    expected = given["inputs"] @ given["dense1/weight"] + given["dense1/bias"]
    logits = Evaluator(perceptron(), "dense1/add")
    assert np.array_equal(logits.value(given), expected)
    del given["labels"]
    assert np.array_equal(logits.value(given), expected)
    with pytest.raises(RequestError, match="Feed 'labels'"):
        Evaluator(perceptron(), "loss").value(given)


def test_nothing_is_computed_with_respect_to_the_data(monkeypatch: pytest.MonkeyPatch):
    def never(g: np.ndarray, kept: object) -> np.ndarray:
        raise AssertionError("the gradient of the data was computed")

    rule = RULES["matmul"]
    monkeypatch.setitem(RULES, "matmul", Rule(rule.shape, rule.forward, (never, rule.vjps[1])))
    evaluator = Evaluator(perceptron(), "loss", ["dense1/weight"])
    assert set(evaluator.value_and_gradients(feeds())[1]) == {"dense1/weight"}


def test_gradient_check_covers_all_parameters_by_default():
    differences = gradient_check(perceptron(), "loss", feeds())
    assert set(differences) == {"dense1/weight", "dense1/bias"}
    assert max(differences.values()) < 1e-8


def test_a_node_read_twice_adds_its_gradients():
    build = GraphBuilder()
    w = build.parameter("w", (2, 2))
    square = build.apply("matmul", w, w, name="square")
    again = build.apply("add", square, w, name="again")
    build.apply("sum", build.apply("multiply", again, square, name="product"), name="total")
    assert gradient_check(build.graph(), "total", {"w": np.array([[1.0, 2], [-3, 0.5]])})["w"] < 1e-7


def test_gradients_are_new_contiguous_float32_arrays():
    build = GraphBuilder()
    a, b, c = (build.parameter(name, (2, 3)) for name in "abc")
    both = build.apply("add", a, b, name="both")  # hands one array to two leaves
    build.apply("sum", build.apply("add", both, c, name="all"), name="total")  # hands out a view
    values = {name: np.ones((2, 3), np.float32) for name in "abc"}
    evaluator = Evaluator(build.graph(), "total", "abc")
    _, first = evaluator.value_and_gradients(values)
    _, second = evaluator.value_and_gradients(values)
    arrays = [*first.values(), *second.values(), *values.values()]
    for position, array in enumerate(arrays):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in arrays[position + 1 :])


def test_scalar_leaves_have_array_gradients():
    build = GraphBuilder()
    s = build.parameter("s", ())
    build.apply("multiply", s, s, name="square")
    _, gradients = Evaluator(build.graph(), "square", ["s"]).value_and_gradients(
        {"s": np.array(3, np.float32)}
    )
    assert isinstance(gradients["s"], np.ndarray)
    assert gradients["s"] == 6
    assert gradients["s"].dtype == np.float32


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        (
            "dense1/weight",
            np.zeros((3, 4), np.float32),
            r"Node 'dense1/weight' in layer 'dense1' takes \(4, 3\) float32, found \(3, 4\) float32",
        ),
        ("dense1/bias", np.zeros((1, 3), np.float32), r"takes \(3,\) float32, found \(1, 3\)"),
        ("dense1/bias", np.zeros(3), r"found \(3,\) float64. Convert it first"),
        ("dense1/bias", np.zeros(3, ">f4"), r"found \(3,\) >f4. Convert"),
        ("inputs", np.zeros((5, 1), np.float32), r"takes \(batch, 4\) float32 .*found \(5, 1\) float32"),
        ("inputs", np.zeros((0, 4), np.float32), r"takes \(batch, 4\) float32 .*found \(0, 4\) float32"),
        ("labels", np.zeros(4, np.int64), r"takes \(batch,\) int64 where batch is 5, found \(4,\) int64"),
        ("labels", np.zeros(5, np.int32), r"takes \(batch,\) int64, found \(5,\) int32"),
        ("labels", [0] * 5, "found a list"),
        ("lables", np.zeros(5, np.int64), "Did you mean 'labels'"),
    ],
)
def test_a_wrong_feed_is_refused(name: str, array: np.ndarray, sentence: str):
    with pytest.raises(RequestError, match=sentence):
        Evaluator(perceptron(), "loss", ["dense1/weight"]).value_and_gradients(feeds() | {name: array})


@pytest.mark.parametrize("name", ["labels", "dense1/matmul", "unused"])
def test_a_gradient_that_does_not_exist_is_refused(name: str):
    nodes = perceptron().nodes
    build = GraphBuilder()
    unused = build.parameter("unused", (2,))
    with pytest.raises(RequestError, match=f"with respect to '{name}' does not exist"):
        Evaluator(Graph((*nodes, unused)), "loss", [name])


def test_a_gradient_is_taken_of_a_scalar():
    with pytest.raises(RequestError, match=r"'dense1/add' is \(batch, 3\)"):
        Evaluator(perceptron(), "dense1/add", ["dense1/weight"])


def test_weights_that_have_diverged_give_no_warning():
    given = feeds() | {"dense1/weight": np.full((4, 3), 3e38, np.float32)}
    given["inputs"] = np.full((5, 4), 10, np.float32)
    loss, gradients = Evaluator(perceptron(), "loss", ["dense1/weight"]).value_and_gradients(given)
    assert not np.isfinite(loss)
    assert not np.isfinite(gradients["dense1/weight"]).all()
