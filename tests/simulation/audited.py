"""Let the auditors look at every event of a virtual world, over all generations and lives of its servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from paramserver import events as ev
from paramserver.audit import CoordinatorAudit, ShardAudit, Violation, audit_end
from paramserver.coordinator import Coordinator
from paramserver.shard import Shard
from paramserver.sim import coordination, shards
from paramserver.sim.calls import COORDINATOR


class Auditors:
    """The auditors of one world.

    Attributes:
        coordinator: of the one that there is now.
        shards: by number.
    """

    def __init__(self, machines: Any) -> None:
        self.coordinator = CoordinatorAudit(machines.shards_in_all)
        self.shards = [ShardAudit(index) for index in range(machines.shards_in_all)]

    def end(self) -> None:
        """Judge the whole, of a job that has finished.

        Raises:
            AssertionError: something is wrong.
        """
        check(audit_end(self.coordinator, self.shards))


def check(found: Sequence[Violation]) -> None:
    """Raise what is wrong, if anything is."""
    assert not found, "\n".join(map(str, found))


@contextmanager
def auditing(machines: Any) -> Iterator[Auditors]:
    """Let what is simulated meanwhile be audited; the first thing that is wrong is raised."""
    auditors = Auditors(machines)

    class AuditedShard(Shard):
        def __init__(self, index: int) -> None:
            super().__init__(index)
            auditors.shards[index].restart()

        def handle(self, event: ev.ShardEvent, now: float) -> list[ev.ShardEffect]:
            effects = super().handle(event, now)
            if getattr(event, "request", None) != COORDINATOR:  # else the world itself only looks
                check(auditors.shards[self.index].observe(event, effects))
            return effects

    class AuditedCoordinator(Coordinator):
        def __init__(self, servers: int, shards_per_server: int, *, recovers: bool = False) -> None:
            super().__init__(servers, shards_per_server, recovers=recovers)
            auditors.coordinator = CoordinatorAudit(servers * shards_per_server, recovers=recovers)

        def restore(self, record: ev.JobRecord, now: float, log: Sequence[ev.Ordered] = ()) -> None:
            super().restore(record, now, log)
            auditors.coordinator.resume(record, log)

        def handle(self, event: ev.CoordinatorEvent, now: float) -> list[ev.CoordinatorEffect]:
            effects = super().handle(event, now)
            if not isinstance(event, ev.StatusReceived):
                check(auditors.coordinator.observe(event, effects))
            return effects

    with (
        patch.object(shards, "Shard", AuditedShard),
        patch.object(coordination, "Coordinator", AuditedCoordinator),
    ):
        yield auditors
