"""What a shard was at each checkpoint, to be compared with what it goes back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from paramserver.events import Cut, Verdict

Verdicts = Mapping[int, tuple[int, Verdict]]
"""Of every rank the sequence of its last push and what became of it."""


@dataclass(frozen=True, slots=True)
class State:
    """What a shard is, beside its tensors and who counts."""

    version: int
    rounds: int
    clocks: Mapping[int, int]
    verdicts: Verdicts

    @classmethod
    def of(cls, cut: Cut) -> State:
        """Return what a cut says."""
        return cls(cut.snapshot.version, cut.snapshot.rounds, cut.clocks, cut.verdicts)

    def differences(self, other: State) -> list[str]:
        """Name what differs, as ``version 7 != 8``, for each thing that does."""
        ranks = sorted({*self.clocks, *other.clocks})
        found = [
            f"{name} {here} != {there}"
            for name, here, there in (
                ("version", self.version, other.version),
                ("rounds", self.rounds, other.rounds),
                *(
                    (f"clock of replica {rank}", self.clocks.get(rank, 0), other.clocks.get(rank, 0))
                    for rank in ranks
                ),
            )
            if here != there
        ]
        for rank in sorted({*self.verdicts, *other.verdicts}):
            here, there = _last(self.verdicts, rank), _last(other.verdicts, rank)
            if here != there:
                found.append(f"verdict on replica {rank} {_told(here)} != {_told(there)}")
        return found


class Cuts:
    """The cuts of one shard, by checkpoint."""

    def __init__(self) -> None:
        self._made: dict[int, State] = {}

    def make(self, checkpoint: int, state: State) -> None:
        """Note what the shard is when it makes its cut."""
        self._made[checkpoint] = state

    def differences(self, checkpoint: int, cut: Cut) -> list[str]:
        """Name what differs between what was made and what a cut says; nothing where nothing is known."""
        known = self._made.get(checkpoint)
        return [] if known is None else known.differences(State.of(cut))


def plain(verdict: Verdict | None) -> Verdict | None:
    """Return a verdict without its phrases and without the mark of a repetition."""
    if verdict is None or not (verdict.reason or verdict.duplicate):
        return verdict
    return replace(verdict, reason="", duplicate=False)


def _last(verdicts: Verdicts, rank: int) -> tuple[int, Verdict | None] | None:
    if rank not in verdicts:
        return None
    sequence, verdict = verdicts[rank]
    return sequence, plain(verdict)


def _told(last: tuple[int, Verdict | None] | None) -> str:
    return "none" if last is None else f"(push {last[0]} {last[1]})"
