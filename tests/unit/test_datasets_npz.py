"""A user's archive: what it may be called, and a sentence for what it may not be."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from paramserver.datasets import load
from paramserver.datasets.npz import load_npz
from paramserver.errors import Fault, RequestError

LABELS = np.arange(100) % 4
INPUTS = np.arange(600, dtype=np.float64).reshape(100, 2, 3)


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return tmp_path / "own.npz"

    return write


def refusal(path, **options):
    with pytest.raises(RequestError) as caught:
        load_npz(path, **options)
    assert str(path) in str(caught.value) or path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("names", [("x", "y"), ("X", "Y"), ("inputs", "labels"), ("data", "target")])
def test_one_pair_is_cut_in_three(save, names):
    splits = load(save(**{names[0]: INPUTS, names[1]: LABELS}))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [72, 8, 20]
    assert (splits.train.features, splits.train.classes) == (6, 4)
    ids = np.concatenate([part.inputs[:, 0] for part in (splits.train, splits.validation, splits.test)])
    np.testing.assert_array_equal(np.sort(ids), INPUTS[:, 0, 0])


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("inputs_train", "labels_train", "X_test", "Y_test"),
    ],
)
def test_a_test_set_of_its_own_is_kept(save, names):
    splits = load(save(**dict(zip(names, (INPUTS[:60], LABELS[:60], INPUTS[60:], LABELS[60:]), strict=True))))
    np.testing.assert_array_equal(splits.test.inputs, INPUTS[60:].reshape(40, 6))
    assert (len(splits.train), len(splits.validation)) == (52, 8)


def test_a_validation_set_of_its_own_is_kept(save):
    parts = {"train": slice(0, 60), "val": slice(60, 80), "test": slice(80, 100)}
    arrays = {f"{part}_images": INPUTS[rows] for part, rows in parts.items()}
    arrays |= {f"{part}_labels": LABELS[rows].reshape(-1, 1) for part, rows in parts.items()}
    splits = load(save(**arrays))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [60, 20, 20]
    np.testing.assert_array_equal(splits.validation.labels, LABELS[60:80])


def test_bytes_are_pixels_and_other_numbers_stay(save):
    pixels = np.tile(np.uint8([[0, 51, 255]]), (100, 1))
    np.testing.assert_array_equal(load(save(x=pixels, y=LABELS)).test.inputs[0], np.float32([0, 0.2, 1]))
    same = load(save(x=pixels.astype(np.int32), y=LABELS.astype(np.float32)))
    np.testing.assert_array_equal(same.test.inputs[0], np.float32([0, 51, 255]))
    assert same.test.labels.dtype == np.int64


def test_a_relative_file_is_found_in_the_data_folder(save):
    path = save(x=INPUTS, y=LABELS)
    assert len(load("own.npz", path.parent).test) == 20


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "but it holds none"),
        ({"a": INPUTS, "b": LABELS}, "x_train, y_train, x_test and y_test, or x and y, but it holds a, b"),
        ({"x": INPUTS}, "has 'x', but no labels to go with it"),
        ({"y": LABELS}, "has 'y', but no inputs to go with it"),
        ({"x_train": INPUTS, "y_train": LABELS}, "but it holds x_train, y_train"),
        ({"x": INPUTS, "inputs": INPUTS, "y": LABELS}, "both 'x' and 'inputs'"),
        ({"x": INPUTS, "y": LABELS[:99]}, "100 samples and 99 labels"),
        ({"x": INPUTS[:0], "y": LABELS[:0]}, "must be (samples, ...), but they are (0, 2, 3)"),
        ({"x": np.float64(1), "y": LABELS}, "must be (samples, ...), but they are ()"),
        ({"x": INPUTS, "y": np.zeros(100)}, "at least two classes"),
        ({"x": INPUTS, "y": LABELS - 1}, "it has the label -1"),
        (
            {"x": INPUTS, "y": LABELS + 0.5},
            "must be whole numbers from 0, but they are float64 such as [0.5,",
        ),
        ({"x": INPUTS, "y": np.full(100, np.nan)}, "must be whole numbers"),
        ({"x": INPUTS, "y": np.full(100, np.inf)}, "must be whole numbers"),
        ({"x": INPUTS, "y": np.array(["cat", "dog"] * 50)}, "must be whole numbers"),
        ({"x": INPUTS, "y": np.eye(4)[LABELS]}, "but they are (100, 4). One-hot labels"),
        ({"x": np.where(INPUTS == 8, np.nan, INPUTS), "y": LABELS}, "sample 1 has nan in feature 2"),
        ({"x": INPUTS * 1e300, "y": LABELS}, "has inf"),
        ({"x": INPUTS.astype(complex), "y": LABELS}, "must be numbers, but they are complex128"),
        ({"x": INPUTS, "y": np.arange(100)}, "only one"),
        (
            {"x_train": INPUTS, "y_train": LABELS, "x_test": INPUTS, "y_test": LABELS + 1},
            "'own.npz test' has 4 classes, so labels go from 0 to 3, but it has the label 4",
        ),
        (
            {"x_train": INPUTS, "y_train": LABELS, "x_test": INPUTS[:, 0], "y_test": LABELS},
            "'own.npz train' has 6 and 'own.npz test' has 3",
        ),
    ],
)
def test_arrays_that_are_no_data_set_get_a_sentence(save, arrays, sentence):
    path = save(**arrays)
    with pytest.raises(RequestError) as caught:
        load_npz(path)
    assert sentence in str(caught.value)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_python_objects_are_never_loaded(save, tmp_path):
    path = save(x=np.array([Bomb()], dtype=object), y=LABELS)
    assert "'x.npy' holds Python objects" in refusal(path)
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Bomb()))
        archive.writestr("y.npy", b"")
    assert "'x.npy' is no NumPy array" in refusal(tmp_path / "raw.npz")


def test_the_declared_size_is_checked_before_reading(save):
    path = save(x=INPUTS, y=LABELS)
    with pytest.raises(RequestError, match="bytes uncompressed, more than the limit of 1000") as caught:
        load_npz(path, bytes_max=1000)
    assert caught.value.fault is Fault.EXHAUSTED


def test_a_header_that_lies_allocates_nothing(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904,), }".ljust(117) + b"\n"
    buffer = io.BytesIO(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 80)
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue())
        archive.writestr("y.npy", buffer.getvalue())
    assert "bytes, but 80 follow" in refusal(tmp_path / "lie.npz")


def test_a_file_that_is_no_archive_gets_a_sentence(save, tmp_path):
    path = save(x=INPUTS, y=LABELS)
    content = path.read_bytes()
    assert "is no sound .npz file" in refusal_of(tmp_path / "cut.npz", content[:-30])
    assert "is no sound .npz file" in refusal_of(tmp_path / "text.npz", b"x,y\n1,2\n")
    assert "is no sound .npz file" in refusal_of(
        tmp_path / "flip.npz", content[:2000] + b"?" + content[2001:]
    )
    assert "There is no file" in refusal(tmp_path / "missing.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "cannot be read: Is a directory" in refusal(tmp_path / "folder.npz")


def refusal_of(path, content):
    path.write_bytes(content)
    return refusal(path)
