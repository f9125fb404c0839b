"""Write files whole or not at all, whatever ends the process."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from paramserver.errors import JobError

_PARTIAL = ".partial"
"""How the names of files end that are being written."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its place when the block ends without an error.

    The bytes reach the disk before the name does, so a reader finds the old file or the whole new one, also
    after a crash. Blocks until the disk has them.

    Raises:
        JobError: the disk refuses; the old file, if any, is untouched.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
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


def remove_partial(folder: Path, name: str = "*") -> None:
    """Remove what writers that were ended in the middle have left in a folder; nobody may be writing there.

    Args:
        folder: where.
        name: of the file that they meant to write, or a pattern.
    """
    for left in folder.glob(f".{name}.*{_PARTIAL}"):
        left.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it that are not there, so that its name survives a power cut.

    Whoever has created it a moment before may not have come so far as to wait for the disk, so this does in
    any case.

    Raises:
        JobError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_names(folder)
    except OSError as error:
        raise JobError(f"The folder {folder} cannot be created: {error.strerror or error}.") from error


def sync_names(folder: Path) -> None:
    """Make the names of a folder, and of the one above it, survive a power cut."""
    for above in (folder.parent, folder.parent.parent):
        with suppress(PermissionError):  # one that may not be read cannot be synced
            sync_folder(above)


def sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
