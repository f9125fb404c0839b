"""What an audit of a run has found, as plain data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from paramserver.audit import Violation
from paramserver.check.story import Story

OVER, GOING_ON, INTERRUPTED = "over", "going on", "interrupted"
"""How a run stands: it came to its end, it is being written to, or it ended before its time."""

VIOLATIONS_KEPT = 100
"""How many violations are kept of each shard; the rest is counted."""


@dataclass(slots=True)
class Findings:
    """Violations, in the order in which they were found.

    Attributes:
        violations: the first ones.
        count: of all.
        story: the fewest events that show the first one, where there are any.
    """

    violations: list[Violation] = field(default_factory=list)
    count: int = 0
    story: Story | None = None

    def add(self, violation: Violation) -> None:
        """Add one."""
        self.count += 1
        if len(self.violations) < VIOLATIONS_KEPT:
            self.violations.append(violation)

    def say(self, name: str, message: str, shard: int = -1) -> None:
        """Add one by its property and its sentence."""
        self.add(Violation(name, message, shard))


@dataclass(slots=True)
class Coverage:
    """What of one shard's history has been verified.

    Attributes:
        shard: which.
        segments: how many files its journal has.
        full: the journal has the gradients.
        spans: pairs of versions, the first and the last of what is known without a gap.
        exact: pairs as in `spans`, of what was computed again from the gradients.
        ended: the job's end is in the journal.
        is_gone: the job went on with fewer shards, so this one has no part in it any more.
        torn_bytes: that were being written when a process ended, and never counted.
    """

    shard: int
    segments: int = 0
    full: bool = False
    spans: list[tuple[int, int]] = field(default_factory=list)
    exact: tuple[int, int] | None = None
    ended: bool = False
    is_gone: bool = False
    torn_bytes: int = 0

    @property
    def version(self) -> int:
        """The newest version that is known; 0 if none is."""
        return self.spans[-1][1] if self.spans else 0

    def __str__(self) -> str:
        if not self.spans:
            return f"shard {self.shard}: nothing"
        parts = " and ".join(f"{begin:,} to {end:,}" for begin, end in self.spans)
        gone = "; the job went on without this shard" if self.is_gone else ""
        return f"shard {self.shard}: versions {parts} of {self.version:,}{gone}"


@dataclass(slots=True)
class Report:
    """The outcome of an audit.

    Attributes:
        run: the folder.
        state: how the run stands: ``over``, ``going on`` or ``interrupted``.
        consistency: of the job; empty if it is not known.
        coverage: of each shard.
        counts: how many things of each kind were verified.
        samples: what became of the samples that were received.
        pushes: what became of the pushes that were received.
        notes: what is not covered, as sentences.
        violations: the first ones.
        violations_count: of all.
        story: the fewest events that show the first one of a shard.
        story_of: the violation that the story shows.
        seconds: that the audit took.
    """

    run: str
    state: str
    consistency: str = ""
    coverage: list[Coverage] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)
    pushes: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    violations_count: int = 0
    story: Story | None = None
    story_of: Violation | None = None
    seconds: float = 0.0

    def take(self, findings: Findings) -> None:
        """Take over findings."""
        self.violations += findings.violations
        self.violations_count += findings.count
        if findings.story is not None and self.story is None:
            self.story, self.story_of = findings.story, findings.violations[0]
