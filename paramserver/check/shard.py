"""The audit of one shard: its journal from the oldest file on, judged event by event and done again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from paramserver import events as ev
from paramserver.audit import Ledger, OrdersAudit, ShardAudit, Violation
from paramserver.check.findings import GOING_ON, OVER, Coverage, Findings
from paramserver.check.marks import Mark, disagreements
from paramserver.check.story import Place, lighter, tell, told
from paramserver.errors import RequestError
from paramserver.storage.journal import (
    Header,
    Record,
    Replay,
    Segment,
    check_link,
    journal_folder,
    light,
    read_frames,
    read_segment,
    segment_numbers,
    segment_path,
)


class ShardCheck:
    """The audit of one shard.

    Args:
        run: the run folder.
        shard: which.
        marks: its parts of the checkpoints that are kept.
        orders: told which orders it has handled.
        state: of the run, as in `Report`.

    Attributes:
        findings: what is wrong.
        coverage: what was verified.
        counts: how many things of each kind.
        ledgers: its accounts, a new one wherever it got other slices.
        notes: what could not be verified, as sentences.
        job: what was trained; None if it is not known.
    """

    def __init__(self, run: Path, shard: int, marks: Sequence[Mark], orders: OrdersAudit, state: str) -> None:
        self.findings = Findings()
        self.coverage = Coverage(shard)
        self.counts: Counter[str] = Counter()
        self.ledgers: list[Ledger] = []
        self.notes: list[str] = []
        self.job: ev.JobSpec | None = None
        self._folder = journal_folder(run, shard)
        self._shard = shard
        self._orders = orders
        self._going_on, self._is_over = state == GOING_ON, state == OVER
        self._marks = list(marks)
        self._numbers = segment_numbers(self._folder)
        self._last = self._numbers[-1] if self._numbers else -1
        self._spans: list[list[int]] = []
        self._slices: tuple[ev.Slice, ...] = ()
        self._read: list[int] = []  # the segments since all began anew
        self._audit = ShardAudit(shard, reports=False)
        self._replay: Replay | None = Replay(shard)

    def run(self) -> None:
        """Read the whole journal."""
        before: Segment | None = None
        for number in self._numbers:
            segment = self._read_segment(number)
            if segment is None:
                before = None
                continue
            if before is not None and not self._follows(before, segment):
                before = None
            self._begin(segment, first=before is None)
            self._records(segment)
            self.coverage.segments += 1
            before = segment
            if number == self._last:
                self._end(segment)
        self._check_missing()
        self.coverage.spans = [(begin, end) for begin, end in self._spans]

    # -------------------------------------------------------------------------------------------- files

    def _read_segment(self, number: int) -> Segment | None:
        path = segment_path(self._folder, number)
        try:
            segment = read_segment(path)
        except RequestError as error:
            if not path.exists() or (self._going_on and number == self._last):
                return None  # it was the oldest and has just been removed, or is just being begun
            if number == self._last and _is_cut_off(path):
                self.coverage.torn_bytes += path.stat().st_size
                return None  # its writing was interrupted before anything was in it
            self._say("journal", str(error))
            return None
        header = segment.header
        if (header.shard, header.segment) != (self._shard, number):
            here = f"it is file {header.segment} of shard {header.shard}"
            self._say("journal", f"{path} does not belong here: {here}.")
            return None
        fingerprint = "" if self.job is None else self.job.fingerprint()
        if fingerprint and header.fingerprint and header.fingerprint != fingerprint:
            self._say("journal", f"{path} does not belong here: it is of another job.")
            return None
        return segment

    def _follows(self, before: Segment, segment: Segment) -> bool:
        try:
            check_link(before, segment)
        except RequestError as error:
            self._say("journal", str(error))
            return False
        return True

    def _end(self, segment: Segment) -> None:
        """Judge how the newest file ends."""
        if not segment.torn or self._going_on:
            return
        if "checksum" in segment.torn:
            self._say("journal", f"{segment.path} has been changed since it was written: {segment.torn}.")
        else:
            self.coverage.torn_bytes += segment.path.stat().st_size - segment.sound_bytes

    # ------------------------------------------------------------------------------------------ records

    def _begin(self, segment: Segment, *, first: bool) -> None:
        header = segment.header
        self.coverage.full = header.full
        if first:
            self._begin_anew(header)
        self._read.append(header.segment)
        if self._replay is None:
            pass
        elif self._replay.begin(segment, first=first).differs:
            self._say("replay", f"Shard {self._shard} was something else when {segment.path} was begun.")
            self._replay = None
        if not header.follows:
            self._audit.restart()

    def _begin_anew(self, header: Header) -> None:
        """Begin without knowing what was before, but for what the file says itself."""
        self._audit, self._replay = _auditor(header), Replay(self._shard)
        self._read = []
        record = header.record if header.follows else None
        if record is None:
            self.ledgers.append(Ledger())
            return
        self._know(record.job, record.slices)
        self._orders.resume(record)
        ledger = Ledger(record.generation, since=record.clocks)
        ledger.resume(record)
        self.ledgers.append(ledger)
        self._spans.append([record.version, record.version])

    def _records(self, segment: Segment) -> None:
        frames = 1 + len(segment.header.record.gathered if segment.header.record is not None else ())
        marks = [mark for mark in self._marks if _segment(mark) == segment.header.segment]
        self._check_digests(segment, marks)
        self._check_marks(marks, frames)
        for number, record in enumerate(segment.records):
            found = self._judge(record) + self._again(segment.header.segment, record)
            for violation in found:
                self._found(violation, segment.header.segment, number)
            frames += 1
            self._check_marks(marks, frames)

    def _judge(self, record: Record) -> list[Violation]:
        event, effects, audit = record.event, record.effects, self._audit
        gathered = audit.gathered if isinstance(event, ev.RoundClosed) else {}
        known = audit.version
        found = audit.observe(event, effects)
        if isinstance(event, ev.Order):
            found = self._orders.observe(self._shard, event, audit.rounds, gathered) + found
            self._obey(event, known)
        self.ledgers[-1].observe(event, effects, audit.clocks)
        if self._spans:
            self._spans[-1][1] = audit.version
        self._count(event, effects)
        return found

    def _obey(self, order: ev.Order, known: int) -> None:
        match order:
            case ev.JobAnnounced():
                self._know(order.job, order.slices)
                self._spans.append([0, 0])
            case ev.GenerationBegun():
                self.coverage.ended = False
                if order.slices != self._slices:
                    if self.job is None:
                        self.ledgers.pop()  # nothing is known of what was before
                    clocks = self._audit.clocks
                    self.ledgers.append(Ledger(order.generation, order.checkpoint, clocks))
                self._know(order.job, order.slices)
                if not self._spans or self._audit.version > known:
                    self._spans.append([self._audit.version, self._audit.version])
            case ev.JobEnded():
                self.coverage.ended = True

    def _know(self, job: ev.JobSpec, slices: tuple[ev.Slice, ...]) -> None:
        self.job, self._slices = job, slices

    def _again(self, segment: int, record: Record) -> list[Violation]:
        """Let the deployed shard do the same once more, and compare what it says."""
        if self._replay is None:
            return []
        try:
            replayed = self._replay.again(segment, record)
        except Exception as error:  # a shard that is told what it never can be told may end in any way
            self._replay = None
            why = f"{type(error).__name__}: {error}"
            return [
                Violation("replay", f"Shard {self._shard} cannot be told this again ({why}).", self._shard)
            ]
        self.counts["replayed"] += replayed.effects is not None
        if not replayed.differs:
            return []
        self._replay = None
        answers = tuple(answer for answer in map(light, replayed.effects or ()) if answer is not None)
        now = told(Record(record.now, record.event, answers))
        message = f"Shard {self._shard}, told the same again, answers otherwise: {now}."
        return [Violation("replay", message, self._shard)]

    def _found(self, violation: Violation, segment: int, number: int) -> None:
        if not self.findings.count:
            self.findings.story = tell(violation, self._places(segment, number), self._start)
        self.findings.add(violation)

    def _start(self) -> ShardAudit:
        return _auditor(read_segment(segment_path(self._folder, self._read[0])).header)

    def _places(self, segment: int, number: int) -> Iterator[Place]:
        """Yield the records since all began anew, up to this one."""
        for each in self._read:
            for place, record in enumerate(read_segment(segment_path(self._folder, each)).records):
                yield Place(each, place, lighter(record))
                if (each, place) == (segment, number):
                    return

    def _count(self, event: ev.ShardEvent, effects: Iterable[ev.ShardEffect]) -> None:
        self.counts["events"] += 1
        self.counts["pushes"] += isinstance(event, ev.PushReceived)
        self.counts["orders"] += isinstance(event, ev.Order)
        for effect in effects:
            if isinstance(effect, ev.PullGranted):
                self.counts["reads"] += 1
                self.counts["verdicts"] += effect.verdict is not None
            elif isinstance(effect, ev.PushAnswered):
                self.counts["verdicts"] += 1

    # -------------------------------------------------------------------------------------- checkpoints

    def _check_digests(self, segment: Segment, marks: Iterable[Mark]) -> None:
        """See that the journal up to each checkpoint is the one that it was made after."""
        for mark in marks:
            link = mark.notes.link
            assert link is not None
            found = read_frames(segment.path.read_bytes(), link.frames)
            if len(found.frames) < link.frames:
                self._cut_short(mark, segment)
            elif found.digest.hex() != link.digest:
                self._say(
                    "journal",
                    f"{segment.path} is not what it was when {mark} was made: its digest is another.",
                )
            else:
                self.counts["links"] += 1

    def _cut_short(self, mark: Mark, segment: Segment) -> None:
        lacks = f"{segment.path} ends before the place where {mark} was made"
        process_ended = segment.header.segment < self._last or not self._is_over
        if process_ended and not segment.torn and not segment.header.full:
            self.notes.append(f"{lacks}: a light journal may lose its end with a machine that loses power.")
        else:
            self._say("journal", f"{lacks}: it has been cut off.")

    def _check_marks(self, marks: Iterable[Mark], frames: int) -> None:
        """Compare what the shard is here with each checkpoint that was made here."""
        for mark in marks:
            if mark.notes.link is not None and mark.notes.link.frames == frames:
                record = None if self._replay is None else self._replay.shard.record()
                for violation in disagreements(mark, self._audit.state, record):
                    self.findings.add(violation)

    def _check_missing(self) -> None:
        """See that the files are there in which the checkpoints were made; older ones may be gone."""
        for mark in self._marks:
            segment = _segment(mark)
            if segment >= 0 and segment not in self._numbers and segment > min(self._numbers, default=-1):
                name = segment_path(self._folder, segment)
                self._say("journal", f"{name} is missing: {mark} was made there.")

    def _say(self, name: str, message: str) -> None:
        self.findings.say(name, message, self._shard)


def _auditor(header: Header) -> ShardAudit:
    audit = ShardAudit(header.shard, reports=False)
    if header.follows and header.record is not None:
        audit.resume(header.record)
    return audit


def _segment(mark: Mark) -> int:
    return -1 if mark.notes.link is None else mark.notes.link.segment


def _is_cut_off(path: Path) -> bool:
    """Say whether a file ends before its first frame is whole."""
    found = read_frames(path.read_bytes())
    return not found.frames and "checksum" not in found.torn
