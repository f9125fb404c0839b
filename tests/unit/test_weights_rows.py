"""Weights of tables: updates of rows alone, rounds of rows, and what is refused."""

import numpy as np
import pytest

from paramserver.errors import Fault, RequestError
from paramserver.events import Slice
from paramserver.optim import apply_rows, build_optimizer
from paramserver.rows import RowGradient
from paramserver.weights import Weights

TABLE, BIAS = Slice("table", 4, 9, 0), Slice("bias", 0, 2, 0)
SHAPES = {TABLE: (5, 2), BIAS: (2,)}
FIRST = {TABLE: np.arange(10, dtype=np.float32).reshape(5, 2), BIAS: np.zeros(2, np.float32)}


def weights(optimizer="sgd"):
    made = Weights(SHAPES, build_optimizer(optimizer, 1.0, "constant", 9), 1, tables=["table"])
    made.stage("me", {part: value.copy() for part, value in FIRST.items()})
    made.seal("me")
    return made


def rows(indices, value=1.0):
    return RowGradient(
        np.array(indices, np.int64), np.full((len(indices), 2), value, np.float32), SHAPES[TABLE]
    )


def gradients(table, bias=0.0):
    return {TABLE: table, BIAS: np.full(2, bias, np.float32)}


def test_an_update_of_rows_leaves_the_others_and_what_was_published():
    table = weights()
    before = table.newest
    table.update(gradients(rows([1, 4])))
    expected = FIRST[TABLE].copy()
    expected[[1, 4]] -= 1
    assert table.newest.values[TABLE].tolist() == expected.tolist()
    assert before.values[TABLE].tolist() == FIRST[TABLE].tolist()
    assert not table.newest.values[TABLE].flags.writeable


def test_an_update_of_no_rows_is_a_version_all_the_same():
    table = weights()
    table.update(gradients(rows([]), bias=1))
    assert table.newest.version == 1
    assert table.newest.values[TABLE].tolist() == FIRST[TABLE].tolist()
    assert table.newest.values[BIAS].tolist() == [-1, -1]


@pytest.mark.parametrize("optimizer", ["momentum:0.5", "adam", "adagrad+decay:0.1"])
def test_state_of_rows_that_nobody_touches_stays(optimizer):
    table, pair = weights(optimizer), build_optimizer(optimizer, 1.0, "constant", 9)
    twin, state = FIRST[TABLE].copy(), pair.init(FIRST[TABLE])
    for count, touched in enumerate(([0, 1], [1, 2], [4])):
        table.update(gradients(rows(touched, value=count + 1.0)))
        step = rows(touched, value=count + 1.0)
        apply_rows(pair, twin, step.indices, step.rows, state, count, twin)
    assert table.newest.values[TABLE].tobytes() == twin.tobytes()
    assert table.newest.values[TABLE][3].tolist() == FIRST[TABLE][3].tolist()
    for name, array in table.copy_state()[TABLE].items():
        assert array.tobytes() == state[name].tobytes()
        assert not array[3].any() or "adagrad" in optimizer


def test_a_round_counts_rows_that_a_replica_has_not_touched_as_zeros():
    table = weights()
    table.close_round([(gradients(rows([0, 1], 4.0)), 3), None, (gradients(rows([1, 2], 8.0)), 1)])
    expected = FIRST[TABLE].copy()
    expected[0] -= 3
    expected[1] -= 5
    expected[2] -= 2
    assert table.newest.values[TABLE].tolist() == expected.tolist()


def test_rows_and_whole_gradients_make_a_round_together():
    mixed, whole = weights("momentum:0.5"), weights("momentum:0.5")
    for table, kind in ((mixed, lambda g: g), (whole, RowGradient.dense)):
        for _ in range(2):
            one, other = rows([0, 1], 4.0), rows([3], 2.0).dense()
            table.close_round([(gradients(kind(one)), 3), (gradients(other), 1)])
    assert mixed.newest.values[TABLE].tobytes() == whole.newest.values[TABLE].tobytes()
    assert mixed.newest.values[TABLE][3].tolist() != FIRST[TABLE][3].tolist()


def test_rows_of_what_is_no_table_are_refused():
    table = weights()
    bias = RowGradient(np.array([0]), np.ones(1, np.float32), (2,))
    with pytest.raises(RequestError, match="It has only some rows of 'bias', which is no table"):
        table.check("It", {TABLE: rows([0]), BIAS: bias})
    with pytest.raises(RequestError, match=r"'table' rows 4 to 9 as \(6, 2\) float32, expected \(5, 2\)"):
        table.check("It", gradients(RowGradient(np.array([5]), np.ones((1, 2), np.float32), (6, 2))))
    with pytest.raises(RequestError, match="float64"):
        table.check("It", gradients(RowGradient(np.array([1]), np.ones((1, 2)), (5, 2))))
    table.check("It", gradients(rows([0, 4])))


@pytest.mark.parametrize(
    ("wanted", "sentence", "fault"),
    [
        ({Slice("table", 0, 4, 1): [0]}, "rows of 'table' rows 0 to 4, which this shard", Fault.UNKNOWN),
        ({BIAS: [0]}, "single rows of 'bias', which is no table", Fault.INVALID),
        ({TABLE: [5]}, "'table' rows 4 to 9: expected indices from 0 to 4, found 5", Fault.INVALID),
        ({TABLE: [2, 2]}, "2 after 2", Fault.INVALID),
    ],
)
def test_a_read_of_rows_that_are_not_here_is_refused(wanted, sentence, fault):
    with pytest.raises(RequestError) as refused:
        weights().check_rows({part: np.array(indices) for part, indices in wanted.items()})
    assert sentence in str(refused.value)
    assert refused.value.fault is fault
