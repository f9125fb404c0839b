"""The account of one shard: what became of every push and of its samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from paramserver import events as ev


class Entry(NamedTuple):
    """One push on one shard.

    Attributes:
        samples: that it says its gradient is over.
        incarnation: of its sender.
        outcome: applied, dropped, or buffered while its round is open.
    """

    samples: int
    incarnation: int
    outcome: ev.Outcome


class Ledger:
    """What a shard received and what became of it, as long as its slices stay the same.

    Args:
        generation: with which it begins.
        checkpoint: from which that generation goes on; None for the beginning of a job, or what is known.
        since: every rank's clock at its beginning; pushes before that are in no ledger, or in another one.

    Attributes:
        checkpoint: as given.
        first: the first generation in it.
        last: the newest generation in it.
        since: as given.
        answers: how many pushes got each answer: by outcome, and ``duplicate`` and ``refused``.
        rolled_back: how many applied pushes, and how many of their samples, a generation made void.
        ended: the job has ended well or badly, and nothing has come after.
    """

    def __init__(
        self, generation: int = 0, checkpoint: int | None = None, since: Mapping[int, int] | None = None
    ) -> None:
        self.first = self.last = generation
        self.checkpoint = checkpoint
        self.since = dict(since or {})
        self.answers: Counter[str] = Counter()
        self.rolled_back = (0, 0)
        self.ended = False
        self._entries: dict[int, dict[int, Entry]] = {}
        self._open: dict[int, int] = {}  # rank -> sequence, of the open round
        self._cuts: dict[int, dict[int, int]] = {}  # by checkpoint every rank's clock
        self._reached: dict[int, int] = {}  # of each rank the step after its newest push
        self._holes: dict[int, list[range]] = {}  # of each rank the steps of which nothing is known

    def observe(
        self, event: ev.ShardEvent, effects: Sequence[ev.ShardEffect], clocks: Mapping[int, int]
    ) -> None:
        """Write down what a shard made of one event.

        Args:
            event: what it was told.
            effects: what it answered.
            clocks: every rank's afterwards.
        """
        match event:
            case ev.PushReceived():
                for effect in effects:
                    if getattr(effect, "request", None) == event.request:
                        self._push(event, effect)
            case ev.RoundClosed():
                for rank, sequence in self._open.items():
                    outcome = ev.Outcome.APPLIED if rank in event.ranks else ev.Outcome.DROPPED
                    self._decide(rank, sequence, outcome)
                self._open.clear()
            case ev.CutOrdered():
                # Whoever is in the open round does it once more.
                self._cuts[event.checkpoint] = {**clocks, **self._open}
            case ev.GenerationBegun():
                self.last, self.ended = event.generation, False
                self._note_holes(clocks)
                self.go_back(clocks)
            case ev.JobEnded():
                self.ended = True

    def resume(self, record: ev.ShardRecord) -> None:
        """Begin in the middle, with the round that is open there."""
        for push in record.gathered:
            rank, incarnation = push.replica.rank, push.replica.incarnation
            entry = Entry(push.samples, incarnation, ev.Outcome.BUFFERED)
            self._entries.setdefault(rank, {})[push.sequence] = entry
            self._open[rank] = push.sequence
            self.since[rank] = min(self.since.get(rank, 0), push.sequence)

    def go_back(self, clocks: Mapping[int, int]) -> None:
        """Give up what was done from these clocks on."""
        self._open.clear()
        pushes, samples = self.rolled_back
        for rank, entries in self._entries.items():
            for sequence in [each for each in entries if each >= clocks.get(rank, 0)]:
                entry = entries.pop(sequence)
                if entry.outcome is ev.Outcome.APPLIED:
                    pushes, samples = pushes + 1, samples + entry.samples
        self.rolled_back = (pushes, samples)

    def cut(self, checkpoint: int) -> Mapping[int, int] | None:
        """Return every rank's clock at a checkpoint; None where that is not known."""
        return self._cuts.get(checkpoint)

    def pushes(self) -> Iterator[tuple[int, int]]:
        """Yield rank and sequence of every push that was received and is not given up."""
        for rank, entries in self._entries.items():
            for sequence in entries:
                yield rank, sequence

    def entry(self, rank: int, sequence: int) -> Entry | None:
        """Return what became of a push; None where it never came."""
        return self._entries.get(rank, {}).get(sequence)

    def knows(self, rank: int, sequence: int) -> bool:
        """Say whether a push would be here if it had come: it is not older than what is known."""
        if sequence < self.since.get(rank, 0):
            return False
        return not any(sequence in hole for hole in self._holes.get(rank, ()))

    def newest(self, rank: int, incarnation: int) -> int:
        """Return the highest sequence of a replica; -1 where there is none."""
        entries = self._entries.get(rank, {})
        return max((each for each, entry in entries.items() if entry.incarnation == incarnation), default=-1)

    def _push(self, push: ev.PushReceived, answer: ev.ShardEffect) -> None:
        if not isinstance(answer, ev.PushAnswered):
            self.answers["refused"] += 1
            return
        verdict, rank = answer.verdict, push.replica.rank
        if verdict.duplicate or verdict.outcome is ev.Outcome.FENCED:
            self.answers["duplicate" if verdict.duplicate else "fenced"] += 1
            return
        self.answers[verdict.outcome.value] += 1
        self._reached[rank] = max(push.sequence + 1, self._reached.get(rank, 0))
        entry = Entry(push.samples, push.replica.incarnation, verdict.outcome)
        self._entries.setdefault(rank, {})[push.sequence] = entry
        if verdict.outcome is ev.Outcome.BUFFERED:
            self._open[rank] = push.sequence

    def _note_holes(self, clocks: Mapping[int, int]) -> None:
        """A process that ended may have taken the newest part of its journal with it."""
        for rank, clock in clocks.items():
            reached = self._reached.get(rank, self.since.get(rank, 0))
            if clock > reached:
                self._holes.setdefault(rank, []).append(range(reached, clock))
            self._reached[rank] = clock

    def _decide(self, rank: int, sequence: int, outcome: ev.Outcome) -> None:
        entry = self._entries[rank][sequence]
        self._entries[rank][sequence] = entry._replace(outcome=outcome)
        self.answers[ev.Outcome.BUFFERED.value] -= 1
        self.answers[outcome.value] += 1
