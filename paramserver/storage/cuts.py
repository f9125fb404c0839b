"""The checkpoints of a running job: what each shard was, so that it can become that again.

They lie side by side in ``checkpoints``, one folder each. A shard's file holds, beside weights and optimizer
state, its clocks and verdicts. A cut can be read for other slices than it was written for, so a job can go on
with another number of shards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from paramserver.errors import RequestError
from paramserver.events import Cut, JobRecord, JobSpec, Kept, Slice, Snapshot, Verdict
from paramserver.placement import slice_shape
from paramserver.recovery import is_void, nearest_clocks
from paramserver.storage.atomic import make_folder, replacing
from paramserver.storage.checkpoint import (
    SliceValues,
    check_file,
    state_name,
    weights_name,
    write_manifest,
    write_shard,
)
from paramserver.storage.cut_notes import CutNotes, JournalLink, notes_of
from paramserver.storage.manifest import MANIFEST, Manifest, ShardFile, load_manifest
from paramserver.storage.tensor_file import TensorReader, open_tensor_file
from paramserver.types import Array, Shapes

CHECKPOINTS = "checkpoints"


def checkpoint_folder(run: Path, checkpoint: int) -> Path:
    """Return where a checkpoint of a run lies.

    Args:
        run: the run folder.
        checkpoint: its number, from 0.
    """
    return run / CHECKPOINTS / f"{checkpoint:06d}"


def write_cut(
    folder: Path, cut: Cut, shards: int, generation: int, link: JournalLink | None = None
) -> ShardFile:
    """Write one shard's cut.

    Args:
        folder: of the checkpoint.
        cut: what to write; its arrays must not change until this returns.
        shards: how many there are in the job.
        generation: of the job's weights.
        link: where in its journal the shard made it; None where there is no journal.

    Raises:
        JobError: the disk refuses.
    """
    items = [
        SliceValues(part, values, cut.state.get(part, {})) for part, values in cut.snapshot.values.items()
    ]
    return write_shard(
        folder, cut.shard, shards, items, cut.snapshot.version, generation, notes_of(cut, link)
    )


def finish_checkpoint(
    folder: Path, job: JobSpec, files: Iterable[ShardFile], generation: int, rounds: int
) -> Manifest:
    """Write the manifest of a checkpoint whose every shard's file is there.

    Raises:
        RequestError: the files do not make one whole.
        JobError: the disk refuses.
    """
    details = {
        "model": job.model,
        "consistency": job.consistency,
        "learning_rate": job.learning_rate,
        "schedule": job.schedule,
        "seed": job.seed,
        "rounds": rounds,
        "fingerprint": job.fingerprint(),
    }
    return write_manifest(folder, job.tensors, files, generation, job.optimizer, details)


def read_cut(folder: Path, shard: int, slices: Sequence[Slice]) -> Cut:
    """Read what a shard was.

    Args:
        folder: of the checkpoint.
        shard: its number now.
        slices: that it owns now. Where another shard had some of their rows, or all, the cut is put together
            of several: with the furthest version and clocks among them, so that nothing is applied twice.

    Raises:
        RequestError: the checkpoint is not finished, torn, changed since, or has other tensors.
    """
    manifest = load_manifest(folder)
    shapes = {tensor.key: tensor.shape for tensor in manifest.tensors}
    for part in slices:
        if part.key not in shapes:
            raise RequestError(f"The checkpoint {folder} has no tensor '{part.key}'.")
    sources = [file for file in manifest.files if _overlap(file.slices, slices)] or [manifest.files[0]]
    for file in sources:
        check_file(folder, file)
    with ExitStack() as stack:
        readers = [stack.enter_context(open_tensor_file(folder / file.name)) for file in sources]
        values: dict[Slice, Array] = {}
        state: dict[Slice, dict[str, Array]] = {}
        for part in slices:
            shape = slice_shape(shapes[part.key], part)
            values[part] = np.empty(shape, np.float32)
            state[part] = {name: np.empty(shape, np.float32) for name in manifest.state_names}
            for file, reader in zip(sources, readers, strict=True):
                for piece in file.slices:
                    _copy(piece, part, reader, shapes, values[part], state[part])
        notes = [CutNotes(reader) for reader in readers]
    clocks: dict[int, int] = {}
    verdicts: dict[int, tuple[int, Verdict]] = {}
    for one in notes:
        clocks |= {rank: max(clock, clocks.get(rank, 0)) for rank, clock in one.clocks.items()}
        verdicts |= {
            rank: last for rank, last in one.verdicts.items() if last[0] >= verdicts.get(rank, (-1,))[0]
        }
    version = max(file.version for file in sources)
    return Cut(shard, Snapshot(version, notes[0].rounds, values), state, clocks, verdicts)


def read_kept(run: Path, checkpoint: int) -> Kept:
    """Read what a whole checkpoint is.

    Raises:
        RequestError: it is not finished, or not sound.
    """
    folder = checkpoint_folder(run, checkpoint)
    notes = []
    for file in load_manifest(folder).files:
        with open_tensor_file(folder / file.name) as reader:
            notes.append(CutNotes(reader))
    rounds = max(one.rounds for one in notes)
    return Kept(checkpoint, rounds, nearest_clocks(one.clocks for one in notes))


def newest_checkpoint(
    run: Path, record: JobRecord | None = None, before: int | None = None
) -> tuple[int, list[str]]:
    """Find the newest checkpoint of a run that is whole.

    Args:
        run: the run folder.
        record: what its coordinator has written down, by which some may be void; None to take any.
        before: only one of a smaller number will do; None: any.

    Returns:
        Its number, and of each newer one a sentence why it cannot be used.

    Raises:
        RequestError: there is none; the sentence says why.
    """
    problems: list[str] = []
    for number in sorted(_numbers(run), reverse=True):
        folder = checkpoint_folder(run, number)
        if not _is_finished(run, number) or (before is not None and number >= before):
            continue
        try:
            manifest = load_manifest(folder)
            if record is not None and is_void(record, number, manifest.generation):
                continue
            for file in manifest.files:
                check_file(folder, file)
        except RequestError as error:
            problems.append(str(error))
        else:
            return number, problems
    because = f" {problems[0]}" if problems else ""
    raise RequestError(f"{run} has no checkpoint to go on from.{because}")


def has_checkpoint(run: Path, record: JobRecord | None = None) -> bool:
    """Say whether a run has a checkpoint that is whole, and not void by what is written down."""
    try:
        newest_checkpoint(run, record)
    except RequestError:
        return False
    return True


def checkpoints_begun(run: Path) -> int:
    """Return how many checkpoints of a run were begun, by the number of the newest, whole or not."""
    return max(_numbers(run), default=-1) + 1


def oldest_checkpoint(run: Path) -> int | None:
    """Return the number of the oldest checkpoint of a run that has been finished; None if there is none."""
    return min((number for number in _numbers(run) if _is_finished(run, number)), default=None)


def keep_also(run: Path, folder: Path) -> int:
    """Let a whole checkpoint that lies elsewhere in a run be the newest one to go on from.

    Args:
        run: the run folder.
        folder: of the checkpoint, which stays; what both have is on the disk once, where that can be.

    Returns:
        The number that it gets.

    Raises:
        RequestError: it is not finished.
        JobError: the disk refuses.
    """
    number = checkpoints_begun(run)
    copy = checkpoint_folder(run, number)
    make_folder(copy)
    for name in (file.name for file in load_manifest(folder).files):
        try:
            os.link(folder / name, copy / name)
        except OSError:  # some disks have no links
            _copy_file(folder / name, copy / name)
    # The manifest last: what a crash leaves before that is no checkpoint.
    _copy_file(folder / MANIFEST, copy / MANIFEST)
    return number


def remove_old(run: Path, newest: int, keep: int) -> None:
    """Remove all but the newest checkpoints, and what is left of those that were never finished.

    Args:
        run: the run folder.
        newest: the number of the newest one that is whole.
        keep: how many to keep, >= 1.
    """
    whole = [number for number in sorted(_numbers(run)) if number <= newest and _is_finished(run, number)]
    for number in _numbers(run):
        if number < min(whole[-keep:], default=0):
            # Its manifest first: what is left of it after a crash is then no checkpoint.
            (checkpoint_folder(run, number) / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(checkpoint_folder(run, number), ignore_errors=True)
    remove_unfinished(run, newest)


def remove_unfinished(run: Path, before: int | None = None) -> None:
    """Remove what is left of checkpoints that were never finished.

    Args:
        run: the run folder.
        before: only of those with smaller numbers; None: of all, for where none can be under way.
    """
    for number in _numbers(run):
        if (before is None or number < before) and not _is_finished(run, number):
            shutil.rmtree(checkpoint_folder(run, number), ignore_errors=True)


def _copy_file(source: Path, copy: Path) -> None:
    with source.open("rb") as read, replacing(copy) as written:
        shutil.copyfileobj(read, written)


def _is_finished(run: Path, number: int) -> bool:
    return (checkpoint_folder(run, number) / MANIFEST).exists()


def _numbers(run: Path) -> list[int]:
    try:
        return [int(entry.name) for entry in (run / CHECKPOINTS).iterdir() if entry.name.isdecimal()]
    except OSError:
        return []


def _overlap(theirs: Sequence[Slice], ours: Sequence[Slice]) -> bool:
    return any(_common(a, b) is not None for a in theirs for b in ours)


def _common(a: Slice, b: Slice) -> tuple[int, int] | None:
    begin, end = max(a.row_begin, b.row_begin), min(a.row_end, b.row_end)
    return (begin, end) if a.key == b.key and begin < end else None


def _copy(
    piece: Slice, part: Slice, reader: TensorReader, shapes: Shapes, values: Array, state: Mapping[str, Array]
) -> None:
    """Copy the rows that a piece on disk and a slice have in common."""
    common = _common(piece, part)
    if common is None:
        return
    shape = slice_shape(shapes[piece.key], piece)
    here = slice(common[0] - part.row_begin, common[1] - part.row_begin)
    there = slice(common[0] - piece.row_begin, common[1] - piece.row_begin)
    for name, out in ((weights_name(piece), values), *((state_name(piece, n), a) for n, a in state.items())):
        found = reader.read(name, shape)
        out[here if out.ndim else ...] = found[there if found.ndim else ...]
