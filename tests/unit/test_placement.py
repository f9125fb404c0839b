"""Which shard owns which rows."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from paramserver.errors import RequestError
from paramserver.events import Slice, TensorSpec
from paramserver.placement import bytes_per_shard, imbalance, join, place, rows_of, slice_shape, split

SHAPES = st.lists(st.integers(1, 9), max_size=3).map(tuple)
TENSORS = st.dictionaries(st.text("ab/", min_size=1, max_size=4), SHAPES, min_size=1, max_size=6)


def specs(shapes):
    return [TensorSpec(key, shape) for key, shape in shapes.items()]


@given(shapes=TENSORS, shards=st.integers(1, 40))
def test_every_row_is_on_exactly_one_shard_and_the_shards_follow_each_other(shapes, shards):
    slices = place(specs(shapes), shards)
    owners = [(part.key, row) for part in slices for row in range(part.row_begin, part.row_end)]
    assert owners == [(key, row) for key in sorted(shapes) for row in range(rows_of(shapes[key]))]
    on = [part.shard for part in slices]
    assert on == sorted(on)
    assert set(on) <= set(range(shards))
    assert len({(part.key, part.shard) for part in slices}) == len(slices), "no two slices where one does"
    assert place(reversed(specs(shapes)), shards) == slices, "the order of the tensors does not matter"


@given(shapes=TENSORS, shards=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_what_is_split_joins_to_the_same_bytes(shapes, shards, seed):
    rng = np.random.default_rng(seed)
    tensors = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    slices = place(specs(shapes), shards)
    parts = split(tensors, slices)
    for part, value in parts.items():
        assert value.shape == slice_shape(shapes[part.key], part)
        assert np.shares_memory(value, tensors[part.key])
    back = join(shapes, parts)
    assert list(back) == sorted(shapes)
    for key, tensor in tensors.items():
        assert back[key].tobytes() == tensor.tobytes()
        assert back[key].shape == tensor.shape
        assert not np.shares_memory(back[key], tensor)


@given(
    shapes=st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.tuples(st.integers(1, 400), st.integers(1, 12)),
        min_size=1,
        max_size=5,
    ),
    shards=st.integers(1, 16),
)
def test_shards_are_balanced_within_a_fifth_where_no_row_is_large(shapes, shards):
    tensors = specs(shapes)
    total = sum(rows * row for rows, row in shapes.values())
    assume(max(row for _, row in shapes.values()) <= 0.05 * total / shards)
    sizes = bytes_per_shard(tensors, place(tensors, shards), shards)
    assert sum(sizes) == 4 * total
    assert imbalance(sizes) <= 1.2
    assert min(sizes) * shards >= sum(sizes) / 1.2


def test_an_embedding_and_its_layers():
    shapes = {"embedding": (1000, 8), "dense/bias": (3,), "dense/weight": (8, 3)}
    sizes = bytes_per_shard(specs(shapes), place(specs(shapes), 4), 4)
    assert sum(sizes) == 4 * (8000 + 3 + 24)
    assert imbalance(sizes) < 1.01


def test_a_cut_is_at_the_nearest_row_and_at_the_lower_of_two():
    assert [part.row_end for part in place([TensorSpec("w", (10,))], 3)] == [3, 7, 10]  # 3.33 and 6.67
    assert [part.row_end for part in place([TensorSpec("w", (5, 2))], 2)] == [2, 5]  # 2.5


def test_more_shards_than_rows_leaves_some_empty():
    slices = place([TensorSpec("w", (2, 5))], 5)
    assert [(part.row_begin, part.row_end) for part in slices] == [(0, 1), (1, 2)]
    sizes = bytes_per_shard([TensorSpec("w", (2, 5))], slices, 5)
    assert sorted(sizes) == [0, 0, 0, 20, 20]
    assert imbalance(sizes) == 2.5


def test_a_tensor_without_dimensions_is_one_row():
    slices = place([TensorSpec("s", ()), TensorSpec("t", ())], 2)
    assert slices == (Slice("s", 0, 1, 0), Slice("t", 0, 1, 1))
    assert slice_shape((), slices[0]) == ()


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ([], "at least one tensor"),
        ([TensorSpec("w", (1,)), TensorSpec("w", (2,))], "share the key 'w'"),
        ([TensorSpec("w", (3, 0))], r"'w' has shape \(3, 0\), which holds no elements"),
        ([TensorSpec("w", (-1, -2))], "holds no elements"),
        ([TensorSpec("a", (1,)), TensorSpec("w", (-3,))], "holds no elements"),
    ],
)
def test_what_cannot_be_placed_is_refused(tensors, sentence):
    with pytest.raises(RequestError, match=sentence):
        place(tensors, 2)
