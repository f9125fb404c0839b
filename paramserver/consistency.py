"""The rules: who may read now, and when gradients become an update.

Every rule compares two integers. A shard has a *frontier*, which only grows; a reader at clock c *needs* the
frontier to have come far enough. Parking a read is remembering what it needs.

=========  ==============================  ==================  ==========================================
rule       frontier                        a reader at c needs  a gradient becomes an update
=========  ==============================  ==================  ==========================================
``sync``   closed rounds                   c                   with its round: one of each live replica
``async``  (not asked)                     nothing             at once, alone
``ssp:N``  slowest live clock              c - N               at once, alone
=========  ==============================  ==================  ==========================================

``sync`` is not ``ssp:0``. Both make a reader at clock c see every step before c of every replica, but under
``ssp:0`` it may also see some steps of clock c, whichever came first; a round shows all of them or none.

The bounded rule is the stale synchronous parallel model of Ho et al. 2013, section 2, with the read
condition "a reader at clock c sees every update of clock <= c - N - 1".
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

from paramserver.errors import RequestError, did_you_mean

NAMED_MAX = 8
"""How many ranks a waiting read names; it counts the rest."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """One setting: ``sync``, ``async`` or ``ssp:N``.

    Attributes:
        name: ``sync``, ``async`` or ``ssp``.
        bound: N of ``ssp:N``, in clocks; else None.
    """

    name: str
    bound: int | None = None

    def __str__(self) -> str:
        return self.name if self.bound is None else f"{self.name}:{self.bound}"

    @property
    def gathers(self) -> bool:
        """Say whether gradients wait for their round (sync) or are applied at once."""
        return self.name == "sync"

    def needs(self, clock: int) -> int:
        """Return the frontier that a reader at this clock needs; 0 or less is granted at once."""
        if self.name == "sync":
            return clock
        return clock - self.bound if self.bound is not None else 0

    def frontier(self, rounds: int, slowest: int | None) -> int:
        """Return how far a shard has come.

        Args:
            rounds: its closed rounds.
            slowest: the slowest live clock there; None where nobody is live, and nobody is to be waited for.
        """
        if self.gathers:
            return rounds
        return sys.maxsize if slowest is None else slowest

    def begins(self, rounds: int, slowest: int | None) -> int:
        """Return the clock at which a replica begins that joins after the start.

        Args:
            rounds: closed rounds.
            slowest: the slowest live clock; None where nobody is live.

        Returns:
            sync: the next round, or the open one where nobody else would close it; else the slowest clock.
        """
        if self.gathers:
            return rounds if slowest is None else rounds + 1
        return slowest or 0

    def because(self, clock: int) -> str:
        """Say under which bound a reader at this clock waits, as a phrase."""
        if self.gathers:
            return f"sync lets a reader at clock {clock} read once round {clock - 1} is closed"
        return f"{self} lets a reader at clock {clock} read once everyone is at clock {self.needs(clock)}"


def parse_consistency(text: str) -> Consistency:
    """Read ``sync``, ``async`` or ``ssp:N``.

    Raises:
        RequestError: anything else.

    Example:
        >>> parse_consistency("ssp:3")
        Consistency(name='ssp', bound=3)
    """
    name, colon, bound = text.partition(":")
    if name in ("sync", "async") and not colon:
        return Consistency(name)
    if name == "ssp" and bound.isdecimal() and bound.isascii():
        return Consistency("ssp", int(bound))
    raise RequestError(
        f"Unknown consistency '{text}': expected sync, async or ssp:N with N = 0, 1, 2, …"
        + (did_you_mean(name, ["sync", "async", "ssp"]) if name != "ssp" else " Give the bound, as in ssp:3.")
    )


def round_members(
    required: Collection[int], contributed: Mapping[int, Collection[int]], shards: int
) -> tuple[int, ...] | None:
    """Decide whether a round can be closed, and with whom.

    Args:
        required: the live ranks, each of which must have contributed on every shard.
        contributed: for each rank the shards that have its gradient for this round.
        shards: how many shards there are.

    Returns:
        The ranks whose gradient is on every shard, ascending (one that has left since still counts; one that
        reached only some shards is left out everywhere), or None while a live rank is missing.

    Example:
        >>> round_members({0, 1}, {0: {0, 1}, 1: {0}}, shards=2)
        >>> round_members({0}, {0: {0, 1}, 1: {0}}, shards=2)
        (0,)
    """
    complete = {rank for rank, where in contributed.items() if len(where) == shards}
    if not complete.issuperset(required):
        return None
    return tuple(sorted(complete))


@dataclass(slots=True)
class Clocks:
    """The clock of every rank on one shard, with the slowest live one at hand.

    Counted in buckets, so that a push moves one entry however many replicas there are.
    """

    _clock: dict[int, int] = field(default_factory=dict)
    _buckets: dict[int, dict[int, None]] = field(default_factory=dict)  # clock -> live ranks, oldest first

    def __getitem__(self, rank: int) -> int:
        return self._clock.get(rank, 0)

    def as_dict(self) -> dict[int, int]:
        """Return every rank's clock, dead and finished ones too."""
        return dict(self._clock)

    def is_live(self, rank: int) -> bool:
        """Say whether a rank counts for the slowest clock."""
        return rank in self._buckets.get(self._clock.get(rank, -1), {})

    def live_count(self) -> int:
        """Return how many ranks count."""
        return sum(len(bucket) for bucket in self._buckets.values())

    def enter(self, rank: int, clock: int) -> None:
        """Count a rank from now on, at this clock or the one it had, whichever is larger."""
        self._remove(rank)
        self._clock[rank] = clock = max(clock, self._clock.get(rank, 0))
        self._buckets.setdefault(clock, {})[rank] = None

    def leave(self, rank: int) -> None:
        """Count a rank no more; its clock is remembered."""
        self._remove(rank)

    def advance(self, rank: int, clock: int) -> None:
        """Move a rank to a clock."""
        if self.is_live(rank):
            self._remove(rank)
            self._buckets.setdefault(clock, {})[rank] = None
        self._clock[rank] = clock

    def slowest(self) -> int | None:
        """Return the slowest live clock, or None where nobody is live."""
        return min(self._buckets, default=None)

    def laggards(self, needs: int) -> tuple[tuple[tuple[int, int], ...], int]:
        """Name the live ranks below a clock.

        Returns:
            Up to ``NAMED_MAX`` pairs (rank, clock), slowest first, and how many more there are.
        """
        below = [clock for clock in sorted(self._buckets) if clock < needs]
        total = sum(len(self._buckets[clock]) for clock in below)
        named = islice(((rank, clock) for clock in below for rank in self._buckets[clock]), NAMED_MAX)
        pairs = tuple(sorted(named, key=lambda pair: (pair[1], pair[0])))
        return pairs, total - len(pairs)

    def _remove(self, rank: int) -> None:
        clock = self._clock.get(rank)
        bucket = None if clock is None else self._buckets.get(clock)
        if bucket is not None and clock is not None:
            bucket.pop(rank, None)
            if not bucket:
                del self._buckets[clock]
