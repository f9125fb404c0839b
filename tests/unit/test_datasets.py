"""The named data sets: their sizes, their splits, and a sentence for every file that is not sound."""

import gzip
import struct

import numpy as np
import pytest

from paramserver.datasets import NAMES, load
from paramserver.datasets.fashion_mnist import DEBIAN_FOLDER, FOLDER_VARIABLE
from paramserver.datasets.idx import read_idx
from paramserver.errors import Fault, RequestError


def idx_bytes(array, magic=None):
    head = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def family(tmp_path):
    """A folder with a tiny set in the four files of the MNIST family."""
    rng = np.random.default_rng(0)
    for prefix, samples in (("train", 200), ("t10k", 40)):
        images, labels = rng.integers(0, 256, (samples, 4, 5)), np.arange(samples) % 10
        images[0, 0, 0] = 255
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return tmp_path


def test_digits_come_with_the_package():
    splits = load("digits")
    parts = [splits.train, splits.validation, splits.test]
    assert sum(len(part) for part in parts) == 1797
    assert len(splits.test) == pytest.approx(0.2 * 1797, abs=5)
    assert len(splits.validation) == pytest.approx(0.08 * 1797, abs=5)
    for part in parts:
        assert (part.features, part.classes) == (64, 10)
        assert part.inputs.min() == 0.0
        assert part.inputs.max() == 1.0
        assert np.bincount(part.labels) / len(part) == pytest.approx([0.1] * 10, abs=0.01)
    # The published file: 178 zeros, 182 ones, 177 twos, ... and 561,718 set bits.
    labels = np.concatenate([part.labels for part in parts])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert sum(float(part.inputs.astype(np.float64).sum()) for part in parts) * 16 == 561718


def test_the_split_of_digits_is_always_the_same():
    first, second = load("digits"), load("digits")
    assert first.test.inputs.tobytes() == second.test.inputs.tobytes()
    train = {row.tobytes() for row in first.train.inputs}
    assert not any(row.tobytes() in train for row in first.test.inputs)


def test_a_family_folder_is_read_and_split(family, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, "/does/not/exist")  # --data-dir comes first
    splits = load("fashion-mnist", family)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [180, 20, 40]
    assert np.bincount(splits.validation.labels).tolist() == [2] * 10
    assert splits.test.inputs.shape == (40, 20)
    assert splits.test.inputs[0, 0] == 1.0


def test_the_variable_names_the_folder(family, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(family))
    assert len(load("fashion-mnist").test) == 40


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_of_debian(monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    splits = load("fashion-mnist")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [54_000, 6_000, 10_000]
    assert np.bincount(splits.test.labels).tolist() == [1_000] * 10
    assert np.bincount(splits.validation.labels).tolist() == [600] * 10
    assert (splits.train.features, splits.train.classes) == (784, 10)
    # The mean that the training images are known for is 0.2860.
    assert splits.train.inputs[::10].mean() == pytest.approx(0.2860, abs=2e-3)


def test_missing_files_say_where_and_how_to_get_them(family, monkeypatch):
    (family / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(RequestError) as caught:
        load("fashion-mnist", family)
    sentence = str(caught.value)
    assert str(family) in sentence
    assert "t10k-labels-idx1-ubyte.gz is not there" in sentence
    assert "dataset-fashion-mnist" in sentence
    assert "--data-dir" in sentence
    assert FOLDER_VARIABLE in sentence


def test_images_and_labels_must_agree(family):
    labels = gzip.compress(idx_bytes(np.zeros(39)))
    (family / "t10k-labels-idx1-ubyte.gz").write_bytes(labels)
    with pytest.raises(RequestError, match=r"40 images, but t10k-labels-idx1-ubyte\.gz .* 39 labels"):
        load("fashion-mnist", family)


SOUND = idx_bytes(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (gzip.compress(b""), "begins with nothing"),
        (gzip.compress(idx_bytes(np.zeros(4))), "(magic number 00000803), but it begins with 00000801"),
        (gzip.compress(b"\0\0\x0d\x03" + SOUND[4:]), "begins with 00000d03"),
        (gzip.compress(SOUND[:10]), "ends within its header"),
        (gzip.compress(SOUND[:-1]), "declares 24 bytes (2, 3, 4), but 23 follow"),
        (gzip.compress(SOUND + b"x"), "declares 24 bytes (2, 3, 4), but more follow"),
        (gzip.compress(SOUND[:4] + b"\xff" * 12), "more than the limit"),
        (gzip.compress(SOUND)[:-6], "its gzip stream ends too early"),
        (SOUND, "is no sound gzip file"),
        (gzip.compress(SOUND)[:12] + b"\xff\xff\xff" + gzip.compress(SOUND)[15:], "is no sound gzip file"),
    ],
)
def test_an_unsound_idx_file_gets_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_idx(path, dimensions=3)
    assert str(caught.value).startswith(str(path))
    assert sentence in str(caught.value)


def test_a_sound_idx_file_is_read(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(SOUND))
    np.testing.assert_array_equal(read_idx(path, 3), np.arange(24).reshape(2, 3, 4))
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read_idx(tmp_path / "other.gz", 3)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("digit", " Did you mean 'digits'?"), ("fashion_mnist", "'fashion-mnist'?"), ("", "")],
)
def test_an_unknown_name_gets_a_suggestion(name, suggestion):
    with pytest.raises(
        RequestError, match=f"^Unknown data set '{name}': expected {', '.join(NAMES)}"
    ) as caught:
        load(name)
    assert str(caught.value).endswith(suggestion)
    assert caught.value.fault is Fault.UNKNOWN
