"""Judge a job at its end, over all shards and replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paramserver.accounting import SAMPLE_NAMES
from paramserver.audit.coordinator import CoordinatorAudit
from paramserver.audit.shard import ShardAudit
from paramserver.audit.violation import Violation
from paramserver.events import Counters


@dataclass(frozen=True, slots=True)
class Settled:
    """What a replica has heard of one of its pushes: applied, dropped, fenced, partial or lost."""

    rank: int
    sequence: int
    outcome: str


def audit_end(
    coordinator: CoordinatorAudit,
    shards: Sequence[ShardAudit],
    settled: Iterable[Settled] = (),
    counters: Iterable[Counters] = (),
) -> list[Violation]:
    """Judge what only the whole shows, once nothing is under way any more.

    Args:
        coordinator: its auditor.
        shards: the auditors of all shards.
        settled: what the replicas have heard of their pushes.
        counters: the last counters of every incarnation of every replica.

    Returns:
        What is wrong; usually nothing.
    """
    found: list[Violation] = []
    orders = {shard.orders for shard in shards}
    if orders != {coordinator.orders}:
        found.append(Violation("order", f"Of {coordinator.orders} orders shards have handled {orders}."))
    if {shard.rounds for shard in shards} != {coordinator.rounds}:
        rounds = [shard.rounds for shard in shards]
        found.append(
            Violation("round", f"The coordinator closed {coordinator.rounds} rounds, shards {rounds}.")
        )
    if coordinator.rounds and len({repr(_sorted(shard)) for shard in shards}) > 1:
        found.append(Violation("round", "A round was applied with different ranks on different shards."))
    heard: Counter[tuple[int, int]] = Counter()
    for push in settled:
        found += _judge(push, shards)
        heard[push.rank, push.sequence] += push.outcome == "applied"
    found += [
        Violation("samples", f"Push {sequence} of replica {rank} is counted {times} times.", rank=rank)
        for (rank, sequence), times in heard.items()
        if times > 1
    ]
    for each in counters:
        for counts in (each.gradients, each.samples):
            computed, *others = (counts.get(name, 0) for name in SAMPLE_NAMES)
            if computed != sum(others):
                found.append(Violation("samples", f"A replica's account does not add up: {dict(counts)}."))
    return found


def _judge(push: Settled, shards: Sequence[ShardAudit]) -> list[Violation]:
    where = [shard.index for shard in shards if push.sequence in shard.applied.get(push.rank, ())]
    # A push that is fenced or lost may have been applied before; nobody could tell its sender.
    true = {
        "applied": len(where) == len(shards),
        "dropped": not where,
        "partial": bool(where),
    }.get(push.outcome, True)
    if true:
        return []
    said = f"Push {push.sequence} of replica {push.rank} was said to be {push.outcome}"
    return [Violation("samples", f"{said}, but is in the weights of shards {where}.", rank=push.rank)]


def _sorted(shard: ShardAudit) -> dict[int, list[int]]:
    return {rank: sorted(sequences) for rank, sequences in sorted(shard.applied.items()) if sequences}
