"""Every row of the table against numeric differences, in float32 and in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paramserver.autodiff import (
    RULES,
    Graph,
    GraphBuilder,
    Rule,
    binary_cross_entropies,
    cross_entropies,
    gradient_check,
    sigmoid,
    softmax,
)
from paramserver.autodiff.shapes import unchanged
from paramserver.errors import RequestError
from paramserver.rows import RowGradient, dense

# For each operation the shapes of its inputs, and its attributes: one case for each path through its rule.
CASES: dict[str, list[tuple[list[tuple[int, ...]], dict[str, Any]]]] = {
    "matmul": [([(3, 4), (4, 2)], {}), ([(1, 4), (4, 1)], {})],
    "add": [([(3, 4), (3, 4)], {}), ([(3, 4), (4,)], {}), ([(3, 4), ()], {}), ([(2, 3, 4), (3, 4)], {})],
    "multiply": [([(3, 4), (3, 4)], {}), ([(3, 4), (4,)], {}), ([(3, 4), ()], {})],
    "reshape": [([(3, 4)], {"shape": (2, 2)}), ([(3, 1)], {"shape": ()})],
    "flatten": [([(3, 2, 2)], {}), ([(3,)], {})],
    "gather": [([(3, 2), (4, 5)], {}), ([(3,), (5,)], {}), ([(3, 2, 2), (1,)], {})],
    "relu": [([(3, 4)], {}), ([(5,)], {})],
    "tanh": [([(3, 4)], {}), ([(5,)], {})],
    "sigmoid": [([(3, 4)], {}), ([(5,)], {})],
    "softmax": [([(3, 4)], {}), ([(5,)], {}), ([(2, 3, 4)], {})],
    "dropout": [([(3, 4), (3, 4)], {"rate": 0.5}), ([(3, 4), (3, 4)], {"rate": 0.0})],
    "layer_norm": [([(3, 4), (4,), (4,)], {}), ([(2, 3, 4), (4,), (4,)], {})],
    "conv2d": [
        ([(2, 4, 5, 3), (2, 3, 2, 3)], {}),
        ([(2, 4, 5, 1), (2, 3, 3, 1)], {"padding": 1}),
        ([(1, 6, 6, 2), (3, 3, 2, 2)], {"stride": 2}),
        ([(1, 5, 4, 2), (3, 3, 3, 2)], {"stride": 2, "padding": 2}),
    ],
    "max_pool": [([(2, 4, 6, 2)], {"size": 2}), ([(1, 5, 7, 2)], {"size": 3})],
    "average_pool": [([(2, 4, 6, 2)], {"size": 2}), ([(1, 5, 7, 2)], {"size": 3})],
    "sum": [([(3, 4)], {}), ([(3, 4)], {"axis": 0}), ([(3, 4)], {"axis": 1}), ([(2, 3, 4)], {"axis": 1})],
    "mean": [([(3, 4)], {}), ([(3, 4)], {"axis": 0}), ([(3, 4)], {"axis": 1}), ([(2, 3, 4)], {"axis": 1})],
    "softmax_cross_entropy": [([(5, 3), (5,)], {}), ([(1, 3), (1,)], {})],
    "binary_cross_entropy": [([(5,), (5,)], {}), ([(1,), (1,)], {})],
    "squared_error": [([(5,), (5,)], {}), ([(1,), (1,)], {})],
}

# The inputs whose derivative nobody wants.
CONSTANT = {"dropout": {1}}


def values_of(op: str, shapes: list[tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {}
    for position, shape in enumerate(shapes):
        if position in RULES[op].integer_inputs:
            values[f"x{position}"] = rng.integers(0, 2 if op == "binary_cross_entropy" else 3, shape)
        else:
            # Away from 0, where relu has a kink.
            signs = rng.choice([-1.0, 1.0], shape)
            values[f"x{position}"] = np.asarray(signs * rng.uniform(0.1, 2, shape), np.float32)
    return values


def graph_of(op: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any]) -> tuple[Graph, list[str]]:
    """Apply one operation, weight each element of its value differently, and sum."""
    build = GraphBuilder()
    integers = RULES[op].integer_inputs
    leaves = [
        build.input(f"x{i}", shape, "int64" if i in integers else "float32") for i, shape in enumerate(shapes)
    ]
    value = build.apply(op, *leaves, name="value", **attributes)
    weights = build.input("weights", value.shape)
    build.apply("sum", build.apply("multiply", value, weights, name="weighted"), name="total")
    constants = integers | CONSTANT.get(op, set())
    return build.graph(), [f"x{i}" for i in range(len(shapes)) if i not in constants]


def test_every_rule_has_cases():
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("op", RULES)
def test_gradients_equal_numeric_differences(op: str):
    for shapes, attributes in CASES[op]:
        graph, floats = graph_of(op, shapes, attributes)
        feeds = values_of(op, shapes)
        feeds["weights"] = np.asarray(np.random.default_rng(1).uniform(0.5, 2, graph["weights"].shape))
        differences = gradient_check(graph, "total", feeds, floats)
        assert set(differences) == set(floats)
        assert max(differences.values()) < 1e-7, (op, shapes, attributes, differences)


@pytest.mark.parametrize("op", RULES)
def test_rules_keep_float32_and_write_into_nothing(op: str):
    for shapes, attributes in CASES[op]:
        rule, arrays = RULES[op], list(values_of(op, shapes).values())
        before = [array.copy() for array in arrays]
        value, kept = rule.forward(*arrays, **attributes)
        assert value.dtype == np.float32
        assert value.shape == rule.shape(*shapes, **attributes)
        g = np.full(value.shape, 0.5, np.float32)
        for position, vjp in enumerate(rule.vjps):
            assert (vjp is None) == (position in rule.integer_inputs | CONSTANT.get(op, set()))
            if vjp is not None:
                first, second = vjp(g, kept, **attributes), vjp(g, kept, **attributes)
                assert first.dtype == np.float32
                assert first.shape == shapes[position]
                assert np.array_equal(dense(first), dense(second)), "the first call has changed what was kept"
                given = first.rows if isinstance(first, RowGradient) else first
                assert not any(np.shares_memory(given, array) for array in arrays)
        assert (g == 0.5).all()
        assert all(np.array_equal(array, old) for array, old in zip(arrays, before, strict=True))


def test_the_check_finds_a_wrong_rule(monkeypatch: pytest.MonkeyPatch):
    right = RULES["relu"]
    monkeypatch.setitem(RULES, "relu", Rule(right.shape, right.forward, (lambda g, kept: g,)))
    graph, floats = graph_of("relu", [(3, 4)], {})
    feeds = values_of("relu", [(3, 4)]) | {"weights": np.ones((3, 4))}
    assert gradient_check(graph, "total", feeds, floats)["x0"] > 0.5


def test_a_new_operation_is_one_row(monkeypatch: pytest.MonkeyPatch):
    cube = Rule(unchanged, lambda a: (a**3, a), (lambda g, kept: g * 3 * kept * kept,))
    monkeypatch.setitem(RULES, "cube", cube)
    graph, floats = graph_of("cube", [(3, 4)], {})
    feeds = values_of("matmul", [(3, 4)]) | {"weights": np.ones((3, 4))}
    assert gradient_check(graph, "total", feeds, floats)["x0"] < 1e-7


@pytest.mark.parametrize("size", [1e4, 1e30, 1.5e38])
def test_large_logits_do_not_overflow(size: float):
    logits, labels = np.array([[size, 0, -size], [size, 0, -size]], np.float32), np.array([0, 2])
    assert cross_entropies(logits, labels) == pytest.approx([0, 2 * size])
    assert np.array_equal(softmax(logits), [[1, 0, 0], [1, 0, 0]])
    assert binary_cross_entropies(logits[0], np.array([0, 0, 1])) == pytest.approx([size, np.log(2), size])
    assert np.array_equal(sigmoid(logits[0]), [1, 0.5, 0])


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_a_label_outside_the_classes_is_refused(label: int):
    with pytest.raises(RequestError, match=f"less than 3, the number of classes, but a label is {label}"):
        RULES["softmax_cross_entropy"].forward(np.zeros((2, 3), np.float32), np.array([0, label]))
    with pytest.raises(RequestError, match=f"less than 2, the number of classes, but a label is {label}"):
        RULES["binary_cross_entropy"].forward(np.zeros(2, np.float32), np.array([0, label]))


def direct_conv2d(images: np.ndarray, filters: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """The definition, one value at a time."""
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    batch, height, width, _ = padded.shape
    count, tall, wide, _ = filters.shape
    value = np.empty((batch, (height - tall) // stride + 1, (width - wide) // stride + 1, count))
    for n, y, x, f in np.ndindex(value.shape):
        window = padded[n, y * stride : y * stride + tall, x * stride : x * stride + wide]
        value[n, y, x, f] = (window * filters[f]).sum()
    return value


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (3, 2)])
def test_conv2d_equals_its_definition(stride: int, padding: int):
    values = values_of("conv2d", [(2, 7, 6, 3), (4, 3, 2, 3)])
    value, _ = RULES["conv2d"].forward(*values.values(), stride=stride, padding=padding)
    np.testing.assert_allclose(value, direct_conv2d(*values.values(), stride, padding), rtol=1e-5, atol=1e-5)


def test_pools_equal_their_definition_and_leave_out_what_fills_no_square():
    image = np.arange(1.0, 16, dtype=np.float32).reshape(1, 3, 5, 1)
    value, kept = RULES["max_pool"].forward(image, size=2)
    assert value.ravel().tolist() == [7, 9]
    g = np.array([10, 20], np.float32).reshape(value.shape)
    gradient = RULES["max_pool"].vjps[0](g, kept, size=2)  # type: ignore[misc]
    assert np.flatnonzero(gradient).tolist() == [6, 8]
    assert RULES["average_pool"].forward(image, size=2)[0].ravel().tolist() == [4, 6]


def test_of_equal_pixels_the_first_gets_the_gradient():
    image = np.zeros((1, 2, 2, 1), np.float32)
    value, kept = RULES["max_pool"].forward(image, size=2)
    gradient = RULES["max_pool"].vjps[0](np.ones_like(value), kept, size=2)  # type: ignore[misc]
    assert gradient.ravel().tolist() == [1, 0, 0, 0]


def test_dropout_keeps_the_mean_and_drops_its_share():
    rng = np.random.default_rng(0)
    ones, chance = np.ones((100, 1000), np.float32), rng.random((100, 1000), dtype=np.float32)
    value, _ = RULES["dropout"].forward(ones, chance, rate=0.25)
    assert set(np.unique(value)) == {0, np.float32(1 / 0.75)}
    assert (value == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert value.mean() == pytest.approx(1, abs=0.01)


def test_layer_norm_has_mean_0_and_variance_1_and_survives_equal_values():
    a = np.random.default_rng(0).normal(5, 3, (4, 50)).astype(np.float32)
    a[0] = 7
    value, _ = RULES["layer_norm"].forward(a, np.ones(50, np.float32), np.zeros(50, np.float32))
    np.testing.assert_allclose(value.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(value.std(axis=1), [0, 1, 1, 1], atol=1e-3)


@pytest.mark.parametrize("index", [-1, 3, 2**40])
def test_a_row_outside_the_table_is_refused(index: int):
    with pytest.raises(RequestError, match=f"less than 3, the rows of the table, but one is {index}"):
        RULES["gather"].forward(np.zeros((3, 2), np.float32), np.array([0, index]))
