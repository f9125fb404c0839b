"""Data sets refuse what no model can learn from, and splits keep the classes in proportion."""

import numpy as np
import pytest

from paramserver.data import Dataset, generator, stratified_split
from paramserver.errors import RequestError


def dataset(labels, classes=0, name="toy"):
    labels = np.asarray(labels, np.int64)
    return Dataset(np.arange(2 * len(labels), dtype=np.float32).reshape(-1, 2), labels, name, classes)


def test_a_data_set_knows_its_sizes_and_hands_out_samples():
    toy = dataset([0, 2, 1, 2])
    assert (len(toy), toy.features, toy.classes, toy.name) == (4, 2, 3, "toy")
    inputs, labels = toy[np.array([3, 0])]
    np.testing.assert_array_equal(inputs, np.float32([[6, 7], [0, 1]]))
    np.testing.assert_array_equal(labels, [2, 0])


def test_nobody_can_write_to_it_and_the_callers_array_stays_writable():
    inputs = np.zeros((2, 3), np.float32)
    toy = Dataset(inputs, np.array([0, 1]), "toy")
    with pytest.raises(ValueError, match="read-only"):
        toy.inputs[0, 0] = 1.0
    inputs[0, 0] = 1.0


def test_batches_of_it_are_copies():
    toy = dataset([0, 1, 0, 1])
    inputs, _ = toy[np.array([0, 1])]
    inputs[:] = -1.0
    assert toy.inputs[0, 0] == 0.0


@pytest.mark.parametrize(
    ("inputs", "labels", "sentence"),
    [
        (np.zeros((0, 3), np.float32), np.zeros(0, np.int64), "is empty: it has 0 samples of 3 features"),
        (np.zeros((3, 0), np.float32), np.arange(3), "is empty: it has 3 samples of 0 features"),
        (np.zeros((3, 2), np.float32), np.full(3, 4), "at least two classes, but all of its 3 samples"),
        (np.zeros((3, 2), np.float32), np.arange(2), "it has 3 samples and 2 labels"),
        (np.float32([[1, 2], [3, np.nan]]), np.arange(2), "sample 1 has nan in feature 1"),
        (np.float32([[1, -np.inf], [3, 4]]), np.arange(2), "sample 0 has -inf in feature 1"),
        (np.zeros((3, 2, 2), np.float32), np.arange(3), "but they are (3, 2, 2) float32"),
        (np.zeros((3, 2)), np.arange(3), "but they are (3, 2) float64"),
        (np.zeros((3, 2), np.float32), np.arange(3, dtype=np.int32), "but they are (3,) int32"),
        (np.zeros((3, 2), np.float32), np.zeros((3, 1), np.int64), "but they are (3, 1) int64"),
        (np.zeros((3, 2), np.float32), np.array([0, -1, 1]), "it has the label -1"),
        (np.zeros((3, 2), np.float32), np.array([0, 1, 10**9]), "it has the label 1000000000"),
    ],
)
def test_wrong_data_gets_a_sentence_that_names_it(inputs, labels, sentence):
    with pytest.raises(RequestError) as caught:
        Dataset(inputs, labels, "toy")
    assert str(caught.value).startswith("The data set 'toy'")
    assert sentence in str(caught.value)


def test_a_part_keeps_the_classes_of_the_whole():
    part = dataset([0, 2, 1, 2]).take(np.array([0]), "part")
    assert (part.classes, len(part), part.name) == (3, 1, "part")
    with pytest.raises(RequestError, match="labels go from 0 to 1, but it has the label 5"):
        dataset([0, 5], classes=2)


def test_a_split_is_a_partition_in_proportion():
    whole = dataset([0] * 50 + [1] * 30 + [2] * 20)
    rest, part = stratified_split(whole, 0.1, seed=3)
    assert np.bincount(part.labels).tolist() == [5, 3, 2]
    assert np.bincount(rest.labels).tolist() == [45, 27, 18]
    ids = np.concatenate([rest.inputs[:, 0], part.inputs[:, 0]])
    np.testing.assert_array_equal(np.sort(ids), whole.inputs[:, 0])
    assert (np.diff(part.inputs[:, 0]) > 0).all()  # in the order of the whole


def test_a_split_depends_on_its_seed_alone():
    whole = dataset([0, 1] * 50)
    parts = [stratified_split(whole, 0.3, seed)[1].inputs.tobytes() for seed in (1, 1, 2)]
    assert parts[0] == parts[1] != parts[2]


def test_each_class_with_two_samples_is_on_both_sides():
    rest, part = stratified_split(dataset([0, 0, 1, 1, 1, 2]), 0.01, seed=0)
    assert np.bincount(part.labels, minlength=3).tolist() == [1, 1, 0]
    assert np.bincount(rest.labels).tolist() == [1, 2, 1]
    rest, part = stratified_split(dataset([0, 0, 1, 1, 1, 2]), 0.99, seed=0)
    assert np.bincount(rest.labels).tolist() == [1, 1, 1]


def test_an_impossible_split_gets_a_sentence():
    with pytest.raises(RequestError, match="each class of these 3 samples has only one"):
        stratified_split(dataset([0, 1, 2]), 0.5, seed=0)
    for fraction in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(RequestError, match="between 0 and 1"):
            stratified_split(dataset([0, 0, 1, 1]), fraction, seed=0)


def test_chance_is_a_function_of_seed_purpose_and_position():
    def draw(*arguments):
        return generator(*arguments).integers(2**62)

    assert draw(1, "a", 2, 3) == draw(1, "a", 2, 3)
    others = [draw(2, "a", 2, 3), draw(1, "b", 2, 3), draw(1, "a", 3, 2), draw(1, "a", 2), draw(1, "a", 2, 0)]
    assert len(set(others)) == 5
