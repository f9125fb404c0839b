"""Write files whole or not at all, whatever ends the process."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from paramserver.errors import JobError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its place when the block ends without an error.

    The bytes reach the disk before the name does, so a reader finds the old file or the whole new one, also
    after a crash. Blocks until the disk has them.

    Raises:
        JobError: the disk refuses; the old file, if any, is untouched.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise JobError(
            f"{path} cannot be written: {error.strerror or error}. Free some space or choose another folder."
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        JobError: the disk refuses.
    """
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON atomically; see `json_text` for what it may hold.

    Raises:
        JobError: the disk refuses.
    """
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """Render a value as strict JSON.

    NumPy scalars and arrays become numbers and lists. A number that is not finite becomes null, because
    JSON has none and a diverged loss must not cost the whole report.

    Example:
        >>> json_text({"loss": float("nan"), "versions": (3, 3)})
        '{"loss": null, "versions": [3, 3]}'
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, os.PathLike) else value


def sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
