"""Put together what all shards say of each push: its samples add up, and a round is the same everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from paramserver import events as ev
from paramserver.audit.ledger import Ledger
from paramserver.audit.violation import Violation


@dataclass(slots=True)
class Account:
    """What became of all pushes, over all shards.

    Attributes:
        pushes: how many were applied, dropped, partial or under way (their round is open, or some shards
            had not got them yet); and ``received``, their sum.
        samples: the same in samples.
    """

    pushes: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)


def join_ledgers(
    ledgers: Mapping[int, Ledger], account: Account, *, gathers: bool, over: bool
) -> list[Violation]:
    """Put together what the shards say of each push, and add it to an account.

    Args:
        ledgers: by shard, all of the same generations.
        account: added to.
        gathers: the job has rounds.
        over: nothing more comes, so what has not reached all shards never will.

    Returns:
        What is wrong.
    """
    found: list[Violation] = []
    for rank, sequence in sorted({push for ledger in ledgers.values() for push in ledger.pushes()}):
        entries = {shard: ledger.entry(rank, sequence) for shard, ledger in ledgers.items()}
        there = {shard: entry for shard, entry in entries.items() if entry is not None}
        missing = [
            shard
            for shard, entry in entries.items()
            if entry is None and ledgers[shard].knows(rank, sequence)
        ]
        who = f"Push {sequence} of replica {rank}"
        counts = {shard: entry.samples for shard, entry in there.items()}
        refusals = [count for count in counts.values() if not count]
        if len(set(counts.values())) > 1 and not refusals:
            found.append(
                Violation(
                    "samples", f"{who} is of {_by_shard(counts)} samples.", rank=rank, shard=min(counts)
                )
            )
        outcomes = {shard: entry.outcome for shard, entry in there.items()}
        kinds = set(outcomes.values())
        name = _fate(kinds, bool(missing), over)
        if gathers and ev.Outcome.APPLIED in kinds and ev.Outcome.DROPPED in kinds:
            told = _by_shard({shard: outcome.value for shard, outcome in outcomes.items()})
            found.append(
                Violation(
                    "round", f"{who} is {told}: a round is the same on all shards.", rank=rank, round=sequence
                )
            )
        incarnation = next(iter(there.values())).incarnation
        for shard in missing:
            if not gathers and ledgers[shard].newest(rank, incarnation) > sequence:
                found.append(
                    Violation(
                        "samples", f"{who} never came to shard {shard}, but a later one did.", shard, rank
                    )
                )
        account.pushes[name] += 1
        account.pushes["received"] += 1
        samples = max(counts.values())
        account.samples[name] += samples
        account.samples["received"] += samples
    return found


def _fate(kinds: Collection[ev.Outcome], is_missing: bool, over: bool) -> str:
    """Say what a push came to over all shards."""
    if kinds == {ev.Outcome.APPLIED}:
        if not is_missing:
            return "applied"
        return "partial" if over else "under way"
    if ev.Outcome.APPLIED in kinds:
        return "partial" if over or ev.Outcome.DROPPED in kinds else "under way"
    if ev.Outcome.BUFFERED in kinds:
        return "under way"
    return "dropped"


def _by_shard(values: Mapping[int, object]) -> str:
    return ", ".join(f"{value} on shard {shard}" for shard, value in sorted(values.items()))


def overlapping(ledgers: Mapping[int, Sequence[Ledger]]) -> list[dict[int, Ledger]]:
    """Group the ledgers of all shards by the generations that they are of.

    Each group is of one division of the tensors among shards; where that changes, so do all ledgers.
    """
    groups: list[tuple[int, int, dict[int, Ledger]]] = []
    every = sorted(
        ((ledger.first, ledger.last, shard, ledger) for shard, some in ledgers.items() for ledger in some),
        key=lambda each: each[:3],
    )
    for first, last, shard, ledger in every:
        if groups and first <= groups[-1][1] and shard not in groups[-1][2]:
            begin, end, group = groups[-1]
            group[shard] = ledger
            groups[-1] = (begin, max(end, last), group)
        else:
            groups.append((first, last, {shard: ledger}))
    return [group for _, _, group in groups]
