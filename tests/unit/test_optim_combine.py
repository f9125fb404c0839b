"""The mean of a round against a naive twin, byte for byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.errors import RequestError
from paramserver.events import FLOAT32_MAX, JobSpec
from paramserver.optim import combine


def naive_sum(leaves):
    """The tree by its definition: split at the largest power of two below the number of leaves."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    left, right = naive_sum(leaves[:half]), naive_sum(leaves[half:])
    if left is None or right is None:
        return right if left is None else left
    return left + right


def naive_combine(gradients):
    leaves = [
        None if entry is None or entry[1] == 0 else np.float32(entry[1]) * entry[0] for entry in gradients
    ]
    total = naive_sum(leaves)
    return None if total is None else total / np.float32(sum(entry[1] for entry in gradients if entry))


@given(
    samples=st.lists(st.none() | st.integers(0, 1000), min_size=1, max_size=20),
    size=st.integers(0, 30),
    cut=st.integers(0, 30),
    block_elements=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_same_bytes_as_the_naive_twin_for_any_cut(samples, size, cut, block_elements, seed):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-6, 6, size=len(samples))
    gradients = [
        None if n is None else ((rng.normal(size=size) * scale).astype(np.float32), n)
        for n, scale in zip(samples, scales, strict=True)
    ]
    expected = naive_combine(gradients)
    out = np.full(size, 7.0, np.float32)
    cut = min(cut, size)
    for part in (slice(0, cut), slice(cut, size)):
        parts = [entry and (entry[0][part], entry[1]) for entry in gradients]
        assert combine(parts, out[part], block_elements) == sum(n or 0 for n in samples)
    assert out.tobytes() == (np.full(size, 7.0, np.float32) if expected is None else expected).tobytes()


def test_the_tree_is_over_positions_and_not_from_left_to_right():
    # In float32, 1e8 + 1 is 1e8. From left to right 1e8 + 1 - 1e8 + 1 gives 1; the tree gives 0.
    values = [1e8, 1.0, -1e8, 1.0]
    out = np.empty(1, np.float32)
    assert combine([(np.float32([value]), 1) for value in values], out) == 4
    assert out[0] == 0.0
    # An absent rank moves nobody: 2 still meets 3 before it meets 0.
    combine([(np.float32([1e8]), 1), None, (np.float32([-1e8]), 1), (np.float32([1.0]), 1)], out)
    assert out[0] == 0.0
    # In rank order without a gap, 0 meets 1 first.
    combine([(np.float32([1e8]), 1), (np.float32([-1e8]), 1), (np.float32([1.0]), 1)], out)
    assert out[0] == np.float32(1.0) / np.float32(3.0)


def test_samples_are_the_weights():
    out = np.empty(2, np.float32)
    assert combine([(np.float32([1, 0]), 1), (np.float32([4, 8]), 3)], out) == 4
    np.testing.assert_array_equal(out, np.float32([3.25, 6.0]))


@pytest.mark.parametrize("gradients", [[], [None, None], [(np.full(3, np.nan, np.float32), 0), None]])
def test_a_round_without_samples_touches_nothing(gradients):
    out = np.full(3, 5.0, np.float32)
    assert combine(gradients, out) == 0
    np.testing.assert_array_equal(out, np.full(3, 5.0, np.float32))


def test_a_gradient_without_samples_is_absent_even_if_it_is_not_finite():
    out = np.empty(1, np.float32)
    assert combine([(np.float32([np.nan]), 0), (np.float32([2.0]), 5)], out) == 5
    assert out[0] == 2.0


def test_out_may_be_one_of_the_gradients():
    gradients = [(np.full((2, 50), value, np.float32), 1) for value in (1.0, 2.0, 6.0)]
    assert combine(gradients, gradients[0][0], block_elements=7) == 3
    np.testing.assert_array_equal(gradients[0][0], np.full((2, 50), 3.0, np.float32))


def test_a_wrong_leaf_gets_a_sentence():
    out = np.empty((2, 3), np.float32)
    with pytest.raises(RequestError, match=r"rank 1 must be \(2, 3\) float32 .* but it is \(3,\) float32"):
        combine([None, (np.zeros(3, np.float32), 1)], out)
    with pytest.raises(RequestError, match=r"rank 0 must be .* float64"):
        combine([(np.zeros((2, 3)), 1)], out)
    with pytest.raises(RequestError, match="0 samples or more"):
        combine([(np.zeros((2, 3), np.float32), -1)], out)
    with pytest.raises(RequestError, match="in C order"):
        combine([(np.zeros((2, 3), np.float32), 1)], np.empty((3, 2), np.float32).T)


@pytest.mark.parametrize("samples", [1, 3, 32, 2**40])
@pytest.mark.parametrize("replicas", [1, 2, 7, 1000])
def test_a_sum_of_gradients_that_are_as_large_as_they_may_be_is_finite(samples, replicas):
    largest = JobSpec((), replicas=replicas, replicas_max=replicas).gradient_max(samples)
    out = np.empty(1, np.float32)
    combine([(np.float32([largest]), samples)] * replicas, out)
    assert np.isfinite(out).all()
    twice = [(np.float32([min(2 * largest, FLOAT32_MAX)]), samples)] * replicas
    with np.errstate(over="ignore"):
        combine(twice, out)
    assert np.isinf(out).all() or samples * replicas == 1
