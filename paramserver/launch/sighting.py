"""From what the servers of a job say to a table of values.

To the next editor: `overview` is one pure function. Whoever shows a job formats what it returns and computes
nothing, so that all that is shown agrees.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paramserver.consistency import parse_consistency
from paramserver.events import JobSpec, JobStatus, MemberStatus, Phase, PullParked, Standing
from paramserver.launch.overview import Overview, ReplicaRow, ServerRow, ShardRow

if TYPE_CHECKING:  # at run time it would load protobuf, which a process that starts others can do without
    from paramserver.wire.status import ServerStanding

WINDOW_SECONDS = 10.0
"""Over which speeds are taken: some ten heartbeats."""

_ENDS = {Standing.LEFT: "done", Standing.DEAD: "dead"}


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the servers of a job said at one moment.

    Attributes:
        seconds: when, by a clock that never goes back.
        job: the coordinator's word.
        servers: the word of each server that has answered.
    """

    seconds: float
    job: JobStatus
    servers: tuple[ServerStanding, ...]


class History:
    """Overviews of one job, each with the speeds since a sighting some seconds before."""

    def __init__(self) -> None:
        self._seen: deque[Sighting] = deque()

    def see(self, sighting: Sighting) -> Overview:
        """Take in what the servers say, and return how the job stands."""
        while len(self._seen) > 1 and self._seen[1].seconds <= sighting.seconds - WINDOW_SECONDS:
            self._seen.popleft()
        earlier = self._seen[0] if self._seen else None
        self._seen.append(sighting)
        return overview(sighting, earlier)


def overview(sighting: Sighting, earlier: Sighting | None = None) -> Overview:
    """Return how a job stands.

    Args:
        sighting: what its servers say.
        earlier: what they said before, for speeds; without it they are those since each replica's start.
    """
    job = sighting.job
    spec = job.job
    before = {} if earlier is None else {member.replica.rank: member for member in earlier.job.members}
    parked = _parked(sighting.servers)
    rows = tuple(
        _replica_row(member, before.get(member.replica.rank), parked.get(member.replica.rank, []))
        for member in job.members
    )
    losses = [row.loss for row in rows if row.loss is not None]
    speeds = [row.samples_per_second for row in rows if row.samples_per_second is not None]
    accuracies = [score.accuracy for score in job.scores if score.split == "validation"]
    return Overview(
        state=_state(job),
        reason=job.reason,
        model=spec.model if spec else "",
        consistency=spec.consistency if spec else "",
        optimizer=spec.optimizer if spec else "",
        replicas_expected=spec.replicas if spec else 0,
        servers_expected=job.servers_expected,
        fraction=_fraction(spec, job.members) if spec else 0.0,
        seconds_to_go=None if job.ended else _seconds_to_go(job.members, before),
        samples=sum(row.samples for row in rows),
        samples_per_second=math.fsum(speeds) if speeds else None,
        loss=math.fsum(losses) / len(losses) if losses else None,
        accuracy=accuracies[-1] if accuracies else None,
        rounds=job.rounds,
        servers=_server_rows(sighting),
        shards=_shard_rows(sighting),
        replicas=rows,
        generation=job.generation,
    )


def _state(job: JobStatus) -> str:
    if job.ended:
        return "failed" if job.reason else "over"
    if job.job is None:
        return "waiting"
    if not job.started:
        return "joining"
    return "training" if job.sealed else "initialising"


def _fraction(spec: JobSpec, members: Iterable[MemberStatus]) -> float:
    """Return the share of all steps that is done, those of replicas that are still to join included."""
    gathers = parse_consistency(spec.consistency).gathers
    usual = spec.versions_total if gathers else spec.versions_total / spec.replicas
    done, total, joined = 0.0, 0.0, 0
    for member in members:
        joined += 1
        gone = member.standing is Standing.LEFT or (
            member.standing is Standing.DEAD and spec.on_death == "drop"
        )
        done += member.clock
        total += member.clock if gone else max(member.steps or usual, member.clock)
    total += usual * max(0, spec.replicas - joined)
    return min(1.0, done / total) if total else 0.0


def _seconds_to_go(members: Iterable[MemberStatus], before: Mapping[int, MemberStatus]) -> float | None:
    """Return how long the slowest replica will take."""
    times = []
    for member in members:
        if member.standing is Standing.LIVE and member.steps:
            seconds, clocks, _ = _since(member, before.get(member.replica.rank))
            if seconds > 0 and clocks > 0:
                times.append((member.steps - member.clock) * seconds / clocks)
    return max(times, default=None)


def _since(member: MemberStatus, before: MemberStatus | None) -> tuple[float, int, int]:
    """Return a replica's seconds, clocks and samples since it was seen before, or since its start.

    The seconds are its own, which came with the same heartbeat as the counts.
    """
    seconds, samples = math.fsum(member.counters.seconds.values()), _computed(member)
    if before is None:
        return seconds, member.clock, samples
    then = math.fsum(before.counters.seconds.values())
    return seconds - then, member.clock - before.clock, samples - _computed(before)


def _computed(member: MemberStatus) -> int:
    return member.counters.samples.get("computed", 0)


def _replica_row(
    member: MemberStatus, before: MemberStatus | None, parked: Iterable[PullParked]
) -> ReplicaRow:
    live = member.standing is Standing.LIVE
    waits = list(parked) if live else []
    seconds, _, samples = _since(member, before)
    # A shard's word on who waits is newer than a heartbeat's.
    phase = Phase.PULL if member.phase is Phase.WAIT else member.phase
    longest = min(waits, key=lambda wait: wait.since, default=None)
    named: dict[int, int] = {}
    for rank, clock in sorted((each for wait in waits for each in wait.waits_for), key=lambda each: each[1]):
        named.setdefault(rank, clock)
    return ReplicaRow(
        rank=member.replica.rank,
        name=member.name,
        incarnation=member.replica.incarnation,
        standing=member.standing.value,
        clock=member.clock,
        steps=member.steps,
        staleness=member.counters.latest_staleness,
        samples=_computed(member),
        samples_per_second=samples / seconds if live and seconds > 0 else None,
        loss=None if math.isnan(member.counters.loss) else member.counters.loss,
        does=_ENDS.get(member.standing, "wait" if waits else phase.value),
        waits_for=tuple(named),
        waits_for_others=max((wait.others for wait in waits), default=0),
        waits_because=longest.bound if longest else "",
        waits_seconds=-longest.since if longest else None,
        heard_seconds=member.heard_seconds,
    )


def _parked(servers: Iterable[ServerStanding]) -> dict[int, list[PullParked]]:
    """Return the parked pulls of each rank; ``since`` is minus their age."""
    found: dict[int, list[PullParked]] = {}
    for server in servers:
        for shard in server.shards:
            for rank, parked in shard.statistics.parked:
                found.setdefault(rank, []).append(parked)
    return found


def _server_rows(sighting: Sighting) -> tuple[ServerRow, ...]:
    answered = {each.shards[0].statistics.shard: each for each in sighting.servers if each.shards}
    rows = []
    for server in sighting.job.servers:
        standing = answered.get(server.server * server.shards)
        received = standing.received_bytes if standing else None
        sent = standing.sent_bytes if standing else None
        rows.append(ServerRow(server.server, server.address, server.shards, received, sent))
    return tuple(rows)


def _shard_rows(sighting: Sighting) -> tuple[ShardRow, ...]:
    per_server = max((server.shards for server in sighting.job.servers), default=1)
    found = [
        ShardRow(
            shard=shard.statistics.shard,
            server=shard.statistics.shard // per_server,
            version=shard.statistics.version,
            rounds=shard.statistics.rounds,
            bytes=shard.statistics.bytes,
            waiting=len(shard.statistics.parked),
            lock_wait_seconds=shard.lock_wait_seconds,
            lock_hold_seconds=shard.lock_hold_seconds,
            pushes=shard.statistics.pushes,
            staleness=shard.statistics.staleness,
        )
        for server in sighting.servers
        for shard in server.shards
    ]
    return tuple(sorted(found, key=lambda row: row.shard))
