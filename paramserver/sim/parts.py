"""What one virtual replica has been dealt, and when it asks for more: ahead of time, as a worker does."""

from __future__ import annotations

from paramserver.events import Dealt, PartGiven

AHEAD_STEPS = 2
"""A worker makes so many batches ahead, and asks for more work at the first that it has not got."""


class Parts:
    """The parts of one life of a replica, along its clock.

    Attributes:
        asked: a question is under way.
        steps: at the end, as far as is known.
    """

    def __init__(self) -> None:
        self.asked = False
        self.steps = 0
        self._dealt: list[Dealt] = []
        self._end: int | None = None  # the clock at which nothing is left

    def take(self, clock: int, given: PartGiven) -> bool:
        """Take what it is dealt from a clock on; say whether that was the first answer."""
        is_first = not self._dealt and self._end is None
        self.steps = given.steps
        if given.dealt is None:
            self._end = clock
        else:
            self._dealt.append(given.dealt)
        return is_first

    def at(self, clock: int) -> Dealt | None:
        """Return the part that has a clock; None where nothing is left."""
        return next((dealt for dealt in reversed(self._dealt) if dealt.clock <= clock < dealt.end), None)

    def knows(self, clock: int) -> bool:
        """Say whether it is known what to do at a clock, which may be nothing."""
        return self.is_over(clock) or self.at(clock) is not None

    def is_over(self, clock: int) -> bool:
        """Say whether nothing is left at a clock."""
        return self._end is not None and clock >= self._end

    def to_ask(self, clock: int) -> int | None:
        """Return the clock that a replica asks for while it does a step; None if it need not ask.

        Args:
            clock: of the step.
        """
        if self.asked or self._end is not None or not self._dealt:
            return None
        end = self._dealt[-1].end
        return end if clock + AHEAD_STEPS >= end - 1 else None
