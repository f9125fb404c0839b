"""What goes wrong: to messages by chance, to workers and servers at given or drawn times.

The same words serve virtual time and real processes. Some mean something in one of them only, and are refused
in the other: a simulated worker crashes and comes back by itself, a real one is killed, and what becomes of
that is up to whoever started it.

A message is lost when the connection breaks under it: its sender notices and asks again, as the client
does. A partition holds messages back until it is over, since that is what TCP makes of it; if it lasts
longer than the lease, its workers count as dead. A paused worker is stopped whole: it computes, hears and
says nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from paramserver.data import generator
from paramserver.errors import RequestError
from paramserver.quantities import (
    NANOSECONDS,
    check_known,
    format_duration,
    format_number,
    parse_assignments,
    parse_nanoseconds,
    parse_server,
    parse_share,
    parse_worker,
)

BLOCK_MESSAGES = 1024
"""Messages whose fates are drawn at once."""

_LASTS = {
    "crash": "may",
    "pause": "must",
    "partition": "must",
    "join": "never",
    "leave": "never",
    "kill": "never",
    "refuse": "must",
}
"""What can happen to somebody, and whether it lasts; a crash that does not last is for ever."""

_BEFALLS = {
    "crash": "is down",
    "pause": "is paused",
    "partition": "is cut off",
    "join": "joins",
    "leave": "leaves",
    "kill": "is killed",
    "refuse": "finds every connection refused",
}

_CHANCES = {"lose": False, "duplicate": False, "delay": True, "reorder": True, "cut": False}
"""What can happen to a message, and whether it says by how long it comes late."""

VIRTUAL = ("lose", "duplicate", "delay", "reorder", "crash", "pause", "partition", "join", "leave")
"""The words that mean something in virtual time."""

REAL = ("lose", "duplicate", "delay", "reorder", "cut", "kill", "pause", "partition", "refuse")
"""The words that mean something to real processes."""


@dataclass(frozen=True, slots=True)
class Between:
    """A duration that is drawn evenly between two, which may be the same; in nanoseconds."""

    least: int
    most: int

    def __str__(self) -> str:
        if self.least == self.most:
            return format_duration(self.least)
        return f"{format_duration(self.least)}..{format_duration(self.most)}"

    def draw(self, rng: np.random.Generator) -> int:
        """Draw one."""
        return int(rng.integers(self.least, self.most, endpoint=True))


@dataclass(frozen=True, slots=True)
class Blow:
    """Something that happens to a worker, or to a server.

    Attributes:
        kind: crash, pause, partition, join, leave, kill or refuse.
        worker: to whom; None for one that is drawn, or for a server.
        at: when.
        lasts: for how long; None if it does not end.
        server: to which server; None for a worker.
    """

    kind: str
    worker: int | None
    at: Between
    lasts: Between | None = None
    server: int | None = None

    def __str__(self) -> str:
        who = "any" if self.worker is None else f"w{self.worker}"
        if self.server is not None:
            who = f"s{self.server}"
        return f"{self.kind}={who}@{self.at}" + (f"+{self.lasts}" if self.lasts else "")


@dataclass(frozen=True, slots=True)
class Chance:
    """What happens to a share of messages: lose, duplicate, delay, reorder or cut; late by so long."""

    kind: str
    share: float
    late: Between | None = None

    def __str__(self) -> str:
        return f"{self.kind}={format_number(self.share)}" + (f"+{self.late}" if self.late else "")


@dataclass(frozen=True, slots=True)
class Faults:
    """All that goes wrong.

    Attributes:
        chances: what happens to messages; of one message at most one of them.
        blows: what happens to workers and servers, in the order in which they were given.
    """

    chances: tuple[Chance, ...] = ()
    blows: tuple[Blow, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, (*self.chances, *self.blows)))


NO_FAULTS = Faults()


def parse_faults(text: str, words: Collection[str] = VIRTUAL) -> Faults:
    """Read what goes wrong.

    Args:
        text: in any order ``lose=1%``, ``duplicate=1%``, ``delay=1%+200ms``, ``reorder=1%+5ms``, ``cut=1%``
            of messages; ``crash=w2@3s`` (for ever), ``crash=w2@3s+2s`` (back after 2 s), ``kill=w1@3s``,
            ``pause=w1@4s+1s``, ``partition=w1@10s+5s``, ``refuse=w1@4s+1s``, ``join=w4@5s``, ``leave=w0@7s``
            of workers; ``kill=s0@5s``, ``crash=s1@3s+2s``, ``pause=s0@5s+1s`` of servers. A time may be
            drawn, as in ``crash=any@0s..60s+1s..5s``; ``any`` is a worker.
        words: those of them that mean something here: ``VIRTUAL`` or ``REAL``.

    Raises:
        RequestError: it is not of this form.

    Example:
        >>> str(parse_faults("lose=1% crash=any@0s..60s+2s"))
        'lose=0.01 crash=any@0s..60s+2s'
    """
    chances, blows = [], []
    for kind, value in parse_assignments(text, "the faults"):
        check_known(kind, words, "fault" if words is VIRTUAL else "fault of real processes")
        what = f"'{kind}={value}' of the faults"
        if kind in _CHANCES:
            chances.append(_chance(kind, value, what))
        else:
            blows.append(_blow(kind, value, what))
    if sum(chance.share for chance in chances) > 1:
        raise RequestError("More than 100% of the messages would meet a fault. Each meets at most one.")
    if any(chance.kind == "lose" and chance.share == 1 for chance in chances):
        raise RequestError("If every message is lost, nothing can ever happen. Lose less than 100%.")
    return Faults(tuple(chances), tuple(blows))


@dataclass(frozen=True, slots=True)
class Happening:
    """A blow with all its chance decided.

    Attributes:
        kind: crash, pause, partition, join, leave, kill or refuse.
        worker: to whom; -1 for a server.
        at: nanoseconds.
        until: nanoseconds; None if it does not end.
        server: to which server; None for a worker.
    """

    kind: str
    worker: int
    at: int
    until: int | None
    server: int | None = None

    @property
    def whom(self) -> str:
        """Return whom it befalls, such as ``worker1``."""
        return f"worker{self.worker}" if self.server is None else f"server{self.server}"

    def __str__(self) -> str:
        text = f"{self.whom} {_BEFALLS[self.kind]}"
        if self.until is not None:
            text += f" until {self.until / NANOSECONDS:.3f} s"
        return f"{text}."


def decide(faults: Faults, seed: int, workers: int) -> list[Happening]:
    """Draw what the blows leave open.

    Args:
        faults: what goes wrong.
        seed: of the world.
        workers: who is drawn from: those that are there from the beginning.

    Returns:
        What happens, in the order of time.
    """
    happenings = []
    for number, blow in enumerate(faults.blows):
        rng = generator(seed, "blow", number)
        worker = int(rng.integers(workers)) if blow.worker is None else blow.worker
        if blow.server is not None:
            worker = -1
        at = blow.at.draw(rng)
        until = at + blow.lasts.draw(rng) if blow.lasts else None
        happenings.append(Happening(blow.kind, worker, at, until, blow.server))
    return sorted(happenings, key=lambda happening: happening.at)


@dataclass(slots=True)
class Fates:
    """What happens to one message after the other.

    Args:
        chances: what can.
        seed: of the world.
        position: further integers of 0 or more, for a sequence of its own.
    """

    chances: tuple[Chance, ...]
    seed: int
    position: tuple[int, ...] = ()
    _drawn: list[float] = field(default_factory=list)
    _blocks: int = 0
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = generator(self.seed, "lateness of messages", *self.position)

    def next(self) -> tuple[str, int]:
        """Return what happens to the next message: a chance's kind or nothing, and by how long it is late."""
        if not self.chances:
            return "", 0
        if not self._drawn:
            rng = generator(self.seed, "fates", *self.position, self._blocks)
            self._drawn = rng.random(BLOCK_MESSAGES).tolist()
            self._blocks += 1
        point = self._drawn.pop()
        for chance in self.chances:
            if point < chance.share:
                return chance.kind, chance.late.draw(self._rng) if chance.late else 0
            point -= chance.share
        return "", 0


def _chance(kind: str, value: str, what: str) -> Chance:
    share, plus, late = value.partition("+")
    if bool(plus) != _CHANCES[kind]:
        example = f"{kind}=1%" + "+5ms" * _CHANCES[kind]
        raise RequestError(f"Expected {example} as {what}.")
    return Chance(kind, parse_share(share, what), _between(late, what) if plus else None)


def _blow(kind: str, value: str, what: str) -> Blow:
    who, at, when = value.partition("@")
    begin, plus, lasts = when.partition("+")
    needs = _LASTS[kind]
    if not at or (needs == "must" and not plus) or (needs == "never" and plus) or (plus and not lasts):
        raise RequestError(f"Expected {kind}=w1@3s{'' if needs == 'never' else '+2s'} as {what}.")
    if kind == "join" and who == "any":
        raise RequestError(f"A newcomer needs a name, but found {what}. Name the worker after the last one.")
    server = parse_server(who) if kind in ("kill", "crash", "pause") else None
    worker = None if who == "any" or server is not None else parse_worker(who, what)
    return Blow(kind, worker, _between(begin, what), _between(lasts, what) if plus else None, server)


def _between(text: str, what: str) -> Between:
    least, dots, most = text.partition("..")
    begin = parse_nanoseconds(least, what)
    end = parse_nanoseconds(most, what) if dots else begin
    if end < begin:
        raise RequestError(f"The later time comes first in {what}: write the smaller before '..'.")
    return Between(begin, end)
