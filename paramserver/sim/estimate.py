"""From what a short real run has shown to the world in which it would be the same: the arithmetic of it.

Three servers were asked by one replica: one shard with almost no weights, several shards with almost none,
and one shard with the job's weights. What differs between the first two is what a request costs; between the
first and the third, what a byte costs. What is left when everybody's processor time is taken from the wall
time is spent on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paramserver.errors import RequestError
from paramserver.sim.compute import Compute
from paramserver.sim.laws import Law
from paramserver.sim.network import Network
from paramserver.sim.world import World

QUANTILES = 32
"""So many times stand for all that were measured: each is the mean of an equal share of them, in order."""

BYTE_SHARE_LEAST = 0.1
"""A link is taken for unlimited where its bytes take less than this share of what they take at both ends."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What one step of a replica takes without its gradient: one pull and one push. Nanoseconds.

    Attributes:
        requests: of a pull, and of a push: one to each shard.
        size: bytes of tensors that a pull brings, and a push takes away.
        wall_ns: of both together, by the clock on the wall.
        client_ns: processor time of the replica's process.
        server_ns: processor time of the server.
        lock_ns: how long locks were held.
    """

    requests: int
    size: int
    wall_ns: float
    client_ns: float
    server_ns: float
    lock_ns: float


@dataclass(frozen=True)
class Measured:
    """What a short real run has shown.

    Attributes:
        single: against one shard with almost no weights.
        several: against several shards of one server, with almost no weights.
        whole: against one shard with the job's weights.
        gradients_ns: how long each gradient took.
        cpu: the share of that time in which a core was needed.
        cores: which all processes share; None where each has a machine to itself.
        trip_ns: how much longer a small message travels, one way, than between processes of one machine.
        byte_ns: how much longer a byte travels than between processes of one machine.
    """

    single: Steps
    several: Steps
    whole: Steps
    gradients_ns: Sequence[float]
    cpu: float
    cores: float | None
    trip_ns: float = 0.0
    byte_ns: float = 0.0


def estimate(measured: Measured, seed: int = 0) -> World:
    """Return the world in which what was measured would be the same.

    Args:
        measured: in a short real run.
        seed: of the world.

    Raises:
        RequestError: too little was measured.
    """
    return World(_compute(measured), _network(measured), seed=seed)


def quantiles(times: Sequence[float], count: int = QUANTILES) -> tuple[float, ...]:
    """Return a few times that stand for many, with the same mean.

    Example:
        >>> quantiles([4, 1, 2, 3], 2)
        (1.5, 3.5)
        >>> quantiles([5.0], 2)
        (5.0,)
    """
    shares = np.array_split(np.sort(np.asarray(times, np.float64)), min(count, len(times)))
    return tuple(_figures(float(np.mean(share)), 4) for share in shares)


def _compute(measured: Measured) -> Compute:
    if not measured.gradients_ns:
        raise RequestError("No gradient was measured. Give it more seconds.")
    law = Law("empirical", quantiles(measured.gradients_ns))
    return Compute(law, cpu=round(min(1.0, max(0.0, measured.cpu)), 2))


def _network(measured: Measured) -> Network:
    single, several, whole = measured.single, measured.several, measured.whole
    more, size = several.requests - single.requests, whole.size - single.size
    # A step has two exchanges, one pull and one push, and each of them has one request to each shard.
    per_request = _positive((several.client_ns - single.client_ns) / (2 * more))
    client = _positive(single.client_ns / 2 - single.requests * per_request)
    lock = single.lock_ns / (2 * single.requests)
    lock_per_byte = _positive((whole.lock_ns - single.lock_ns) / size)
    rpc = _positive((single.server_ns - single.lock_ns) / (2 * single.requests))
    client_per_byte = _positive((whole.client_ns - single.client_ns) / (2 * size))
    busy = (whole.server_ns - whole.lock_ns) - (single.server_ns - single.lock_ns)
    rpc_per_byte = _positive(busy / (2 * size))
    # One way of four: a request and its answer, for a pull and for a push.
    latency = _positive(single.wall_ns - single.client_ns - single.server_ns) / 4
    at_ends = client_per_byte + rpc_per_byte + lock_per_byte / 2
    on_the_way = (whole.wall_ns - single.wall_ns) / (2 * size) - at_ends
    link = measured.byte_ns + (on_the_way if on_the_way > BYTE_SHARE_LEAST * at_ends else 0.0)
    return Network(
        latency=Law("constant", (round(_figures(latency + measured.trip_ns)),)),
        bandwidth=_figures(8e9 / link) if link > 0 else math.inf,
        server=math.inf,
        rpc_ns=round(_figures(rpc)),
        lock_ns=round(_figures(lock)),
        lock_per_byte_ns=_figures(lock_per_byte),
        # A message between servers is sent and received much like half of a request and its answer.
        between_servers_ns=round(_figures(latency + rpc / 2)),
        client_ns=round(_figures(client)),
        client_per_request_ns=round(_figures(per_request)),
        client_per_byte_ns=_figures(client_per_byte),
        rpc_per_byte_ns=_figures(rpc_per_byte),
        cores=measured.cores,
    )


def _positive(value: float) -> float:
    """Return a cost that noise may have made negative."""
    return max(0.0, value)


def _figures(value: float, count: int = 3) -> float:
    """Keep a few figures: no more were measured."""
    return float(f"{value:.{count}g}")
