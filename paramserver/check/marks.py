"""The checkpoints of a run: whether each is sound, and where in the journals it says that it was made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paramserver.audit import State, Violation
from paramserver.check.findings import Findings
from paramserver.errors import RequestError
from paramserver.events import ShardRecord
from paramserver.storage import (
    CHECKPOINTS,
    MANIFEST,
    CutNotes,
    ShardFile,
    checkpoint_folder,
    read_checkpoint,
    read_notes,
)

FINAL = "checkpoint"
"""The folder of the checkpoint that is made once the job has ended."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One shard's part of a checkpoint.

    Attributes:
        checkpoint: its number; None for the one that was made at the end.
        folder: where it lies.
        file: the shard's.
        notes: what that says beside its tensors.
    """

    checkpoint: int | None
    folder: Path
    file: ShardFile
    notes: CutNotes

    def __str__(self) -> str:
        return "the final checkpoint" if self.checkpoint is None else f"checkpoint {self.checkpoint}"

    @property
    def state(self) -> State:
        """What the shard was, as the file says."""
        return State(self.file.version, self.notes.rounds, self.notes.clocks, self.notes.verdicts)


@dataclass(frozen=True, slots=True)
class Marks:
    """All checkpoints of a run that are kept.

    Attributes:
        marks: of all shards.
        count: of checkpoints.
        weights_sha256: of the final one; empty where there is none.
    """

    marks: tuple[Mark, ...]
    count: int
    weights_sha256: str

    def of(self, shard: int) -> list[Mark]:
        """Return the parts of one shard."""
        return [mark for mark in self.marks if mark.file.shard == shard]


def read_marks(run: Path, findings: Findings) -> Marks:
    """Read every checkpoint of a run whole, and see that each holds what its manifest says.

    Args:
        run: the run folder.
        findings: gets what is wrong.
    """
    marks: list[Mark] = []
    count, sha256 = 0, ""
    for checkpoint, folder in _folders(run):
        try:
            manifest = read_checkpoint(folder).manifest
            found = [Mark(checkpoint, folder, file, read_notes(folder, file)) for file in manifest.files]
        except RequestError as error:
            if (folder / MANIFEST).exists():  # else it was the oldest and has just been removed
                findings.say("weights", str(error))
            continue
        marks += found
        count += 1
        if checkpoint is None:
            sha256 = manifest.weights_sha256
    return Marks(tuple(marks), count, sha256)


def disagreements(mark: Mark, state: State, record: ShardRecord | None) -> Iterator[Violation]:
    """Compare a shard's part of a checkpoint with what the shard was there, by its journal.

    Args:
        mark: the part.
        state: what its auditor says that it was.
        record: what the shard itself says, told all once more; None where it could not be told.
    """
    shard = mark.file.shard
    if differ := state.differences(mark.state):
        was = f"Shard {shard} was not what {mark} says when it was made (journal != checkpoint)"
        yield Violation("journal", f"{was}: {', '.join(differ[:3])}.", shard)
    link = mark.notes.link
    if record is None or link is None:
        return
    for what, here, there in (
        ("pushes", record.pushes, link.pushes),
        ("pushes by staleness", record.staleness, link.staleness),
    ):
        if dict(here) != dict(there):
            counted = f"Shard {shard} had counted the {what} {dict(there)} by {mark}"
            yield Violation("samples", f"{counted}, but its journal has {dict(here)}.", shard)


def _folders(run: Path) -> Iterator[tuple[int | None, Path]]:
    try:
        names = sorted(entry.name for entry in (run / CHECKPOINTS).iterdir() if entry.name.isdecimal())
    except OSError:
        names = []
    for name in names:
        folder = checkpoint_folder(run, int(name))
        if (folder / MANIFEST).exists():
            yield int(name), folder
    if (run / FINAL / MANIFEST).exists():
        yield None, run / FINAL
