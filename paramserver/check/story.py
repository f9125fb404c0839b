"""Events and answers in words, and the fewest of them that show what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from paramserver import events as ev
from paramserver.audit import ShardAudit, Violation
from paramserver.storage.journal import Record

EVENTS_BACK_MAX = 2000
"""So far back the events are looked for that lead to a violation."""

TRIALS_MAX = 400
"""How many shorter sequences are tried, each of which is audited from its beginning."""


@dataclass(frozen=True, slots=True)
class Place:
    """One record of a shard's journal and where it is.

    Attributes:
        segment: the number of its file.
        number: which record of that file, from 0.
        record: what it says.
    """

    segment: int
    number: int
    record: Record

    def __str__(self) -> str:
        return f"{self.segment:06d}.journal, record {self.number}: {told(self.record)}"


@dataclass(frozen=True, slots=True)
class Story:
    """The fewest events that show a violation.

    Attributes:
        before: what the shard was before the first of them.
        events: in order; the last one is where it shows.
    """

    before: str
    events: tuple[str, ...]


def tell(violation: Violation, places: Iterable[Place], start: Callable[[], ShardAudit]) -> Story:
    """Find the fewest events after which an auditor still says the same.

    Args:
        violation: that the last of these places shows.
        places: of one shard, from where `start` begins up to the violation.
        start: makes the auditor that they are judged by.

    Returns:
        None of its events can be left out; as far as there were not too many to try.
    """
    every = list(places)
    first = max(0, len(every) - EVENTS_BACK_MAX)
    concerns = [index for index in range(first, len(every)) if _concerns(every[index], every[-1], violation)]
    first = concerns[0] if concerns else len(every) - 1
    auditor = start()
    for place in every[:first]:
        auditor.observe(place.record.event, place.record.effects)
    before = _standing(auditor)

    def shows(chosen: Sequence[int]) -> bool:
        judge, found = copy.deepcopy(auditor), list[Violation]()
        for index in chosen:
            found = judge.observe(every[index].record.event, every[index].record.effects)
        return violation in found

    chosen = concerns if shows(concerns) else list(range(first, len(every)))
    return Story(before, tuple(str(every[index]) for index in _fewest(chosen, shows)))


def _fewest(chosen: list[int], shows: Callable[[Sequence[int]], bool]) -> list[int]:
    """Leave out what can be left out, in halves, then in smaller parts (Zeller 2002: delta debugging)."""
    trials, part = 0, max(1, len(chosen) // 2)
    while True:
        begin, shorter = 0, False
        while begin < len(chosen) - 1 and trials < TRIALS_MAX:  # the last event is where it shows
            without = chosen[:begin] + chosen[min(begin + part, len(chosen) - 1) :]
            trials += 1
            if shows(without):
                chosen, shorter = without, True
            else:
                begin += part
        if trials >= TRIALS_MAX or (part == 1 and not shorter):
            return chosen
        part = max(1, part // 2)


def _concerns(place: Place, last: Place, violation: Violation) -> bool:
    """Say whether an event may have to do with what the last one shows."""
    event, final = place.record.event, last.record.event
    if place is last:
        return True
    match final:
        case ev.PushReceived() | ev.PullReceived() if final.replica is not None:
            rank = final.replica.rank
            step = final.sequence if isinstance(final, ev.PushReceived) else final.clock
            # What a reader hears of its last push was decided before.
            steps = (step - 1, step) if violation.property == "answer" else (step,)
            if isinstance(event, ev.PushReceived):
                return event.replica.rank == rank and event.sequence in steps
            if isinstance(event, ev.PullReceived) and event.replica is not None:
                return event.replica.rank == rank and event.clock in steps
            if isinstance(event, ev.RoundClosed):
                return violation.property == "answer" and event.round in steps
        case ev.RoundClosed():
            if isinstance(event, ev.PushReceived):
                return event.sequence == final.round
            return isinstance(event, ev.RoundClosed) and event.round in (final.round, final.round - 1)
        case ev.GenerationBegun():
            return isinstance(event, ev.CutOrdered) and event.checkpoint == final.checkpoint
    return isinstance(final, ev.Order) and isinstance(event, ev.Order) and event.number >= final.number - 1


def told(record: Record) -> str:
    """Say what a shard was told and what it answered."""
    event = record.event
    answers = list(_answers(event, record.effects))
    return f"{what_came(event)}{': ' if answers else ''}{'; '.join(answers)}"


def what_came(event: ev.ShardEvent) -> str:
    """Say what a shard was told."""
    match event:
        case ev.PushReceived():
            samples = event.refusal or f"{event.samples} samples"
            made = f"made of version {event.version}, {samples}"
            return f"{_who(event.replica)} pushes step {event.sequence} ({made})"
        case ev.PullReceived():
            who = "an observer" if event.replica is None else _who(event.replica)
            return f"{who} pulls at clock {event.clock}"
        case ev.PullCancelled():
            return f"request {event.request} is given up"
        case ev.InitialiseReceived():
            return f"'{event.initialiser}' brings first weights"
        case _:
            return f"order {event.number}: {what_order(event)}" if isinstance(event, ev.Order) else str(event)


def what_order(order: ev.Order) -> str:
    """Say what an order orders."""
    match order:
        case ev.JobAnnounced():
            return "the job is announced"
        case ev.MembershipChanged():
            return ", ".join(_member(member) for member in order.members) or "the members are as before"
        case ev.Sealed():
            return f"the first weights are those of '{order.initialiser}'"
        case ev.RoundClosed():
            ranks = ", ".join(map(str, order.ranks)) or "nobody"
            return f"round {order.round} is closed with {ranks}"
        case ev.CutOrdered():
            return f"make checkpoint {order.checkpoint}"
        case ev.GenerationBegun():
            return f"generation {order.generation} begins at checkpoint {order.checkpoint}"
        case ev.JobEnded():
            return f"the job is over{f' ({order.reason})' if order.reason else ''}"


def _answers(event: ev.ShardEvent, effects: Sequence[ev.ShardEffect]) -> Iterator[str]:
    own = getattr(event, "request", None)
    for effect in effects:
        asker = "" if getattr(effect, "request", own) == own else "another pull "
        match effect:
            case ev.PushAnswered():
                yield str(effect.verdict)
            case ev.PullGranted():
                read = f"version {effect.snapshot.version} after {effect.snapshot.rounds} rounds"
                yield f"{asker}is granted {read}, clock gap {effect.clock_gap}"
            case ev.PullParked():
                yield f"{asker}waits"
            case ev.PullFenced():
                yield f"{asker}is fenced, to begin anew at clock {effect.clock}"
            case ev.Refused():
                yield f"{asker}is refused ({effect.fault.value})"
            case ev.Ended():
                yield f"{asker}hears that the job is over"
            case ev.InitialiseAnswered():
                yield "not needed any more" if effect.adopted else "staged"


def _standing(auditor: ShardAudit) -> str:
    rounds = f" after {auditor.rounds} rounds" if auditor.rounds else ""
    generation = f" of generation {auditor.generation}" if auditor.generation else ""
    clocks = [_at(member, auditor.clocks.get(rank, 0)) for rank, member in sorted(auditor.members.items())]
    return f"version {auditor.version}{rounds}{generation}; {', '.join(clocks) or 'nobody has joined'}"


def _at(member: ev.Member, clock: int) -> str:
    gone = "" if member.live else ", which counts no more,"
    return f"{_who(ev.Replica(member.rank, member.incarnation))}{gone} at clock {clock}"


def _who(replica: ev.Replica) -> str:
    again = f" (incarnation {replica.incarnation})" if replica.incarnation > 1 else ""
    return f"replica {replica.rank}{again}"


def _member(member: ev.Member) -> str:
    counts = "counts" if member.live else "counts no more"
    return f"{_who(ev.Replica(member.rank, member.incarnation))} {counts}{' from now on' * member.late}"


def lighter(record: Record) -> Record:
    """Return a record without tensors, so that many can be kept."""
    match record.event:
        case ev.PushReceived():
            return replace(record, event=replace(record.event, gradients={}))
        case ev.InitialiseReceived():
            return replace(record, event=replace(record.event, values={}))
        case _:
            return record
