"""Read the IDX format, in which MNIST and its relatives are published.

A file is a magic number (two zero bytes, a type byte, the number of dimensions), one big-endian uint32 for
each dimension, and the values in C order (Y. LeCun, C. Cortes, "The MNIST database", file formats).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from paramserver.errors import RequestError

UINT8 = 0x08
"""The type byte of unsigned bytes, the only type that the MNIST family uses."""

BYTES_MAX = 4 << 30
"""The largest array that is read: a damaged header can declare 2**96 bytes."""


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read one gzipped IDX file of unsigned bytes.

    Args:
        path: the file, ending in ``.gz``.
        dimensions: how many dimensions it must have: 1 for labels, 3 for images.

    Returns:
        An array of that many dimensions, uint8.

    Raises:
        RequestError: the file cannot be read, is not IDX of this kind, or is longer or shorter than its
            header says.
    """
    try:
        with gzip.open(path, "rb") as file:
            return _parse(path, file, dimensions)
    except EOFError:
        raise RequestError(f"{path} is truncated: its gzip stream ends too early. Fetch it again.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise RequestError(f"{path} is no sound gzip file ({error}). Fetch it again.") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from None


def _parse(path: Path, file: gzip.GzipFile, dimensions: int) -> npt.NDArray[np.uint8]:
    expected = bytes([0, 0, UINT8, dimensions])
    magic = file.read(4)
    if magic != expected:
        raise RequestError(
            f"{path} should be an IDX file of unsigned bytes with {dimensions} dimensions (magic number "
            f"{expected.hex()}), but it begins with {magic.hex() or 'nothing'}."
        )
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise RequestError(f"{path} is truncated: it ends within its header. Fetch it again.")
    shape = struct.unpack(f">{dimensions}I", sizes)
    declared = math.prod(shape)
    if declared > BYTES_MAX:
        raise RequestError(f"{path} declares {declared} bytes {shape}, more than the limit of {BYTES_MAX}.")
    values = file.read(declared)
    if len(values) < declared:
        raise RequestError(
            f"{path} is truncated: its header declares {declared} bytes {shape}, but {len(values)} follow. "
            f"Fetch it again."
        )
    if file.read(1):
        raise RequestError(f"{path} declares {declared} bytes {shape}, but more follow. Fetch it again.")
    return np.frombuffer(values, np.uint8).reshape(shape)
