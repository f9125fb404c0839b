"""A full journal, computed again from the oldest checkpoint on: the same weights, to the last bit?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from paramserver.check.findings import Coverage, Findings
from paramserver.check.marks import Mark
from paramserver.errors import RequestError
from paramserver.events import Cut, CutAsked, CutTaken, Slice
from paramserver.shard import Shard
from paramserver.storage import checkpoint_folder, read_cut
from paramserver.storage.journal import (
    Replay,
    Segment,
    journal_folder,
    read_header,
    read_segment,
    segment_numbers,
    segment_path,
)
from paramserver.storage.tensor_file import value_bytes
from paramserver.types import Array


def replay_exactly(
    run: Path, shard: int, marks: Sequence[Mark], findings: Findings, coverage: Coverage, counts: Counter[str]
) -> str:
    """Compute a shard's weights again from its full journal, and compare them with each checkpoint.

    Args:
        run: the run folder.
        shard: which.
        marks: its parts of the checkpoints that are kept.
        findings: gets what is wrong.
        coverage: told from which version to which.
        counts: told how many checkpoints were compared.

    Returns:
        Why it could not be done, as a sentence; empty if it was.
    """
    folder = journal_folder(run, shard)
    first = _first(folder, {mark.checkpoint for mark in marks})
    if first is None:
        return f"The weights of shard {shard} cannot be computed again: no kept checkpoint begins a file."
    replay = Replay(shard, partial(_read_cut, run, shard))
    begin: int | None = None
    try:
        for number in segment_numbers(folder):
            if number < first:
                continue
            segment = read_segment(segment_path(folder, number))
            for frames in _replayed(replay, segment, is_first=number == first):
                if begin is None:
                    begin = _version(replay.shard)
                for mark in marks:
                    link = mark.notes.link
                    if link is not None and (link.segment, link.frames) == (number, frames):
                        _compare(replay.shard, mark, findings)
                        counts["weights"] += 1
    except RequestError as error:
        return f"The weights of shard {shard} cannot be computed again any further. {error}"
    except Exception as error:  # as a journal that lies may lead anywhere
        findings.say(
            "replay", f"Shard {shard} cannot be computed again ({type(error).__name__}: {error}).", shard
        )
        return ""
    coverage.exact = (begin or 0, _version(replay.shard) or 0)
    return ""


def _first(folder: Path, checkpoints: set[int | None]) -> int | None:
    """Return the oldest file from which on exact weights can be had."""
    for number in segment_numbers(folder):
        header = read_header(segment_path(folder, number))
        if header.record is None and not header.follows:
            return number
        if header.checkpoint is not None and header.checkpoint in checkpoints:
            return number
    return None


def _replayed(replay: Replay, segment: Segment, *, is_first: bool) -> Iterator[int]:
    """Do a file again, and yield after each record how many of its frames are behind."""
    header = segment.header
    replay.begin(segment, first=is_first)
    frames = 1 + len(header.record.gathered if header.record is not None else ())
    yield frames
    for record in segment.records:
        replay.again(header.segment, record)
        frames += 1
        yield frames


def _compare(shard: Shard, mark: Mark, findings: Findings) -> None:
    """Compare weights and optimizer state with a checkpoint's, to the last bit."""
    taken = shard.handle(CutAsked(-1), 0.0)
    assert isinstance(taken[0], CutTaken)
    here = taken[0].cut
    there = read_cut(mark.folder, shard.index, tuple(here.snapshot.values))
    if _digest(here.snapshot.values) != _digest(there.snapshot.values):
        what = "weights"
    elif any(_digest(here.state[part]) != _digest(there.state[part]) for part in here.state):
        what = "optimizer state"
    else:
        return
    findings.say(
        "weights",
        f"Computed again from its journal, shard {shard.index} has another {what} than {mark}.",
        shard.index,
    )


def _digest(tensors: Mapping[Any, Array]) -> str:
    sha256 = hashlib.sha256()
    for key in sorted(tensors, key=repr):
        sha256.update(repr(key).encode())
        sha256.update(value_bytes(tensors[key]))
    return sha256.hexdigest()


def _version(shard: Shard) -> int | None:
    record = shard.record()
    return None if record is None else record.version


def _read_cut(run: Path, shard: int, checkpoint: int, slices: Sequence[Slice]) -> Cut:
    return read_cut(checkpoint_folder(run, checkpoint), shard, slices)
