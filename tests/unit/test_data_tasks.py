"""A data set may hold quantities for labels and table rows for inputs, and says what does not fit."""

import numpy as np
import pytest

from paramserver.data import Dataset, stratified_split
from paramserver.datasets import Splits
from paramserver.datasets.splits import cut_whole
from paramserver.errors import RequestError

NUMBERS = np.arange(8, dtype=np.float32).reshape(4, 2)
ROWS = np.arange(8).reshape(4, 2)
LABELS = np.array([0, 1, 1, 0])
QUANTITIES = np.float32([0.5, -1, 2, 3])


def test_regression_has_quantities_and_no_classes():
    data = Dataset(NUMBERS, QUANTITIES, "toy", task="regression")
    assert (data.classes, data.rows, data.task) == (0, 0, "regression")
    part = data.take(np.array([2]), "part")
    assert (part.task, part.labels.tolist()) == ("regression", [2.0])


def test_a_binary_task_has_two_classes_even_where_one_occurs():
    assert Dataset(NUMBERS, np.zeros(4, np.int64), "toy", task="binary").classes == 2


def test_rows_of_a_table_are_kept_with_the_tables_size():
    data = Dataset(ROWS, LABELS, "toy", task="binary", rows=100)
    assert (data.features, data.rows) == (2, 100)
    assert data.take(np.array([0]), "part").rows == 100
    assert Dataset(ROWS, LABELS, "toy").rows == 8
    inputs, labels = data[np.array([3, 0])]
    assert inputs.tolist() == [[6, 7], [0, 1]]
    assert inputs.dtype == labels.dtype == np.int64


def test_one_sample_is_a_pair_as_torch_has_it():
    inputs, label = Dataset(NUMBERS, LABELS, "toy")[2]
    assert (inputs.tolist(), int(label)) == ([4.0, 5.0], 1)


@pytest.mark.parametrize(
    ("inputs", "labels", "options", "sentence"),
    [
        (NUMBERS, LABELS, {"task": "regresion"}, "not 'regresion'. Did you mean 'regression'?"),
        (
            NUMBERS,
            LABELS,
            {"task": "regression"},
            "labels of shape (samples,) float32, but they are (4,) int64",
        ),
        (NUMBERS, QUANTITIES, {}, "labels of shape (samples,) int64, but they are (4,) float32"),
        (NUMBERS, QUANTITIES[:3], {"task": "regression"}, "4 samples and 3 labels"),
        (NUMBERS, np.float32([0, 1, np.inf, 2]), {"task": "regression"}, "sample 2 has inf"),
        (NUMBERS, LABELS + 1, {"task": "binary"}, "labels go from 0 to 1, but it has the label 2"),
        (NUMBERS, LABELS, {"rows": 9}, "9 table rows, but its inputs are float32"),
        (ROWS - 1, LABELS, {}, "sample 0 has -1 in field 0"),
        (ROWS, LABELS, {"rows": 7}, "rows from 0 to 6, but sample 3 has 7 in field 1"),
        (ROWS * 10**12, LABELS, {}, "sample 0 has 1000000000000 in field 1"),
        (ROWS.astype(np.int32), LABELS, {}, "but they are (4, 2) int32"),
        (NUMBERS, LABELS, {"class_names": ("a", "b", "c")}, "2 classes, but 3 names"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(inputs, labels, options, sentence):
    with pytest.raises(RequestError) as caught:
        Dataset(inputs, labels, "toy", **options)
    assert "'toy'" in str(caught.value)
    assert sentence in str(caught.value)


def test_labels_can_be_read_for_another_task():
    data = Dataset(NUMBERS, LABELS, "toy", class_names=("no", "yes"))
    assert data.with_task("classification") is data
    binary = data.with_task("binary")
    assert (binary.task, binary.labels.dtype, binary.class_names) == ("binary", np.int64, ("no", "yes"))
    assert binary.with_task("classification").classes == 2
    quantities = data.with_task("regression")
    assert (quantities.labels.dtype, quantities.classes, quantities.class_names) == (np.float32, 0, ())
    with pytest.raises(RequestError, match="are quantities, so the task is regression, and cannot be binary"):
        quantities.with_task("binary")
    with pytest.raises(RequestError, match="are 3 classes, so the task is classification"):
        Dataset(NUMBERS, np.array([0, 1, 2, 0]), "toy").with_task("binary")


def test_quantities_are_split_by_chance():
    numbers = np.arange(100, dtype=np.float32)
    whole = Dataset(numbers.reshape(-1, 1), numbers, "line", task="regression")
    rest, part = stratified_split(whole, 0.3, seed=1)
    assert (len(rest), len(part), part.task) == (70, 30, "regression")
    assert sorted([*rest.labels, *part.labels]) == numbers.tolist()
    splits = cut_whole(whole)
    assert [len(each) for each in (splits.train, splits.validation, splits.test)] == [72, 8, 20]
    with pytest.raises(RequestError, match="at least two samples, but 'line' has one"):
        stratified_split(whole.take(np.array([0]), "line"), 0.5, seed=0)


def test_the_parts_of_a_data_set_are_of_one_kind():
    binary = Dataset(ROWS, LABELS, "one", task="binary", rows=10)
    assert Splits(binary, binary, binary).with_task("classification").test.task == "classification"
    other = Dataset(ROWS, LABELS, "two", task="binary", rows=11)
    with pytest.raises(RequestError, match="'one' has binary and 10 rows, and 'two' has binary and 11 rows"):
        Splits(binary, binary, other)
