"""The parts of a cluster, each with its auditor, each of which can be copied and compared.

A cell takes one message and says what it sends. What it does depends on nothing but its contents and that
message, so whoever has seen it once knows it for ever; `universe` stands on that.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from marks import STEPS_MAX
from scenario import Scenario, samples_of

from paramserver import events as ev
from paramserver.audit import CoordinatorAudit, ShardAudit, Violation
from paramserver.coordinator import Coordinator
from paramserver.shard import Shard


class ShardCell:
    """A shard and its auditor."""

    NOT_FROZEN = ("scenario",)

    def __init__(self, scenario: Scenario, index: int) -> None:
        self.scenario = scenario
        self.shard, self.audit = Shard(index), ShardAudit(index)

    def copy(self) -> ShardCell:
        """Return another that holds the same."""
        other = copy.copy(self)
        other.shard, other.audit = copy.deepcopy((self.shard, self.audit))
        return other

    def take(self, event: Any, now: float) -> tuple[list[Any], list[Violation]]:
        """Handle an event; return effects and what is wrong with them."""
        try:
            effects = self.shard.handle(event, now)
        except Exception as error:
            return [], [Violation("answer", f"{type(event).__name__} raised {error!r}")]
        found = self.audit.observe(event, effects)
        return effects, found + self._judge_marks()

    def weights(self) -> np.ndarray | None:
        """Return its row of the weights, as an observer would read it."""
        copied = copy.deepcopy(self.shard)
        [granted] = copied.handle(ev.PullReceived(0, None, round=None), 0.0)
        if not isinstance(granted, ev.PullGranted):
            return None
        return next(iter(granted.snapshot.values.values()))[0]

    def _judge_marks(self) -> list[Violation]:
        """What is in the weights is what the auditor has seen being applied, each once, rounds as a mean."""
        kept = self.shard._state.weights.kept if self.shard.knows_its_job else ()
        if not kept:
            return []
        newest = next(iter(kept[-1].values.values()))[0]
        marks = newest[: len(self.scenario.steps) * STEPS_MAX].reshape(-1, STEPS_MAX)
        found = {(int(rank), int(clock)) for rank, clock in np.argwhere(marks)}
        seen = {(rank, clock) for rank, clocks in self.audit.applied.items() for clock in clocks}
        if self.scenario.rule == "sync":
            right = np.allclose(marks, self._shares(seen), rtol=1e-6)
        else:
            right = bool(np.isin(marks, (0, 1)).all())
        if found != seen or not right:
            return [Violation("once", f"the weights show {marks.tolist()}, but applied was {sorted(seen)}")]
        return []

    def _shares(self, seen: set[tuple[int, int]]) -> np.ndarray:
        """Return what each step has in the mean of its round: its share of the samples."""
        shares = np.zeros((len(self.scenario.steps), STEPS_MAX))
        for rank, clock in seen:
            shares[rank, clock] = samples_of(rank, clock)
        return np.divide(shares, shares.sum(axis=0), out=shares, where=shares.sum(axis=0) > 0)


class CoordinatorCell:
    """The coordinator and its auditor."""

    def __init__(self, scenario: Scenario) -> None:
        self.coordinator = Coordinator(servers=1, shards_per_server=scenario.shards)
        self.audit = CoordinatorAudit(scenario.shards)

    def copy(self) -> CoordinatorCell:
        """Return another that holds the same."""
        other = copy.copy(self)
        other.coordinator, other.audit = copy.deepcopy((self.coordinator, self.audit))
        return other

    def take(self, event: Any, now: float) -> tuple[list[Any], list[Violation]]:
        """Handle an event; return effects and what is wrong with them."""
        try:
            effects = self.coordinator.handle(event, now)
        except Exception as error:
            return [], [Violation("answer", f"{type(event).__name__} raised {error!r}")]
        return effects, self.audit.observe(event, effects)
