"""Jobs as their servers would tell of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from paramserver import events as ev
from paramserver.launch.sighting import Sighting
from paramserver.wire.status import ServerStanding, ShardStanding

SPEC = ev.JobSpec((), model="mlp:8", consistency="ssp:2", optimizer="adam", versions_total=400)


def member(
    rank: int, clock: int = 0, *, name: str = "", seconds: float = 10.0, **more: Any
) -> ev.MemberStatus:
    """Return a replica that has computed 32 samples a step and takes 100 steps."""
    counters = ev.Counters(
        samples={"computed": 32 * clock},
        seconds={"compute": seconds / 4, "wait": seconds * 3 / 4},
        loss=0.5,
        latest_staleness=rank,
    )
    found = ev.MemberStatus(
        ev.Replica(rank, 1),
        name or f"worker{rank // 2}/{rank % 2}",
        ev.Standing.LIVE,
        clock,
        100,
        ev.Phase.COMPUTE,
        0.25,
        counters,
    )
    return replace(found, **more)


def job(*members: ev.MemberStatus, servers: int = 1, shards: int = 2, **more: Any) -> ev.JobStatus:
    """Return a job that trains."""
    found = ev.JobStatus(
        job=replace(SPEC, replicas=max(1, len(members)), versions_total=100 * max(1, len(members))),
        generation=0,
        servers=tuple(ev.ServerRegistered(index, f"h:{index}", shards) for index in range(servers)),
        servers_expected=servers,
        started=True,
        sealed=True,
        ended=False,
        reason="",
        rounds=0,
        members=members,
        scores=(ev.Score("validation", 3, -1, 0.4, 0.75, 10), ev.Score("validation", 7, -1, 0.3, 0.875, 10)),
    )
    return replace(found, **more)


def parked(
    *waits_for: tuple[int, int], seconds: float = 1.5, others: int = 0, bound: str = ""
) -> ev.PullParked:
    """Return why a pull waits, as a status tells it: ``since`` is minus its age."""
    return ev.PullParked(0, waits_for, bound or "ssp:2 lets nobody on", -seconds, others)


def server(first: int, *waiting: tuple[tuple[int, ev.PullParked], ...]) -> ServerStanding:
    """Return a server with a shard for each group of parked pulls."""
    shards = tuple(
        ShardStanding(
            ev.ShardStatistics(first + index, 40 + index, 0, 1_000, pulls, {"applied": 40}, {0: 30, 2: 10}),
            lock_wait_seconds=0.25,
            lock_hold_seconds=0.5,
        )
        for index, pulls in enumerate(waiting)
    )
    return ServerStanding(shards, received_bytes=2_000_000, sent_bytes=3_000)


def sighting(status: ev.JobStatus, *servers: ServerStanding, seconds: float = 0.0) -> Sighting:
    return Sighting(seconds, status, servers)
