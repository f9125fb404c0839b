"""Write and read one safetensors file: float32 tensors by name, and nothing that could run.

The format is a little-endian uint64, that many bytes of JSON (name to dtype, shape and byte range), and the
values (Hugging Face, "safetensors", format). It is written here in one pass, because `save_file` copies all
tensors first and a hash would read them again: for Adam's state that is three times the weights. Reading
and checking is left to the library.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from paramserver.errors import RequestError
from paramserver.storage.atomic import replacing
from paramserver.types import Array

_ALIGNMENT = 8  # the values begin at a multiple of it, as the format asks
_CHUNK_BYTES = 1 << 20


def write_tensor_file(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """Write tensors to a safetensors file atomically.

    Args:
        path: the file; an old one is replaced.
        tensors: any shapes, float32.
        metadata: plain text by name, kept in the header.

    Returns:
        SHA-256 of the file, in hexadecimal.

    Raises:
        JobError: the disk refuses.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + 4 * tensor.size
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    digest = hashlib.sha256()
    with replacing(path) as file:
        pieces: Iterable[bytes | memoryview] = (
            struct.pack("<Q", len(text)),
            text,
            *map(value_bytes, tensors.values()),
        )
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def value_bytes(tensor: Array) -> memoryview:
    """View a tensor as its little-endian bytes in C order; copies only where it is laid out otherwise."""
    return np.ascontiguousarray(tensor, dtype="<f4").reshape(-1).view(np.uint8).data


class TensorReader:
    """Read tensors of an open file by name; use `open_tensor_file` to get one."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self.names = frozenset(file.keys())
        self.metadata: dict[str, str] = file.metadata() or {}
        self._file = file

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Compare shape and dtype in the header without reading values.

        Raises:
            RequestError: the tensor is missing, or has another shape or dtype.
        """
        if name not in self.names:
            raise RequestError(f"{self.path} should hold the tensor '{name}', but it does not.")
        entry = self._file.get_slice(name)
        found_shape, found_dtype = tuple(entry.get_shape()), entry.get_dtype()
        if found_shape != shape or found_dtype != "F32":
            raise RequestError(
                f"{self.path}: the tensor '{name}' should be {shape} F32, "
                f"but it is {found_shape} {found_dtype}."
            )

    def read(self, name: str, shape: tuple[int, ...]) -> Array:
        """Read one tensor.

        Args:
            name: its name in the file.
            shape: the shape it must have.

        Returns:
            A copy of that shape, float32.

        Raises:
            RequestError: the tensor is missing, or has another shape or dtype.
        """
        self.check(name, shape)
        values: Array = self._file.get_tensor(name)
        return values


@contextmanager
def open_tensor_file(path: Path) -> Iterator[TensorReader]:
    """Open a safetensors file for reading.

    Raises:
        RequestError: the file is missing or not sound.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            yield TensorReader(path, file)
    except SafetensorError as error:
        raise RequestError(f"{path} is no sound safetensors file ({error}).") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from None


def file_sha256(path: Path) -> str:
    """Hash a file without holding it in memory.

    Raises:
        RequestError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from None
    return digest.hexdigest()
