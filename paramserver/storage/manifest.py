"""The last file of a checkpoint: what belongs to it, and how to know that it is whole.

A checkpoint without its manifest was never finished. The manifest names every file with its SHA-256, says
which rows of which tensor each one holds, and is strict when read back: whatever does not fit together ends
in a sentence that names it, before any tensor is touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paramserver.errors import Fault, RequestError
from paramserver.events import Slice, TensorSpec
from paramserver.placement import rows_of
from paramserver.storage.atomic import write_json

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
MANIFEST_BYTES_MAX = 64 << 20
"""Room for hundreds of thousands of slices; more is a mistake."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")


@dataclass(frozen=True)
class ShardFile:
    """Say what one shard has written.

    Attributes:
        name: the file's name in the checkpoint folder, such as ``shard-0000-of-0002.safetensors``.
        shard: which shard, from 0.
        version: updates applied to its weights.
        generation: of the job's weights.
        sha256: of the whole file, in hexadecimal.
        state_names: the optimizer's state arrays, such as ``0.adam/m``, for each slice.
        slices: the rows in the file.
    """

    name: str
    shard: int
    version: int
    generation: int
    sha256: str
    state_names: tuple[str, ...]
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Manifest:
    """Say what a whole checkpoint is.

    Attributes:
        tensors: keys, shapes and dtypes, in key order.
        files: one for each shard, in shard order.
        generation: of the job's weights.
        optimizer: such as ``adam``; its state is in the files.
        weights_sha256: of all weights in key order, as `paramserver.types.tensors_sha256` gives it.
        details: what else the writer wants to keep (model, consistency, seed), as JSON values.

    Raises:
        RequestError: the parts do not make one whole.
    """

    tensors: tuple[TensorSpec, ...]
    files: tuple[ShardFile, ...]
    generation: int
    optimizer: str
    weights_sha256: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shards = [file.shard for file in self.files]
        if not shards or shards != list(range(len(shards))):
            raise RequestError(
                f"A checkpoint needs one file for each shard from 0 in order, "
                f"but it has files of the shards {shards}."
            )
        for file in self.files:
            self._check_file(file)
        self._check_rows()

    @property
    def versions(self) -> tuple[int, ...]:
        """Version of each shard."""
        return tuple(file.version for file in self.files)

    @property
    def slices(self) -> tuple[Slice, ...]:
        """All slices, by key and row."""
        parts = (part for file in self.files for part in file.slices)
        return tuple(sorted(parts, key=lambda part: (part.key, part.row_begin)))

    @property
    def state_names(self) -> tuple[str, ...]:
        """The optimizer's state arrays, the same for every tensor."""
        return next((file.state_names for file in self.files if file.slices), ())

    def _check_file(self, file: ShardFile) -> None:
        if not _PLAIN_NAME.match(file.name):
            raise RequestError(
                f"A checkpoint's files lie in its own folder, but its manifest names '{file.name}'. "
                f"Do not use this checkpoint."
            )
        if file.generation != self.generation:
            raise RequestError(
                f"The checkpoint is of generation {self.generation}, but {file.name} is of generation "
                f"{file.generation}: these files were not written together."
            )
        if file.slices and file.state_names != self.state_names:
            raise RequestError(
                f"Every shard needs the same optimizer state, but {file.name} has {list(file.state_names)} "
                f"and another has {list(self.state_names)}."
            )
        if any(part.shard != file.shard for part in file.slices):
            raise RequestError(f"{file.name} is of shard {file.shard}, but it has slices of another shard.")

    def _check_rows(self) -> None:
        """Demand that the slices of each tensor cover its rows once."""
        next_row = {tensor.key: 0 for tensor in self.tensors}
        if len(next_row) != len(self.tensors):
            raise RequestError("A checkpoint's keys must differ, but its manifest names one key twice.")
        for part in self.slices:
            if part.key not in next_row:
                raise RequestError(f"The checkpoint has rows of '{part.key}', which is none of its tensors.")
            if part.row_begin != next_row[part.key] or part.row_end <= part.row_begin:
                raise RequestError(
                    f"The checkpoint's slices of '{part.key}' should go on at row "
                    f"{next_row[part.key]}, but the next one has the rows {part.row_begin} to {part.row_end}."
                )
            next_row[part.key] = part.row_end
        for tensor in self.tensors:
            if tensor.dtype != "float32":
                raise RequestError(f"The tensor '{tensor.key}' is {tensor.dtype}, but only float32 is known.")
            if next_row[tensor.key] != rows_of(tensor.shape):
                raise RequestError(
                    f"The checkpoint should hold {rows_of(tensor.shape)} rows of '{tensor.key}', but its "
                    f"slices end at row {next_row[tensor.key]}."
                )


def save_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write ``manifest.json`` atomically, and return its path.

    Raises:
        JobError: the disk refuses.
    """
    write_json(
        folder / MANIFEST,
        {
            "format_version": FORMAT_VERSION,
            "generation": manifest.generation,
            "versions": manifest.versions,
            "optimizer": manifest.optimizer,
            "weights_sha256": manifest.weights_sha256,
            "details": manifest.details,
            "tensors": [
                {"key": tensor.key, "shape": tensor.shape, "dtype": tensor.dtype}
                for tensor in manifest.tensors
            ],
            "files": [
                {
                    "name": file.name,
                    "shard": file.shard,
                    "version": file.version,
                    "generation": file.generation,
                    "sha256": file.sha256,
                    "state_names": file.state_names,
                    "slices": [
                        {"key": part.key, "row_begin": part.row_begin, "row_end": part.row_end}
                        for part in file.slices
                    ],
                }
                for file in manifest.files
            ],
        },
    )
    return folder / MANIFEST


def load_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` and check that it describes one whole.

    Raises:
        RequestError: it is missing, of another format, or contradicts itself.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MANIFEST_BYTES_MAX:
            raise RequestError(
                f"{path} is larger than the limit of {MANIFEST_BYTES_MAX} bytes.", Fault.EXHAUSTED
            )
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RequestError(
            f"{folder} is no finished checkpoint: it has no {MANIFEST}, which is written last.", Fault.UNKNOWN
        ) from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"{path} is no sound JSON ({error}).") from None
    found = record.get("format_version") if isinstance(record, dict) else None
    if found != FORMAT_VERSION:
        raise RequestError(f"{path} should have format_version {FORMAT_VERSION}, but it has {found}.")
    fields = _Fields(path, record)
    return Manifest(
        tensors=tuple(
            TensorSpec(tensor.text("key"), tensor.sizes("shape"), tensor.text("dtype"))
            for tensor in fields.records("tensors")
        ),
        files=tuple(_shard_file(file) for file in fields.records("files")),
        generation=fields.count("generation"),
        optimizer=fields.text("optimizer"),
        weights_sha256=fields.text("weights_sha256"),
        details=fields.get("details", dict),
    )


def _shard_file(file: _Fields) -> ShardFile:
    shard = file.count("shard")
    return ShardFile(
        name=file.text("name"),
        shard=shard,
        version=file.count("version"),
        generation=file.count("generation"),
        sha256=file.text("sha256"),
        state_names=file.texts("state_names"),
        slices=tuple(
            Slice(part.text("key"), part.count("row_begin"), part.count("row_end"), shard)
            for part in file.records("slices")
        ),
    )


class _Fields:
    """Read the fields of one JSON object, each with the type that it must have."""

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self._path = path
        self._record = record

    def get(self, name: str, kind: type) -> Any:
        value = self._record.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(name, f"of type {kind.__name__}")
        return value

    def text(self, name: str) -> str:
        return str(self.get(name, str))

    def count(self, name: str) -> int:
        value = int(self.get(name, int))
        if value < 0:
            raise self._wrong(name, "0 or more")
        return value

    def sizes(self, name: str) -> tuple[int, ...]:
        values = self.get(name, list)
        if not all(type(value) is int and value > 0 for value in values):
            raise self._wrong(name, "a list of numbers above 0")
        return tuple(values)

    def texts(self, name: str) -> tuple[str, ...]:
        values = self.get(name, list)
        if not all(isinstance(value, str) for value in values):
            raise self._wrong(name, "a list of texts")
        return tuple(values)

    def records(self, name: str) -> list[_Fields]:
        values = self.get(name, list)
        if not all(isinstance(value, dict) for value in values):
            raise self._wrong(name, "a list of objects")
        return [_Fields(self._path, value) for value in values]

    def _wrong(self, name: str, expected: str) -> RequestError:
        found = json.dumps(self._record.get(name))
        return RequestError(f"{self._path}: '{name}' should be {expected}, but it is {found[:60]}.")
