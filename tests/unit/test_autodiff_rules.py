"""Every row of the table against numeric differences, in float32 and in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paramserver.autodiff import RULES, Evaluator, Graph, GraphBuilder, Rule, gradient_check, softmax
from paramserver.autodiff.rules import cross_entropies
from paramserver.autodiff.shapes import unchanged
from paramserver.errors import RequestError

# For each operation the shapes of its inputs, and its attributes: one case for each path through its rule.
CASES: dict[str, list[tuple[list[tuple[int, ...]], dict[str, Any]]]] = {
    "matmul": [([(3, 4), (4, 2)], {}), ([(1, 4), (4, 1)], {})],
    "add": [([(3, 4), (3, 4)], {}), ([(3, 4), (4,)], {}), ([(3, 4), ()], {}), ([(2, 3, 4), (3, 4)], {})],
    "multiply": [([(3, 4), (3, 4)], {}), ([(3, 4), (4,)], {}), ([(3, 4), ()], {})],
    "relu": [([(3, 4)], {}), ([(5,)], {})],
    "sum": [([(3, 4)], {}), ([(3, 4)], {"axis": 0}), ([(3, 4)], {"axis": 1}), ([(2, 3, 4)], {"axis": 1})],
    "mean": [([(3, 4)], {}), ([(3, 4)], {"axis": 0}), ([(3, 4)], {"axis": 1}), ([(2, 3, 4)], {"axis": 1})],
    "softmax_cross_entropy": [([(5, 3), (5,)], {}), ([(1, 3), (1,)], {})],
}


def values_of(op: str, shapes: list[tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {}
    for position, shape in enumerate(shapes):
        if position in RULES[op].integer_inputs:
            values[f"x{position}"] = rng.integers(0, 3, shape)
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
    return build.graph(), [f"x{i}" for i in range(len(shapes)) if i not in integers]


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
            assert (vjp is None) == (position in rule.integer_inputs)
            if vjp is not None:
                first, second = vjp(g, kept, **attributes), vjp(g, kept, **attributes)
                assert first.dtype == np.float32
                assert first.shape == shapes[position]
                assert np.array_equal(first, second), "the first call has changed what was kept"
                assert not any(np.shares_memory(first, array) for array in arrays)
        assert (g == 0.5).all()
        assert all(np.array_equal(array, old) for array, old in zip(arrays, before, strict=True))


def test_the_check_finds_a_wrong_rule(monkeypatch: pytest.MonkeyPatch):
    right = RULES["relu"]
    monkeypatch.setitem(RULES, "relu", Rule(right.shape, right.forward, (lambda g, kept: g,)))
    graph, floats = graph_of("relu", [(3, 4)], {})
    feeds = values_of("relu", [(3, 4)]) | {"weights": np.ones((3, 4))}
    assert gradient_check(graph, "total", feeds, floats)["x0"] > 0.5


def test_a_new_operation_is_one_row(monkeypatch: pytest.MonkeyPatch):
    tanh = Rule(unchanged, lambda a: (np.tanh(a),) * 2, (lambda g, kept: g * (1 - kept * kept),))
    monkeypatch.setitem(RULES, "tanh", tanh)
    graph, floats = graph_of("tanh", [(3, 4)], {})
    feeds = values_of("matmul", [(3, 4)]) | {"weights": np.ones((3, 4))}
    assert gradient_check(graph, "total", feeds, floats)["x0"] < 1e-7


class RowSum:
    """A stand-in for a row-sparse gradient: all that the walk asks of it is ``+``."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __add__(self, other: RowSum) -> RowSum:
        return RowSum(self.rows + other.rows)


def test_a_gradient_may_be_of_another_kind(monkeypatch: pytest.MonkeyPatch):
    take = Rule(
        lambda table, rows: (*rows, *table[1:]),
        lambda table, rows: (table[rows], rows),
        (lambda g, kept: RowSum(kept.tolist()), None),
        frozenset({1}),
    )
    monkeypatch.setitem(RULES, "take", take)
    build = GraphBuilder()
    table, rows = build.parameter("table", (4, 2)), build.input("rows", ("batch",), "int64")
    once = build.apply("take", table, rows, name="once")
    twice = build.apply("take", table, rows, name="twice")
    build.apply("sum", build.apply("add", once, twice, name="both"), name="total")
    evaluator = Evaluator(build.graph(), "total", ["table"])
    feeds = {"table": np.ones((4, 2), np.float32), "rows": np.array([3, 1])}
    total, gradients = evaluator.value_and_gradients(feeds)
    assert total == 8
    assert gradients["table"].rows == [3, 1, 3, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [1e4, 1e30, 1.5e38])
def test_large_logits_do_not_overflow(size: float):
    logits, labels = np.array([[size, 0, -size], [size, 0, -size]], np.float32), np.array([0, 2])
    assert cross_entropies(logits, labels) == pytest.approx([0, 2 * size])
    assert np.array_equal(softmax(logits), [[1, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_a_label_outside_the_classes_is_refused(label: int):
    with pytest.raises(RequestError, match=f"less than 3, the number of classes, but a label is {label}"):
        RULES["softmax_cross_entropy"].forward(np.zeros((2, 3), np.float32), np.array([0, label]))
