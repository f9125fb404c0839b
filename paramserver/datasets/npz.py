"""A user's own data from a NumPy archive.

The archive is a zip file of arrays. Which arrays are understood, by name, in any case:

- ``x_train``, ``y_train``, ``x_test``, ``y_test``, and optionally ``x_val``, ``y_val``: taken as they are;
  without a validation set, a stratified tenth of the training side is one;
- ``x`` and ``y``: a fixed stratified fifth is the test set.

For ``x`` one may write ``inputs``, ``data`` or ``images``; for ``y`` ``labels``, ``target`` or ``targets``;
for ``val`` ``valid`` or ``validation``; and ``train_x`` for ``x_train``.

Inputs may have any shape (n, ...) and are flattened to (n, features) float32; **uint8 is taken for pixels and
scaled by 1/255**, every other number stays as it is. Labels are whole numbers from 0, (n,) or (n, 1).
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from paramserver.data import Dataset, Labels
from paramserver.datasets.splits import Splits, cut_whole, scale_images, with_validation
from paramserver.errors import Fault, RequestError
from paramserver.types import AnyArray, Array

BYTES_MAX = 4 << 30
"""Uncompressed bytes of all arrays together: a few kilobytes of zip can declare terabytes."""

_INPUTS = ("x", "inputs", "data", "images")
_LABELS = ("y", "labels", "target", "targets")
_PARTS = {"": ("",), "train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}


def load_npz(path: Path, bytes_max: int = BYTES_MAX) -> Splits:
    """Read a data set from a NumPy archive; the text above says which arrays it may have.

    Args:
        path: the file.
        bytes_max: limit on the declared uncompressed bytes, checked before anything is read.

    Raises:
        RequestError: the file cannot be read, is too large, holds Python objects, or its arrays are not a
            data set; the sentence names file and array.
    """
    with _opened(path) as archive:
        return _read_splits(path, archive, bytes_max)


def _members(path: Path, archive: zipfile.ZipFile, bytes_max: int) -> dict[str, zipfile.ZipInfo]:
    """Return the arrays by name in lower case, after their declared size has been found bearable."""
    declared = sum(member.file_size for member in archive.infolist())
    if declared > bytes_max:
        raise RequestError(
            f"{path} declares {declared} bytes uncompressed, more than the limit of {bytes_max}.",
            Fault.EXHAUSTED,
        )
    return {member.filename.removesuffix(".npy").lower(): member for member in archive.infolist()}


def _read_splits(path: Path, archive: zipfile.ZipFile, bytes_max: int) -> Splits:
    names = _members(path, archive, bytes_max)
    pairs = {}
    for part in _PARTS:
        inputs_name, labels_name = _find(path, names, part, _INPUTS), _find(path, names, part, _LABELS)
        if inputs_name is None and labels_name is None:
            continue
        if inputs_name is None or labels_name is None:
            missing = "labels" if labels_name is None else "inputs"
            raise RequestError(f"{path} has '{inputs_name or labels_name}', but no {missing} to go with it.")
        pairs[part] = (inputs_name, labels_name)

    def read(part: str, classes: int = 0) -> Dataset:
        inputs_name, labels_name = pairs[part]
        inputs = _as_inputs(path, inputs_name, _read_array(path, archive, names[inputs_name]))
        labels = _as_labels(path, labels_name, _read_array(path, archive, names[labels_name]))
        return Dataset(inputs, labels, f"{path.name} {part}".strip(), classes)

    if "train" in pairs and "test" in pairs:
        train = read("train")
        validation = read("validation", train.classes) if "validation" in pairs else None
        return with_validation(train, read("test", train.classes), validation)
    if set(pairs) == {""}:
        return cut_whole(read(""))
    raise RequestError(
        f"{path} should hold the arrays x_train, y_train, x_test and y_test, or x and y, "
        f"but it holds {', '.join(names) or 'none'}."
    )


def read_npz_samples(path: Path, bytes_max: int = BYTES_MAX) -> tuple[Array, Labels | None, str]:
    """Read the samples of an archive that a model is to be tried on.

    Args:
        path: the file.
        bytes_max: limit on the declared uncompressed bytes.

    Returns:
        Inputs (n, features) float32, their labels or None, and which part they are: the test part where there
        is one, else the whole.

    Raises:
        RequestError: as `load_npz`.
    """
    with _opened(path) as archive:
        names = _members(path, archive, bytes_max)
        for part in ("test", ""):
            inputs_name, labels_name = (_find(path, names, part, kind) for kind in (_INPUTS, _LABELS))
            if inputs_name is None:
                continue
            inputs = _as_inputs(path, inputs_name, _read_array(path, archive, names[inputs_name]))
            if labels_name is None:
                return inputs, None, part
            labels = _as_labels(path, labels_name, _read_array(path, archive, names[labels_name]))
            return inputs, labels, part
    raise RequestError(
        f"{path} should hold the array x or x_test, and y or y_test if there are labels, but it holds "
        f"{', '.join(names) or 'none'}."
    )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive, and say what is wrong with it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise RequestError(f"There is no file {path}.", Fault.UNKNOWN) from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise RequestError(
            f"{path} is no sound .npz file ({error}). Write it with numpy.savez or numpy.savez_compressed."
        ) from None


def _find(path: Path, names: dict[str, zipfile.ZipInfo], part: str, kinds: tuple[str, ...]) -> str | None:
    """Give the one array with a name for this part and kind, if any."""
    found = [
        name
        for kind in kinds
        for word in _PARTS[part]
        for name in ([f"{kind}_{word}", f"{word}_{kind}"] if word else [kind])
        if name in names
    ]
    if len(found) > 1:
        raise RequestError(f"{path} holds both '{found[0]}' and '{found[1]}', which mean the same. Drop one.")
    return found[0] if found else None


def _read_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> AnyArray:
    """Read one array, after its header has been compared with the bytes that are there.

    NumPy allocates what the header declares before it reads, so a header that lies must not reach it.
    """
    try:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
            bytes_follow = member.file_size - file.tell()
        if dtype.hasobject:
            raise RequestError(
                f"{path}: the array '{member.filename}' holds Python objects, which are never loaded. "
                f"Save it as numbers."
            )
        bytes_declared = math.prod(shape) * dtype.itemsize
        if bytes_declared != bytes_follow:
            raise RequestError(
                f"{path}: the array '{member.filename}' declares {shape} {dtype}, which is {bytes_declared} "
                f"bytes, but {bytes_follow} follow."
            )
        with archive.open(member) as file:
            array: AnyArray = np.lib.format.read_array(file, allow_pickle=False)
            return array
    except RequestError:
        raise
    except (ValueError, KeyError) as error:
        raise RequestError(f"{path}: '{member.filename}' is no NumPy array ({error}).") from None


def _as_inputs(path: Path, name: str, array: AnyArray) -> Array:
    if array.dtype.kind not in "fiub":
        raise RequestError(f"{path}: the inputs '{name}' must be numbers, but they are {array.dtype}.")
    if array.ndim < 1 or array.size == 0:
        raise RequestError(f"{path}: the inputs '{name}' must be (samples, ...), but they are {array.shape}.")
    if array.dtype == np.uint8:
        return scale_images(array, 255)
    with np.errstate(
        over="ignore"
    ):  # a number too large for float32 becomes infinite, and is refused as such
        return array.reshape(len(array), -1).astype(np.float32)


def _as_labels(path: Path, name: str, array: AnyArray) -> Labels:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise RequestError(
            f"{path}: the labels '{name}' must be one whole number per sample, (n,) or (n, 1), but they are "
            f"{array.shape}. One-hot labels become numbers with argmax(axis=1)."
        )
    whole = array.dtype.kind in "iub" or (array.dtype.kind == "f" and bool((array == np.rint(array)).all()))
    if not whole or not (np.abs(array.astype(np.float64)) < 2**53).all():
        raise RequestError(
            f"{path}: the labels '{name}' must be whole numbers from 0, but they are {array.dtype} "
            f"such as {array[:3].tolist()}."
        )
    return array.astype(np.int64)
