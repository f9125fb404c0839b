"""What a shard's part of a checkpoint says beside its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paramserver.errors import RequestError
from paramserver.events import Cut, Outcome, Verdict
from paramserver.storage.manifest import ShardFile
from paramserver.storage.tensor_file import TensorReader, open_tensor_file


@dataclass(frozen=True, slots=True)
class JournalLink:
    """Where in its journal a shard made a cut, and what it had counted by then.

    Attributes:
        segment: the number of the journal's file.
        frames: how many of its frames come before.
        digest: of these frames, in hexadecimal; the first of them has the digest of the file before.
        pushes: received pushes by the verdict they got, as in ``ShardStatistics``.
        staleness: applied pushes by their staleness, in versions.
    """

    segment: int
    frames: int
    digest: str
    pushes: Mapping[str, int]
    staleness: Mapping[int, int]


def notes_of(cut: Cut, link: JournalLink | None) -> dict[str, str]:
    """Return what is written beside a cut's tensors, by name."""
    verdicts = {
        rank: [sequence, asdict(verdict) | {"outcome": verdict.outcome.value}]
        for rank, (sequence, verdict) in cut.verdicts.items()
    }
    notes = {
        "rounds": str(cut.snapshot.rounds),
        "clocks": json.dumps(dict(cut.clocks)),
        "verdicts": json.dumps(verdicts),
    }
    return notes if link is None else notes | {"journal": json.dumps(asdict(link))}


def read_notes(folder: Path, file: ShardFile) -> CutNotes:
    """Read what a shard's file says beside its tensors.

    Raises:
        RequestError: it is not there, or not sound.
    """
    with open_tensor_file(folder / file.name) as reader:
        return CutNotes(reader)


class CutNotes:
    """What a shard's file says beside its tensors.

    Args:
        reader: of the file.

    Attributes:
        rounds: closed rounds (synchronous mode).
        clocks: every rank's.
        verdicts: of every rank the sequence of its last push and what became of it.
        link: where in its journal the shard made the cut; None where there was no journal.

    Raises:
        RequestError: the file does not say so.
    """

    def __init__(self, reader: TensorReader) -> None:
        try:
            self.rounds = int(reader.metadata["rounds"])
            clocks: Mapping[str, int] = json.loads(reader.metadata["clocks"])
            verdicts: Mapping[str, Any] = json.loads(reader.metadata["verdicts"])
            self.clocks = {int(rank): int(clock) for rank, clock in clocks.items()}
            self.verdicts = {
                int(rank): (int(sequence), Verdict(**(told | {"outcome": Outcome(told["outcome"])})))
                for rank, (sequence, told) in verdicts.items()
            }
            link = reader.metadata.get("journal")
            self.link = None if link is None else _link(json.loads(link))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise RequestError(
                f"{reader.path} does not say where its shard's replicas were ({error!r}), so no job can go "
                "on from it."
            ) from None


def _link(value: Mapping[str, Any]) -> JournalLink:
    staleness = {int(versions): int(count) for versions, count in value["staleness"].items()}
    return JournalLink(**{**value, "staleness": staleness})
