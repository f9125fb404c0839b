"""What was found with one number of workers, and what of it is the bottleneck.

Each resource has one figure: the share of the time for which it is busy. A resource that is busy all the time
cannot be asked for more, so the largest share names the bottleneck; as long as that is ``compute``, more
workers help. (For a closed queueing network that is the bottleneck law: P. Denning and J. Buzen, *The
Operational Analysis of Queueing Network Models*, 1978, section on bottleneck analysis.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RESOURCES: dict[str, str] = {
    "compute": "computing gradients, mean of the replicas",
    "server link": "a server's link is busy in either direction, the busiest server",
    "lock": "a shard's lock is held, the busiest shard",
    "handlers": "a server's request handlers are busy, the busiest server",
    "cores": "the cores that all share are busy",
    "barrier": "waiting for slower replicas, as far as compute times alone explain it",
    "worker link": "a replica's bytes are on its worker's own link",
    "latency": "the first bytes of a replica's requests and answers travel",
    "client": "a replica packs and unpacks what it sends and gets",
}
"""Every resource, and what its share is a share of time of; the first of equals is the bottleneck."""


@dataclass(frozen=True, slots=True)
class Point:
    """One number of workers.

    Attributes:
        workers: how many.
        replicas: on all of them.
        steps: gradients that were applied.
        seconds: virtual time that they took.
        shares: of the time, by resource, 0 to 1; without those that cost nothing in this world.
        wait: mean share of the time for which a replica's pull is parked, for whatever reason.
        staleness: mean over the applied gradients, in versions.
        target_seconds: when the target was reached; None if it never was, or if there was none.
        events: of virtual time.
    """

    workers: int
    replicas: int
    steps: int
    seconds: float
    shares: Mapping[str, float]
    wait: float
    staleness: float
    target_seconds: float | None
    events: int

    @property
    def steps_per_second(self) -> float:
        """Applied gradients per virtual second."""
        return self.steps / self.seconds

    @property
    def bottleneck(self) -> str:
        """The resource that is busy for the largest share of the time."""
        return max(self.shares, key=lambda name: self.shares[name])


def speed_up(point: Point, one: Point) -> float:
    """Return how many times the steps per second of one worker a point has."""
    return point.steps_per_second / one.steps_per_second


def efficiency(point: Point, one: Point) -> float:
    """Return the speed-up per worker, 1 where twice the workers do twice as much."""
    return speed_up(point, one) / (point.workers / one.workers)
