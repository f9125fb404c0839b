"""Runs that have been tampered with, so well that no checksum tells.

A `ForgedRun` is a copy of a run folder. Its records are changed in memory; `write` puts all back, each file
with right checksums, linked to the one before, and the checkpoints linked to where they were made.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from paramserver.storage import load_manifest, read_notes
from paramserver.storage.journal import (
    MAGIC,
    FrameDigest,
    Record,
    decode,
    encode,
    journal_folder,
    read_frames,
    read_segment,
    segment_numbers,
    segment_path,
)
from paramserver.storage.journal.plain import dump
from paramserver.storage.journal.records import GATHERED
from paramserver.storage.manifest import save_manifest
from paramserver.storage.tensor_file import open_tensor_file, write_tensor_file


@dataclass(eq=False)
class Grain:
    """One frame: raw, or a record that is encoded anew when it was changed."""

    kind: int
    payload: bytes
    record: Record | None = None
    slices: tuple = ()
    full: bool = False

    def change(self, event=None, effects=None) -> None:
        """Let the journal say something else."""
        record = replace(self.record, event=event or self.record.event)
        if effects is not None:
            record = replace(record, effects=tuple(effects))
        places = {part: place for place, part in enumerate(self.slices)}
        self.record = record
        self.kind, pieces = encode(record.now, record.event, record.effects, places, full=self.full)
        self.payload = b"".join(bytes(piece) for piece in pieces)

    def again(self) -> Grain:
        """Return another one that says the same."""
        return replace(self)


class ForgedRun:
    """A copy of a run, to be tampered with."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.path = folder
        shutil.copytree(source, folder, dirs_exist_ok=True)
        self.files: dict[tuple[int, int], list[Grain]] = {}  # by shard and segment
        for shard in range(len(list((folder / "journal").glob("shard-*")))):
            for number in segment_numbers(journal_folder(folder, shard)):
                self.files[shard, number] = self._read(shard, number)
        self._marks = [
            (manifest.parent, file.shard, self._mark(file.shard, read_notes(manifest.parent, file).link))
            for manifest in sorted(folder.glob("checkpoint*/**/manifest.json"))
            for file in load_manifest(manifest.parent).files
        ]

    def records(self, kind, where: Callable[[Record], bool] = lambda _: True, shard=0) -> Iterator[Grain]:
        """Yield the records of a shard whose event is of a kind."""
        for (owner, _), grains in sorted(self.files.items()):
            if owner != shard:
                continue
            for grain in grains:
                if grain.record is not None and isinstance(grain.record.event, kind) and where(grain.record):
                    yield grain

    def shards(self) -> list[int]:
        """Return all shards."""
        return sorted({shard for shard, _ in self.files})

    def after(self, grain: Grain, other: Grain) -> None:
        """Put another record after one."""
        grains = next(grains for grains in self.files.values() if grain in grains)
        grains.insert(grains.index(grain) + 1, other)

    def remove(self, grain: Grain) -> None:
        """Take a record out."""
        grains = next(grains for grains in self.files.values() if grain in grains)
        grains.remove(grain)

    def headers(self, shard: int, change: Callable[[dict], None], segment: int) -> None:
        """Change what a file says first."""
        grain = self.files[shard, segment][0]
        value = json.loads(grain.payload)
        change(value)
        grain.payload = dump(value)

    def write(self) -> Path:
        """Put everything back, whole and linked, and return the folder."""
        digests: dict[tuple[int, int], list[bytes]] = {}
        for (shard, number), grains in sorted(self.files.items()):
            before = digests.get((shard, number - 1))
            if before is not None:
                self.headers(shard, lambda value, d=before[-1]: value.update(previous=d.hex()), number)
            digest, found, data = FrameDigest(), [], MAGIC
            for grain in grains:
                data += digest.frame(grain.kind, [grain.payload]) + grain.payload
                found.append(digest.digest())
            digests[shard, number] = found
            segment_path(journal_folder(self.path, shard), number).write_bytes(data)
        for folder, shard, mark in self._marks:
            if mark is not None:
                self._relink(folder, shard, mark, digests)
        return self.path

    def cut(self, folder: Path, shard: int, notes=None, tensor=None) -> None:
        """Change what a shard's part of a checkpoint says, with a manifest made anew.

        Args:
            folder: of the checkpoint.
            shard: whose part.
            notes: changes the notes, a dictionary of texts.
            tensor: changes the first tensor, an array.
        """
        manifest = load_manifest(folder)
        file = manifest.files[shard]
        with open_tensor_file(folder / file.name) as reader:
            tensors = {name: np.array(reader._file.get_tensor(name)) for name in sorted(reader.names)}
            metadata = dict(reader.metadata)
        if notes is not None:
            notes(metadata)
        if tensor is not None:
            tensor(next(value for name, value in tensors.items() if name.startswith("weights/")))
        sha256 = write_tensor_file(folder / file.name, tensors, metadata)
        version = int(metadata["version"])
        files = list(manifest.files)
        files[shard] = replace(file, sha256=sha256, version=version)
        manifest = replace(manifest, files=tuple(files))
        save_manifest(folder, replace(manifest, weights_sha256=_weights_sha256(folder, manifest)))

    def _read(self, shard: int, number: int) -> list[Grain]:
        path = segment_path(journal_folder(self.path, shard), number)
        segment = read_segment(path)
        slices = segment.header.record.slices if segment.header.record is not None else ()
        grains = []
        for place, frame in enumerate(read_frames(path.read_bytes()).frames):
            grain = Grain(frame.kind, bytes(frame.payload), full=segment.header.full)
            if place and frame.kind != GATHERED:
                grain.record = decode(frame.kind, frame.payload, slices)
                slices = getattr(grain.record.event, "slices", slices)
                grain.slices = slices
            grains.append(grain)
        return grains

    def _mark(self, shard: int, link):
        """Return the last frame before a checkpoint was made, and what else its link says."""
        if link is None or (shard, link.segment) not in self.files:
            return None
        return link, self.files[shard, link.segment][link.frames - 1]

    def _relink(self, folder: Path, shard: int, mark, digests) -> None:
        link, last = mark
        grains = self.files.get((shard, link.segment), [])
        if last not in grains:
            return
        frames = grains.index(last) + 1
        digest = digests[shard, link.segment][frames - 1].hex()
        link = replace(link, frames=frames, digest=digest)
        self.cut(folder, shard, notes=lambda notes: notes.update(journal=json.dumps(asdict(link))))


def _weights_sha256(folder: Path, manifest) -> str:
    digest = hashlib.sha256()
    for part in manifest.slices:
        with open_tensor_file(folder / manifest.files[part.shard].name) as reader:
            digest.update(reader._file.get_tensor(f"weights/{part.key}[{part.row_begin}:{part.row_end}]"))
    return digest.hexdigest()
