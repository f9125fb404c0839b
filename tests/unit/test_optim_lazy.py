"""Updates of some rows: only these change, and they change as in a dense update."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.errors import RequestError
from paramserver.optim import OPTIMIZERS, apply, apply_rows, build_optimizer, combine, combine_rows
from paramserver.rows import RowGradient

SPECS = [*OPTIMIZERS, "sgd+decay:0.1"]


@given(
    spec=st.sampled_from(SPECS),
    rows=st.integers(1, 30),
    block_elements=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_touched_rows_change_as_in_a_dense_update_and_no_other(spec, rows, block_elements, seed, data):
    rng = np.random.default_rng(seed)
    optimizer = build_optimizer(spec, 0.1, "cosine", 9)
    weights = rng.normal(size=(rows, 3)).astype(np.float32)
    state = optimizer.init(weights)
    for count in range(3):
        touched = np.sort(rng.choice(rows, data.draw(st.integers(0, rows)), replace=False)).astype(np.int64)
        gradient = RowGradient(touched, rng.normal(size=(len(touched), 3)).astype(np.float32), (rows, 3))
        whole_state = {name: array.copy() for name, array in state.items()}
        whole = np.empty_like(weights)
        apply(optimizer, weights, gradient.dense(), whole_state, count, whole)
        untouched = np.setdiff1d(np.arange(rows), touched)
        before = {name: array[untouched].copy() for name, array in state.items()}
        out = weights.copy()
        weights.flags.writeable = False
        apply_rows(optimizer, weights, touched, gradient.rows, state, count, out, block_elements)
        assert out[touched].tobytes() == whole[touched].tobytes()
        assert out[untouched].tobytes() == weights[untouched].tobytes()
        for name, array in state.items():
            assert array[touched].tobytes() == whole_state[name][touched].tobytes()
            assert array[untouched].tobytes() == before[name].tobytes()
        weights = out


def test_an_untouched_row_keeps_its_velocity_while_zeros_would_move_it():
    optimizer = build_optimizer("momentum:0.5", 1.0, "constant", 9)
    lazy, dense = np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32)
    lazy_state, dense_state = optimizer.init(lazy), optimizer.init(dense)
    for count, row in enumerate([0, 1, 1, 0]):
        gradient = RowGradient(np.array([row]), np.float32([[1]]), (2, 1))
        apply_rows(optimizer, lazy, gradient.indices, gradient.rows, lazy_state, count, out=lazy)
        after = np.empty_like(dense)
        apply(optimizer, dense, gradient.dense(), dense_state, count, after)
        dense = after
    # Lazy: velocities 1 and 1.5. Dense: row 0 has 1, 0.5, 0.25, 1.125.
    assert lazy.ravel().tolist() == [-2.5, -2.5]
    assert dense[0] == -2.875


def test_rows_are_written_where_nobody_reads():
    optimizer = build_optimizer("adam", 0.1, "constant", 9)
    weights = np.ones((3, 2), np.float32)
    state, out = optimizer.init(weights), np.full((3, 2), np.nan, np.float32)
    apply_rows(optimizer, weights, np.array([1]), np.ones((1, 2), np.float32), state, 0, out)
    assert np.isnan(out[[0, 2]]).all()
    assert (weights == 1).all()
    np.testing.assert_allclose(out[1], 0.9, rtol=1e-6)


@pytest.mark.parametrize(
    ("indices", "rows", "sentence"),
    [
        ([0, 3], np.zeros((2, 2), np.float32), "from 0 to 2"),
        ([1, 0], np.zeros((2, 2), np.float32), "out of order"),
        ([0], np.zeros((2, 2), np.float32), r"expected \(1, 2\) float32"),
        ([0], np.zeros((1, 2)), "expects rows of float32, but found float64"),
    ],
)
def test_rows_that_do_not_fit_are_refused(indices, rows, sentence):
    weights = np.zeros((3, 2), np.float32)
    with pytest.raises(RequestError, match=sentence):
        apply_rows(
            build_optimizer("sgd", 0.1, "constant", 1), weights, np.array(indices), rows, {}, 0, weights
        )


def test_an_out_of_another_shape_is_refused():
    weights, rows = np.zeros((3, 2), np.float32), np.zeros((1, 2), np.float32)
    sgd = build_optimizer("sgd", 0.1, "constant", 1)
    with pytest.raises(RequestError, match=r"expects out as \(3, 2\) float32"):
        apply_rows(sgd, weights, np.array([1]), rows, {}, 0, np.zeros((2, 2), np.float32))


@given(st.lists(st.none() | st.integers(0, 50), min_size=1, max_size=9), st.integers(0, 2**32 - 1))
def test_the_mean_of_row_gradients_is_that_of_dense_ones(samples, seed):
    rng = np.random.default_rng(seed)
    sparse = []
    for n in samples:
        indices = np.sort(rng.choice(12, rng.integers(0, 13), replace=False)).astype(np.int64)
        rows = rng.normal(size=(len(indices), 2)).astype(np.float32)
        sparse.append(None if n is None else (RowGradient(indices, rows, (12, 2)), n))
    dense = np.zeros((12, 2), np.float32)
    total = combine([entry and (entry[0].dense(), entry[1]) for entry in sparse], dense)
    mean, found = combine_rows(sparse)
    assert found == total == sum(n or 0 for n in samples)
    if total == 0:
        assert mean is None
        return
    assert mean.dense().tobytes() == dense.tobytes()
    touched = [entry[0].indices for entry in sparse if entry and entry[1]]
    assert np.array_equal(mean.indices, np.unique(np.concatenate(touched)))


def test_negative_samples_are_refused():
    with pytest.raises(RequestError, match="0 samples or more, but that of rank 1 says -3"):
        combine_rows([None, (RowGradient(np.array([0]), np.zeros((1, 1), np.float32), (2, 1)), -3)])
