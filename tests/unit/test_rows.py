"""Row-sparse gradients against their dense twins, and fetched rows against the whole table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.autodiff import Evaluator, GraphBuilder
from paramserver.errors import RequestError
from paramserver.rows import RowGradient, RowValues, dense


def gradient(rng: np.random.Generator, rows: int, touched: int) -> RowGradient:
    indices = np.sort(rng.choice(rows, touched, replace=False)).astype(np.int64)
    return RowGradient(indices, rng.normal(size=(touched, 2)).astype(np.float32), (rows, 2))


@given(st.integers(1, 20), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_repeated_rows_are_added_in_the_order_in_which_they_occur(rows: int, reads: int, seed: int):
    rng = np.random.default_rng(seed)
    indices, values = rng.integers(0, rows, reads), rng.normal(size=(reads, 3)).astype(np.float32)
    expected = np.zeros((rows, 3), np.float32)
    np.add.at(expected, indices, values)
    summed = RowGradient.summed(indices, values, (rows, 3))
    assert np.array_equal(summed.indices, np.unique(indices))
    assert summed.dense().tobytes() == expected.tobytes()


@given(st.integers(1, 12), st.data())
def test_arithmetic_equals_that_of_arrays(rows: int, data: st.DataObject):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    a, b = (gradient(rng, rows, data.draw(st.integers(0, rows))) for _ in range(2))
    whole = rng.normal(size=(rows, 2)).astype(np.float32)
    factor = np.float32(3)
    assert np.array_equal((a + b).dense(), a.dense() + b.dense())
    assert np.array_equal((b + a).indices, np.union1d(a.indices, b.indices))
    for total in (a + whole, whole + a):
        assert isinstance(total, np.ndarray)
        assert np.array_equal(total, whole + a.dense())
    assert np.array_equal((factor * a).dense(), factor * a.dense())
    assert np.array_equal((a * 0.1).dense(), a.dense() * np.float32(0.1))
    assert np.array_equal((a / factor).dense(), a.dense() / factor)
    assert (a + b).dtype == (factor * a).dtype == (a / 7).dtype == np.float32


def test_dense_gives_arrays_back():
    whole = np.ones((3, 2), np.float32)
    assert dense(whole) is whole
    sparse = RowGradient(np.array([1]), np.float32([[2, 3]]), (3, 2))
    assert dense(sparse).tolist() == [[0, 0], [2, 3], [0, 0]]
    assert sparse.nbytes == 8 + 8


@pytest.mark.parametrize(
    ("indices", "rows", "shape", "sentence"),
    [
        ([1, 1], np.zeros((2, 1), np.float32), (4, 1), "repeated or out of order"),
        ([2, 1], np.zeros((2, 1), np.float32), (4, 1), "ascending order"),
        ([-1, 1], np.zeros((2, 1), np.float32), (4, 1), "from 0 to 3"),
        ([1, 4], np.zeros((2, 1), np.float32), (4, 1), "from 0 to 3, found 4"),
        ([1], np.zeros((2, 1), np.float32), (4, 1), r"expected \(1, 1\) float32 for 1 indices"),
        ([1], np.zeros((1, 2), np.float32), (4, 1), r"found \(1, 2\) float32"),
        ([1], np.zeros((1, 1), np.int64), (4, 1), r"found \(1, 1\) int64"),
        ([[1]], np.zeros((1, 1), np.float32), (4, 1), r"expected indices \(n,\) int64"),
        ([1.0], np.zeros((1, 1), np.float32), (4, 1), "found .* float64"),
        ([0], np.zeros(1, np.float32), (), "a single number"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    indices: list[int], rows: np.ndarray, shape: tuple[int, ...], sentence: str
):
    for kind in (RowGradient, RowValues):
        with pytest.raises(RequestError, match=sentence):
            kind(np.array(indices), rows, shape)


def test_gradients_of_different_tensors_are_not_added():
    rows = np.zeros((1, 1), np.float32)
    with pytest.raises(RequestError, match=r"these are \(4, 1\) and \(5, 1\)"):
        RowGradient(np.array([1]), rows, (4, 1)) + RowGradient(np.array([1]), rows, (5, 1))


def test_a_row_that_was_not_fetched_is_refused():
    fetched = RowValues(np.array([2, 5]), np.float32([[1], [2]]), (9, 1))
    assert fetched[np.array([[5, 2], [2, 2]])].ravel().tolist() == [2, 1, 1, 1]
    for missing in (0, 3, 8):
        with pytest.raises(RequestError, match=f"Row {missing} of a table is read, but only 2 other rows"):
            fetched[np.array([2, missing])]
    with pytest.raises(RequestError, match="Row 4 of a table"):
        RowValues(np.empty(0, np.int64), np.empty((0, 1), np.float32), (9, 1))[np.array([4])]


def table_graph() -> GraphBuilder:
    build = GraphBuilder()
    table, rows = build.parameter("table", (6, 2)), build.input("rows", ("batch", 3), "int64")
    first = build.apply("gather", table, rows, name="first")
    again = build.apply("gather", table, rows, name="again")
    product = build.apply("multiply", first, again, name="product")
    build.apply("sum", product, name="total")
    return build


def test_a_table_may_be_fed_by_rows_and_its_gradient_has_only_these():
    graph = table_graph().graph()
    assert graph.tables == {"table": {"rows"}}
    table = np.arange(12, dtype=np.float32).reshape(6, 2)
    rows = np.array([[4, 1, 1], [4, 4, 2]])
    evaluator = Evaluator(graph, "total", ["table"])
    total, gradients = evaluator.value_and_gradients({"table": table, "rows": rows})
    touched = np.unique(rows)
    fed = RowValues(touched, table[touched], table.shape)
    sparse_total, sparse = evaluator.value_and_gradients({"table": fed, "rows": rows})
    assert sparse_total == total
    for one in (gradients["table"], sparse["table"]):
        assert np.array_equal(one.indices, touched)
        assert np.array_equal(one.dense(), 2 * table * np.bincount(rows.ravel(), minlength=6)[:, None])


def test_a_table_that_is_also_read_whole_is_fed_whole_and_has_a_whole_gradient():
    build = table_graph()
    table = build.graph()["table"]
    build.apply("add", build.apply("sum", table, name="all"), build.graph()["total"], name="both")
    graph = build.graph()
    assert not graph.tables
    values, rows = np.ones((6, 2), np.float32), np.array([[0, 1, 1]])
    _, gradients = Evaluator(graph, "both", ["table"]).value_and_gradients({"table": values, "rows": rows})
    assert gradients["table"].ravel().tolist() == [3, 3, 5, 5, 1, 1, 1, 1, 1, 1, 1, 1]
    some = RowValues(np.array([0, 1]), values[:2], (6, 2))
    with pytest.raises(RequestError, match=r"found a RowValues\. Make a NumPy array"):
        Evaluator(graph, "both").value({"table": some, "rows": rows})


def test_rows_of_another_table_are_refused():
    some = RowValues(np.array([0, 1]), np.ones((2, 2), np.float32), (7, 2))
    with pytest.raises(RequestError, match=r"Node 'table' takes \(6, 2\) float32, found \(7, 2\) float32"):
        Evaluator(table_graph().graph(), "total").value({"table": some, "rows": np.array([[0, 1, 1]])})
