"""Which kills are made: drawn from a seed alone, so that each can be made again.

A kill happens at a moment: a line in one of the programs, at its n-th time there. Whoever comes to it stops;
then the victims are killed, which may be that process or others; and the others go on from there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

LEASE_SECONDS = 2.0

MODES = tuple((mode, kept) for kept in ("checkpoint", "journal") for mode in ("sync", "async", "ssp:2"))
VICTIMS = ("a worker", "a server", "the launcher", "the coordinator", "several", "a worker")
PHASES = (
    "while pulling",
    "while pushing",
    "in a barrier",
    "in a checkpoint",
    "at the start",
    "in a recovery",
    "at the end",
)


@dataclass(frozen=True, slots=True)
class Strike:
    """Some processes are killed at a moment.

    Attributes:
        place: the process that comes to the moment, such as ``server 1``.
        moment: a name in ``inside/sitecustomize.py``.
        count: how often that process has come to it, from its start on.
        victims: such as ``worker 0`` and ``launcher``.
        pause_seconds: the place stands still for so long before; the others go on.
    """

    place: str
    moment: str
    count: int
    victims: tuple[str, ...]
    pause_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{' and '.join(self.victims)} when {self.place} {self.moment} ({self.count})"


@dataclass(frozen=True, slots=True)
class Kill:
    """One run in which processes are killed.

    Attributes:
        number: its place in the draw.
        victim: one of ``VICTIMS``.
        phase: one of ``PHASES``.
        consistency: of the job.
        durability: of the job.
        strikes: one after the other.
    """

    number: int
    victim: str
    phase: str
    consistency: str
    durability: str
    strikes: tuple[Strike, ...]

    def __str__(self) -> str:
        strikes = "; then ".join(map(str, self.strikes))
        return f"{self.consistency}, {self.durability}, {self.victim} {self.phase}: {strikes}"


def draw_kills(seed: int) -> Iterator[Kill]:
    """Draw kills without end: every victim in every mode, and in every phase, takes its turn."""
    rng = random.Random(seed)
    decks: dict[int, list[str]] = {}
    for number in count():
        place, turn = number % len(VICTIMS), number // len(VICTIMS)
        consistency, durability = MODES[(place + turn) % len(MODES)]
        deck = decks.setdefault(place, [])
        if not deck:
            deck += rng.sample(PHASES, len(PHASES))
        yield _draw(
            random.Random(f"{seed}/{number}"), number, VICTIMS[place], deck.pop(), consistency, durability
        )


def drawn(seed: int, number: int) -> Kill:
    """Return one kill of a draw."""
    return next(islice(draw_kills(seed), number, None))


def _draw(
    rng: random.Random, number: int, victim: str, phase: str, consistency: str, durability: str
) -> Kill:
    if phase == "in a barrier" and consistency == "async":
        phase = "while pushing"  # nobody ever waits
    strikes = []
    if phase == "in a recovery":
        first = rng.choice(("server 0", "server 1"))
        strikes.append(Strike(first, "has a gradient", rng.randint(8, 120), (first,)))
        moments = [(first, "comes back", (1, 1))]
        if durability == "checkpoint":
            other = "server 0" if first == "server 1" else "server 1"
            moments += [(other, "goes back", (1, 1)), (_worker(rng), "joins again", (1, 2))]
        place, moment, counts = rng.choice(moments)
    else:
        place, moment, counts = rng.choice(_moments(rng, phase, consistency))
    victims = _victims(rng, victim)
    strikes.append(Strike(place, moment, rng.randint(*counts), victims, rng.uniform(0, 0.01)))
    return Kill(number, victim, phase, consistency, durability, tuple(strikes))


def _moments(rng: random.Random, phase: str, consistency: str) -> list[tuple[str, str, tuple[int, int]]]:
    """Return the moments of a phase: place, moment, and the least and largest count."""
    server, worker = rng.choice(("server 0", "server 1")), _worker(rng)
    match phase:
        case "while pulling":
            return [(server, "sends weights", (8, 200)), (worker, "pulls", (4, 80))]
        case "while pushing":
            found = [
                (server, "has a gradient", (8, 200)),
                (server, "answers a push", (8, 200)),
                (worker, "pushes", (4, 80)),
                (worker, "has pushed to the first shard", (4, 80)),
                (worker, "has pushed", (4, 80)),
            ]
            return [*found, (server, "closes a round", (3, 60))] if consistency == "sync" else found
        case "in a barrier":
            return [(server, "lets a pull wait", (4, 60)), ("worker 0", "waits", (2, 30))]
        case "in a checkpoint":
            counts = (2, 8) if consistency == "sync" else (2, 4)  # the first is that of the first weights
            return [
                (server, "begins a cut", counts),
                (server, "is writing a cut", counts),
                (server, "has written a cut", counts),
                ("server 0", "finishes a checkpoint", counts),
                ("server 0", "has finished a checkpoint", counts),
            ]
        case "at the start":
            return [(worker, "joins", (1, 2)), (server, "opens", (1, 1)), (worker, "pulls", (1, 2))]
        case "at the end":
            return [
                (worker, "leaves", (1, 2)),
                (server, "keeps the last weights", (1, 1)),
                ("server 0", "finishes the last weights", (1, 1)),
                ("server 0", "has finished the last weights", (1, 1)),
                ("server 0", "writes the summary", (1, 1)),
            ]
    raise AssertionError(phase)


def _victims(rng: random.Random, victim: str) -> tuple[str, ...]:
    match victim:
        case "a worker":
            return (_worker(rng),)
        case "a server":
            return ("server 1",)
        case "the coordinator":
            return ("server 0",)
        case "the launcher":
            return ("launcher",)
        case "several":
            groups = [
                ("worker 0", "worker 1"),
                ("server 0", "server 1"),
                (rng.choice(("server 0", "server 1")), _worker(rng)),
                ("server 0", "server 1", "worker 0", "worker 1"),
            ]
            return rng.choice(groups)
    raise AssertionError(victim)


def _worker(rng: random.Random) -> str:
    return rng.choice(("worker 0", "worker 1"))
