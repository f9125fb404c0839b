"""What one replica has done, counted as it happens: no gradient, no sample and no second without a name."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, replace

from paramserver.events import PHASES, Counters, Outcome, Phase, Verdict

RECENT_STEPS = 20
"""The training loss that is shown is the mean over so many steps: steady, and not old."""

_NAME = {
    Phase.IDLE: "rest",
    Phase.PULL: "pull",
    Phase.WAIT: "wait",
    Phase.COMPUTE: "compute",
    Phase.PUSH: "push",
}


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Steps ``begin <= clock < end`` that were applied, each with so many samples."""

    begin: int
    end: int
    samples: int


class Tally:
    """Counts for one replica. It reads no clock: whoever calls says what time it is, in seconds.

    Every computed gradient ends up as exactly one of applied, dropped, fenced, partial or lost; at most one
    at a time is undecided. What was applied can be rolled back later.

    Args:
        now: when counting begins.

    Attributes:
        phase: what the replica does now.

    Example:
        >>> tally = Tally(now=0.0)
        >>> tally.computed(samples=32, loss=0.5)
        >>> tally.decided(Verdict(Outcome.APPLIED, version=1, staleness=0))
        >>> tally.counters(now=1.0).samples
        {'computed': 32, 'applied': 32}
    """

    def __init__(self, now: float) -> None:
        self.phase = Phase.IDLE
        self._since = now
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._gradients: Counter[str] = Counter()
        self._samples: Counter[str] = Counter()
        self._staleness: Counter[int] = Counter()
        self._clock_gap: Counter[int] = Counter()
        self._latest_staleness: int | None = None
        self._losses: deque[float] = deque(maxlen=RECENT_STEPS)
        self._undecided: int | None = None  # samples of the push whose fate is not known yet
        self._undecided_clock = 0
        self._applied: list[_Stretch] = []

    def enter(self, phase: Phase, now: float) -> None:
        """Do something else from now on."""
        self._seconds[_NAME[self.phase]] += now - self._since
        self.phase, self._since = phase, now

    def computed(self, samples: int, loss: float, clock: int = 0) -> None:
        """Count a gradient that is about to be pushed; ``clock`` is that of its step."""
        assert self._undecided is None, "One push at a time may be unanswered."
        self._gradients["computed"] += 1
        self._samples["computed"] += samples
        self._undecided, self._undecided_clock = samples, clock
        self._losses.append(loss)

    def decided(self, verdict: Verdict) -> None:
        """Count what became of the last push; while it is buffered, that is not known yet."""
        if verdict.duplicate:
            self._gradients["duplicate"] += 1
        if verdict.outcome is Outcome.BUFFERED:
            return
        if verdict.outcome is Outcome.APPLIED:
            self._staleness[verdict.staleness] += 1
            self._latest_staleness = verdict.staleness
        self._close(verdict.outcome.value)

    def pulled(self, clock_gap: int, verdict: Verdict | None) -> None:
        """Count a granted read, and the verdict on a buffered push that comes with it."""
        self._clock_gap[clock_gap] += 1
        if self._undecided is None:
            return
        if verdict is None:
            self.lost()
        else:
            self.decided(verdict)

    def lost(self) -> None:
        """Count the last push as lost if its fate is not known: no verdict will come any more."""
        if self._undecided is not None:
            self._close("lost")

    def begin_anew(self, clock: int, *, rolled_back: bool) -> None:
        """Go on at a clock that is not the next one.

        Args:
            clock: of the next step. A push of this step or a later one, whose fate is not known, is lost; of
                an earlier one, the next pull tells.
            rolled_back: the weights are those of a checkpoint, so what was applied of this step and of later
                ones is void.
        """
        if self._undecided_clock >= clock:
            self.lost()
        while rolled_back and self._applied and self._applied[-1].end > clock:
            last = self._applied.pop()
            kept = max(0, clock - last.begin)
            if kept:
                self._applied.append(replace(last, end=clock))
            void = last.end - last.begin - kept
            for counts, each in ((self._gradients, 1), (self._samples, last.samples)):
                counts["applied"] -= void * each
                counts["rolled_back"] += void * each

    def counters(self, now: float) -> Counters:
        """Return all counts, as a heartbeat carries them."""
        seconds = dict(self._seconds)
        seconds[_NAME[self.phase]] += now - self._since
        return Counters(
            dict(self._gradients),
            dict(self._samples),
            dict(self._staleness),
            dict(self._clock_gap),
            seconds,
            sum(self._losses) / len(self._losses) if self._losses else math.nan,
            self._latest_staleness,
        )

    def _close(self, name: str) -> None:
        assert self._undecided is not None, "A verdict came without a push."
        if name == "applied":
            self._note_applied(self._undecided_clock, self._undecided)
        self._gradients[name] += 1
        self._samples[name] += self._undecided
        self._undecided = None

    def _note_applied(self, clock: int, samples: int) -> None:
        last = self._applied[-1] if self._applied else None
        if last is not None and (last.end, last.samples) == (clock, samples):
            self._applied[-1] = replace(last, end=clock + 1)
        else:
            self._applied.append(_Stretch(clock, clock + 1, samples))
