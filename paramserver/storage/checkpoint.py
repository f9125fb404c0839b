"""Checkpoints: each server writes its own slices, the coordinator writes the manifest last.

A folder holds one checkpoint: ``shard-0000-of-0002.safetensors`` and so on, then ``manifest.json``. Until the
manifest is there, the folder is no checkpoint; when a file has changed since, it is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from paramserver.errors import RequestError
from paramserver.events import Slice, TensorSpec
from paramserver.placement import slice_shape
from paramserver.storage.atomic import make_folder
from paramserver.storage.manifest import Manifest, ShardFile, load_manifest, save_manifest
from paramserver.storage.tensor_file import (
    TensorReader,
    file_sha256,
    open_tensor_file,
    value_bytes,
    write_tensor_file,
)
from paramserver.types import Array, tensors_sha256


@dataclass(frozen=True, eq=False)
class SliceValues:
    """Hold what a shard owns of one tensor.

    Attributes:
        part: key, rows and shard.
        values: the weights, float32, with the rows of `part` on axis 0.
        state: the optimizer's arrays by name, each of the shape of `values`, float32.
    """

    part: Slice
    values: Array
    state: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Hold a checkpoint in memory, put together again.

    Attributes:
        weights: whole tensors by key, float32.
        state: the optimizer's arrays by key and name, each of the tensor's shape: ``state[key]["0.adam/m"]``.
        manifest: versions, generation, optimizer and the rest.
    """

    weights: dict[str, Array]
    state: dict[str, dict[str, Array]]
    manifest: Manifest

    @property
    def versions(self) -> tuple[int, ...]:
        """Version of each shard."""
        return self.manifest.versions


def write_shard(
    folder: Path,
    shard: int,
    shards: int,
    slices: Iterable[SliceValues],
    version: int,
    generation: int,
    notes: Mapping[str, str] | None = None,
) -> ShardFile:
    """Write one shard's file atomically.

    Args:
        folder: the checkpoint's folder; it is created where it does not exist.
        shard: which shard, from 0.
        shards: how many there are.
        slices: what it owns. The arrays must not change until this returns.
        version: updates applied to these values.
        generation: of the job's weights.
        notes: more to keep with them, by name.

    Returns:
        What the manifest must know of the file.

    Raises:
        RequestError: an array does not fit its slice, or the slices differ in their state.
        JobError: the disk refuses.
    """
    tensors: dict[str, Array] = {}
    parts: list[Slice] = []
    state_names: tuple[str, ...] | None = None
    for item in slices:
        names = tuple(sorted(item.state))
        if state_names is not None and names != state_names:
            raise RequestError(
                f"All slices of a shard need the same optimizer state, but '{item.part.key}' has "
                f"{list(names)} and the one before has {list(state_names)}."
            )
        state_names = names
        _check_arrays(item)
        tensors[weights_name(item.part)] = item.values
        tensors |= {state_name(item.part, name): item.state[name] for name in names}
        parts.append(item.part)
    name = f"shard-{shard:04d}-of-{shards:04d}.safetensors"
    make_folder(folder)
    metadata = dict(notes or {})
    metadata |= {"version": str(version), "generation": str(generation), "shard": str(shard)}
    sha256 = write_tensor_file(folder / name, tensors, metadata)
    return ShardFile(name, shard, version, generation, sha256, state_names or (), tuple(parts))


def write_manifest(
    folder: Path,
    tensors: Iterable[TensorSpec],
    files: Iterable[ShardFile],
    generation: int,
    optimizer: str,
    details: Mapping[str, Any] | None = None,
) -> Manifest:
    """Finish a checkpoint: hash the weights in the shards' files, then write the manifest.

    Reads the weights once from disk, a slice at a time.

    Args:
        folder: where all shards have written their files.
        tensors: keys, shapes and dtypes of the whole model.
        files: what `write_shard` returned, for every shard.
        generation: of the job's weights.
        optimizer: such as ``adam``.
        details: what else to keep, as JSON values.

    Returns:
        The manifest, with the hash of the weights.

    Raises:
        RequestError: the files do not make one whole.
        JobError: the disk refuses.
    """
    manifest = Manifest(
        tensors=tuple(sorted(tensors, key=lambda tensor: tensor.key)),
        files=tuple(sorted(files, key=lambda file: file.shard)),
        generation=generation,
        optimizer=optimizer,
        weights_sha256="",
        details=dict(details or {}),
    )
    shapes = {tensor.key: tensor.shape for tensor in manifest.tensors}
    digest = hashlib.sha256()
    with ExitStack() as stack:
        readers = [stack.enter_context(open_tensor_file(folder / file.name)) for file in manifest.files]
        for file, reader in zip(manifest.files, readers, strict=True):
            _check_content(file, reader, shapes)
        for part in manifest.slices:
            values = readers[part.shard].read(weights_name(part), slice_shape(shapes[part.key], part))
            digest.update(value_bytes(values))
    manifest = replace(manifest, weights_sha256=digest.hexdigest())
    save_manifest(folder, manifest)
    return manifest


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint into whole tensors.

    Nothing is allocated before manifest, hashes and headers agree.

    Raises:
        RequestError: the checkpoint is not finished, torn, changed since, or contradicts itself.
    """
    manifest = load_manifest(folder)
    shapes = {tensor.key: tensor.shape for tensor in manifest.tensors}
    for file in manifest.files:
        check_file(folder, file)
        with open_tensor_file(folder / file.name) as reader:
            _check_content(file, reader, shapes)
    weights = {key: np.empty(shape, np.float32) for key, shape in shapes.items()}
    state = {
        key: {name: np.empty(shape, np.float32) for name in manifest.state_names}
        for key, shape in shapes.items()
    }
    for file in manifest.files:
        with open_tensor_file(folder / file.name) as reader:
            for part in file.slices:
                shape = slice_shape(shapes[part.key], part)
                _fill(weights[part.key], part, reader.read(weights_name(part), shape))
                for name, whole in state[part.key].items():
                    _fill(whole, part, reader.read(state_name(part, name), shape))
    found = tensors_sha256(weights)
    if found != manifest.weights_sha256:
        raise RequestError(
            f"The weights in {folder} should have the SHA-256 {manifest.weights_sha256[:12]}..., but have "
            f"{found[:12]}...: its files and its manifest do not belong together. Use an earlier checkpoint."
        )
    return Checkpoint(weights, state, manifest)


def check_file(folder: Path, file: ShardFile) -> None:
    """Refuse a file that is not the one that was written; reads it whole.

    Raises:
        RequestError: it is missing, torn or changed.
    """
    found = file_sha256(folder / file.name)
    if found != file.sha256:
        raise RequestError(
            f"{folder / file.name} is not the file that the manifest means: expected SHA-256 "
            f"{file.sha256[:12]}..., found {found[:12]}... It is torn, was changed, or belongs to "
            f"another checkpoint. Use an earlier checkpoint."
        )


def weights_name(part: Slice) -> str:
    """Return what a slice's weights are called in a file."""
    return f"weights/{part.key}[{part.row_begin}:{part.row_end}]"


def state_name(part: Slice, name: str) -> str:
    """Return what one of the optimizer's arrays of a slice is called in a file."""
    return f"state/{name}/{part.key}[{part.row_begin}:{part.row_end}]"


def _fill(whole: Array, part: Slice, values: Array) -> None:
    """Put a slice where it belongs; a tensor of no dimensions is its own only row."""
    whole[slice(part.row_begin, part.row_end) if whole.ndim else ...] = values


def _check_arrays(item: SliceValues) -> None:
    rows = item.values.shape[0] if item.values.ndim else 1
    if rows != item.part.row_end - item.part.row_begin:
        raise RequestError(
            f"The slice of '{item.part.key}' from row {item.part.row_begin} to {item.part.row_end} "
            f"has values of {rows} rows."
        )
    for name, array in {"values": item.values, **item.state}.items():
        if array.shape != item.values.shape or array.dtype != np.float32:
            raise RequestError(
                f"'{item.part.key}', {name}: expected {item.values.shape} float32, "
                f"found {array.shape} {array.dtype}."
            )


def _check_content(file: ShardFile, reader: TensorReader, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a file's header with what the manifest says of it."""
    for field in ("shard", "version", "generation"):
        found, expected = reader.metadata.get(field), str(getattr(file, field))
        if found != expected:
            raise RequestError(
                f"{reader.path} should be of {field} {expected}, but it is of {field} {found}."
            )
    expected_names = _names(file.slices, file.state_names)
    for name, part in expected_names.items():
        reader.check(name, slice_shape(shapes[part.key], part))
    if surplus := sorted(reader.names - expected_names.keys()):
        raise RequestError(
            f"{reader.path} holds the tensor '{surplus[0]}', of which the manifest knows nothing."
        )


def _names(slices: Sequence[Slice], state_names: Sequence[str]) -> dict[str, Slice]:
    names = {weights_name(part): part for part in slices}
    return names | {state_name(part, name): part for part in slices for name in state_names}
