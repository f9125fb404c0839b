"""How long each step of each replica takes: a law, and who is slower than it says, and when.

A step's time is a function of (seed, replica, clock) and of the moment at which it begins, of nothing else.
So two runs with other rules, servers or networks meet the same times, and their difference is the rules'
alone; and a replica that does a step again takes as long as before.
"""

from __future__ import annotations

from dataclasses import dataclass

from paramserver.data import generator
from paramserver.errors import RequestError
from paramserver.quantities import (
    format_duration,
    format_number,
    parse_assignments,
    parse_nanoseconds,
    parse_number,
    parse_share,
    parse_worker,
)
from paramserver.sim.laws import Law, parse_law

BLOCK_STEPS = 32
"""Steps whose times are drawn at once; making a generator costs as much as twenty steps' draws."""


@dataclass(frozen=True, slots=True)
class Slowness:
    """Steps that take longer than the law says.

    Attributes:
        factor: times as long, above 0; below 1 is faster.
        worker: whose; None for everyone's.
        share: of these steps, by chance, each for itself.
        begin_ns: the first moment at which a step may begin to be slow.
        lasts_ns: how long that lasts; None for ever.
    """

    factor: float
    worker: int | None = None
    share: float = 1.0
    begin_ns: int = 0
    lasts_ns: int | None = None

    def __str__(self) -> str:
        who = "all" if self.worker is None else f"w{self.worker}"
        share = "" if self.share == 1 else f"/{format_number(self.share)}"
        spell = ""
        if self.lasts_ns is not None:
            spell = f"@{format_duration(self.begin_ns)}+{format_duration(self.lasts_ns)}"
        return f"{who}{share}=x{format_number(self.factor)}{spell}"


@dataclass(frozen=True, slots=True)
class Compute:
    """The time that gradients take.

    Attributes:
        law: of one step of an ordinary replica.
        slow: who is slower, and when.
        stagger_ns: each replica begins its first step so much later than the one before it.
        cpu: the share of a step's time in which it needs a core of its machine; the rest, which comes first,
            is spent on an accelerator. It matters only where cores are shared.
    """

    law: Law
    slow: tuple[Slowness, ...] = ()
    stagger_ns: int = 0
    cpu: float = 1.0

    def __str__(self) -> str:
        stagger = [f"stagger={format_duration(self.stagger_ns)}"] if self.stagger_ns else []
        cpu = [f"cpu={format_number(self.cpu)}"] if self.cpu != 1 else []
        return " ".join([str(self.law), *map(str, self.slow), *stagger, *cpu])


def parse_compute(text: str) -> Compute:
    """Read the time that gradients take.

    Args:
        text: a law, then in any order ``w3=x4`` (worker 3 takes 4 times as long), ``w3=x4@10s+5s`` (in a
            spell of 5 s that begins at 10 s), ``all/10%=x2`` (each step with a chance of 10 %),
            ``stagger=1ms``, ``cpu=30%`` (of each step; the rest of it needs no core).

    Raises:
        RequestError: it is not of this form, or cannot be.

    Example:
        >>> str(parse_compute("exponential:20ms w3=x4 all/10%=x2@10s+5s"))
        'exponential:20ms w3=x4 all/0.1=x2@10s+5s'
    """
    words = text.split()
    if not words:
        raise RequestError("The compute time is missing. Give a law such as exponential:20ms.")
    slow, stagger_ns, cpu = [], 0, 1.0
    for name, value in parse_assignments(" ".join(words[1:]), "the compute time"):
        if name == "stagger":
            stagger_ns = parse_nanoseconds(value, "the stagger")
        elif name == "cpu":
            cpu = parse_share(value, "the share of a core")
        else:
            slow.append(_slowness(name, value))
    return Compute(parse_law(words[0], "the compute time"), tuple(slow), stagger_ns, cpu)


class StepTimes:
    """The times of one replica's steps.

    Args:
        compute: the law and who is slow.
        seed: of the world.
        replica: counted over all workers.
        worker: where it runs.
    """

    def __init__(self, compute: Compute, seed: int, replica: int, worker: int) -> None:
        self._law, self._seed, self._replica = compute.law, seed, replica
        self._slow = tuple(slow for slow in compute.slow if slow.worker in (None, worker))
        self._stagger_ns = compute.stagger_ns * replica
        self._block = -1
        self._times: list[int] = []
        self._chances: list[list[float]] = []

    def nanoseconds(self, clock: int, now: int) -> int:
        """Return how long the step of a clock takes that begins now."""
        block, position = divmod(clock, BLOCK_STEPS)
        if block != self._block:
            self._draw(block)
        time: float = self._times[position]
        for slow, chances in zip(self._slow, self._chances, strict=True):
            inside = slow.lasts_ns is None or slow.begin_ns <= now < slow.begin_ns + slow.lasts_ns
            if inside and chances[position] < slow.share:
                time *= slow.factor
        return round(time) + (self._stagger_ns if clock == 0 else 0)

    def _draw(self, block: int) -> None:
        self._block = block
        rng = generator(self._seed, "compute time", self._replica, block)
        self._times = self._law.draw(rng, BLOCK_STEPS).tolist()
        self._chances = [rng.random(BLOCK_STEPS).tolist() for _ in self._slow]


def _slowness(name: str, value: str) -> Slowness:
    who, slash, share = name.partition("/")
    factor, at, spell = value.partition("@")
    what = f"'{name}={value}' of the compute time"
    times = parse_number(factor.removeprefix("x"), what)
    if not factor.startswith("x") or times <= 0:
        raise RequestError(f"Expected a factor above 0, such as x4, in {what}.")
    begin, plus, lasts = spell.partition("+")
    if at and not plus:
        raise RequestError(f"Expected when a spell begins and how long it lasts, such as @10s+5s, in {what}.")
    return Slowness(
        times,
        None if who == "all" else parse_worker(who, what),
        parse_share(share, what) if slash else 1.0,
        parse_nanoseconds(begin, what) if at else 0,
        parse_nanoseconds(lasts, what) if at else None,
    )
