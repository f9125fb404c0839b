"""A shard's weights: staged, sealed, updated; published once and never changed again."""

import numpy as np
import pytest

from paramserver.errors import Fault, RequestError
from paramserver.events import Slice
from paramserver.optim import build_optimizer
from paramserver.weights import Weights

A, B = Slice("a", 0, 2, 0), Slice("b", 3, 4, 0)
SHAPES = {A: (2, 3), B: (1,)}


def full(value, shapes=SHAPES):
    return {part: np.full(shape, value, np.float32) for part, shape in shapes.items()}


def weights_at(value, optimizer="sgd", versions_kept=1):
    weights = Weights(SHAPES, build_optimizer(optimizer, 1.0, "constant", 1), versions_kept)
    weights.stage("me", full(value))
    weights.seal("me")
    return weights


def test_there_are_none_before_the_seal():
    weights = Weights(SHAPES, build_optimizer("sgd", 1.0, "constant", 1), 1)
    weights.stage("me", full(1))
    assert not weights.sealed
    assert weights.rounds == 0
    with pytest.raises(RequestError, match="no weights yet") as refused:
        _ = weights.newest
    assert refused.value.fault is Fault.PRECONDITION


def test_the_seal_publishes_one_initialiser_and_forgets_the_others():
    weights = Weights(SHAPES, build_optimizer("sgd", 1.0, "constant", 1), 1)
    weights.stage("me", full(1))
    weights.stage("other", full(2))
    weights.seal("other")
    assert weights.newest.values[A].tolist() == [[2] * 3] * 2
    with pytest.raises(KeyError):
        weights.seal("me")


def test_published_weights_never_change_and_cannot_be_written():
    weights = weights_at(0)
    before = weights.newest
    weights.update(full(1))
    assert before.values[A].tolist() == [[0] * 3] * 2
    assert weights.newest.values[A].tolist() == [[-1] * 3] * 2
    for snapshot in (before, weights.newest):
        for value in snapshot.values.values():
            with pytest.raises(ValueError, match="read-only"):
                value[...] = 7
    assert (before.version, weights.newest.version) == (0, 1)


def test_a_round_is_the_mean_by_samples_and_one_version():
    weights = weights_at(0)
    weights.close_round([(full(1), 3), None, (full(5), 1)])
    assert weights.newest.values[B].tolist() == [-2]
    assert (weights.newest.version, weights.newest.rounds) == (1, 1)


def test_the_learning_rate_goes_by_version_and_an_empty_round_does_not_count():
    weights = Weights(SHAPES, build_optimizer("sgd", 1.0, "cosine", 2), 1)
    weights.stage("me", full(0))
    weights.seal("me")
    for leaves, expected in (
        ([(full(1), 1)], -1),
        ([None], -1),
        ([(full(1), 1)], -1.5),
        ([(full(1), 1)], -1.5),
    ):
        weights.close_round(leaves)
        assert weights.newest.values[B].tolist() == [expected]  # rates 1, 1/2, 0


def test_a_round_of_nobody_is_closed_and_changes_nothing():
    weights = weights_at(4, optimizer="momentum")
    weights.update(full(1))
    state = weights.copy_state()
    for leaves in ([], [None, None]):
        weights.close_round(leaves)
    assert (weights.newest.version, weights.newest.rounds) == (1, 2)
    assert weights.newest.values[B].tolist() == [3]
    assert weights.copy_state()[B].keys() == state[B].keys()
    for name, array in weights.copy_state()[B].items():
        assert array.tolist() == state[B][name].tolist()


def test_only_the_newest_versions_are_kept():
    weights = weights_at(0, versions_kept=2)
    for _ in range(3):
        weights.close_round([(full(1), 1)])
    assert [snapshot.rounds for snapshot in weights.kept] == [2, 3]


def test_a_copy_of_the_state_is_not_changed_by_the_next_update():
    weights = weights_at(0, optimizer="momentum:0.5")
    weights.update(full(1))
    state = weights.copy_state()
    weights.update(full(1))
    [velocity] = state[B].values()
    assert velocity.tolist() == [1]
    assert next(iter(weights.copy_state()[B].values())).tolist() == [1.5]


@pytest.mark.parametrize(
    ("change", "sentence", "fault"),
    [
        ({Slice("c", 0, 1, 0): np.zeros(1, np.float32)}, "'c' rows 0 to 1, which this shard", Fault.UNKNOWN),
        ({Slice("a", 0, 1, 0): np.zeros((1, 3), np.float32)}, "'a' rows 0 to 1", Fault.UNKNOWN),
        ({A: np.zeros((3, 2), np.float32)}, r"'a' rows 0 to 2 as \(3, 2\) float32", Fault.INVALID),
        ({A: np.zeros((1, 3), np.float32)}, r"expected \(2, 3\) float32", Fault.INVALID),
        ({A: np.zeros((2, 1), np.float32)}, r"as \(2, 1\)", Fault.INVALID),
        ({A: np.float32(1.0) * np.ones(())}, r"as \(\) ", Fault.INVALID),
        ({A: np.zeros((2, 3))}, "float64", Fault.INVALID),
        ({A: np.zeros((3, 2), np.float32).T}, "not in C order", Fault.INVALID),
    ],
)
def test_what_is_not_exactly_its_slices_is_refused_and_named(change, sentence, fault):
    weights = weights_at(0)
    with pytest.raises(RequestError, match=sentence) as refused:
        weights.check("The gradient", full(1) | change)
    assert str(refused.value).startswith("The gradient ")
    assert refused.value.fault is fault


def test_a_missing_slice_is_refused():
    with pytest.raises(RequestError, match="lacks 'b' rows 3 to 4"):
        weights_at(0).check("It", {A: full(1)[A]})


def test_a_shard_without_slices_counts_versions_all_the_same():
    weights = Weights({}, build_optimizer("adam", 1.0, "constant", 1), 1)
    weights.stage("me", {})
    weights.seal("me")
    weights.update({})
    weights.close_round([({}, 2)])
    assert (weights.newest.version, weights.newest.rounds) == (2, 1)
