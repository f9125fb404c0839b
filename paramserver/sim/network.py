"""What a message costs on its way: latency, links that are shared, and who waits behind whom.

A message leaves over its sender's link and arrives over its receiver's, bytes after bytes: it flows through
both at once, at the pace of the slower. Each worker has a link of its own in each direction; all workers
share the server's. A link carries one message after the other, in the order in which their first bytes
reach it. On one connection nothing overtakes; heartbeats, joins and leaves have a lane of their own, as in
the real thing.

A request also occupies those at its two ends. Where all processes run on one machine and share its `cores`,
what they spend on requests and gradients competes for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paramserver.errors import RequestError
from paramserver.quantities import (
    UNLIMITED,
    check_known,
    format_duration,
    format_number,
    format_rate,
    parse_assignments,
    parse_duration,
    parse_nanoseconds,
    parse_number,
    parse_rate,
    parse_worker,
)
from paramserver.sim.laws import Law, parse_law

CORES_LEAST = 0.1
"""A share of a core that a container may be given."""


@dataclass(frozen=True, slots=True)
class Network:
    """What transfers and requests cost. Nothing here has a default that is a cost of zero.

    Attributes:
        latency: from a worker to a server or back, of each message's first byte.
        bandwidth: of each worker's link in each direction, in bits per second; infinite for none.
        server: bandwidth of each server's link in each direction, shared by all workers.
        rpc_ns: how long one request occupies one of its server's handlers.
        lock_ns: how long any request holds its shard's lock, at least.
        lock_per_byte_ns: of the lock, for each byte of a gradient that is summed or applied.
        handlers: requests that a server handles side by side, before the lock.
        between_servers_ns: latency from one server to another, which orders and reports pay; None if unknown,
            which is enough for one server.
        slow_links: bandwidth of some workers' links instead of the usual one.
        client_ns: what each pull and each push costs its replica, half of it before its requests leave and
            half when all answers are there. Left out, it counts as part of the latency.
        client_per_request_ns: the same for each of its requests, one to a shard.
        client_per_byte_ns: the same for each byte of tensors, where it is sent or received.
        rpc_per_byte_ns: how long each byte of tensors occupies a handler of the server. Left out, it counts
            as part of the bandwidth.
        cores: which all replicas and servers share; None where each of them has one to itself.
        checkpoint_ns: how long writing or reading one file of a checkpoint takes, whatever its size; None if
            unknown, which is enough where no server is lost.
        checkpoint_per_byte_ns: and for each byte of weights and of the optimizer's state.
    """

    latency: Law
    bandwidth: float
    server: float
    rpc_ns: int
    lock_ns: int
    lock_per_byte_ns: float
    handlers: int = 1
    between_servers_ns: int | None = None
    slow_links: tuple[tuple[int, float], ...] = ()
    client_ns: int = 0
    client_per_request_ns: int = 0
    client_per_byte_ns: float = 0.0
    rpc_per_byte_ns: float = 0.0
    cores: float | None = None
    checkpoint_ns: int | None = None
    checkpoint_per_byte_ns: float = 0.0

    @property
    def has_costly_checkpoints(self) -> bool:
        """Say whether checkpoints are known to take time."""
        return bool(self.checkpoint_ns or self.checkpoint_per_byte_ns)

    def __str__(self) -> str:
        pairs = {
            "latency": str(self.latency).removeprefix("constant:"),
            "bandwidth": format_rate(self.bandwidth),
            "server": format_rate(self.server),
            "rpc": format_duration(self.rpc_ns),
            "lock": format_duration(self.lock_ns),
            "lock-per-byte": format_duration(self.lock_per_byte_ns),
            "handlers": str(self.handlers),
        }
        for name in _ENDS:
            cost = getattr(self, f"{name.replace('-', '_')}_ns")
            if cost or self.cores is not None:
                pairs[name] = format_duration(cost)
        if self.cores is not None:
            pairs["cores"] = format_number(self.cores)
        if self.between_servers_ns is not None:
            pairs["between-servers"] = format_duration(self.between_servers_ns)
        if self.checkpoint_ns is not None:
            pairs["checkpoint"] = format_duration(self.checkpoint_ns)
            pairs["checkpoint-per-byte"] = format_duration(self.checkpoint_per_byte_ns)
        for worker, rate in self.slow_links:
            pairs[f"w{worker}.bandwidth"] = format_rate(rate)
        return " ".join(f"{name}={value}" for name, value in pairs.items())


IDEAL = (
    f"latency=0s bandwidth={UNLIMITED} server={UNLIMITED} rpc=0s lock=0s lock-per-byte=0s between-servers=0s "
    "checkpoint=0s checkpoint-per-byte=0s"
)
"""A network in which nothing costs anything, said in so many words: what laws about waiting assume."""

_NEEDED = ("latency", "bandwidth", "server", "rpc", "lock", "lock-per-byte")
_ENDS = ("client", "client-per-request", "client-per-byte", "rpc-per-byte")
_CHECKPOINT = ("checkpoint", "checkpoint-per-byte")
_KNOWN = (*_NEEDED, *_ENDS, *_CHECKPOINT, "handlers", "cores", "between-servers")


def parse_network(text: str) -> Network:
    """Read what a network costs.

    Args:
        text: ``latency=100us bandwidth=1Gbit/s server=10Gbit/s rpc=80us lock=5us lock-per-byte=0.3ns``, and
            if wanted ``handlers=4``, ``between-servers=50us`` and ``w1.bandwidth=80Mbit/s``; where
            checkpoints are made ``checkpoint=5ms checkpoint-per-byte=2ns``; for processes that share a
            machine ``cores=2``, and then ``client=300us``, ``client-per-request=150us``,
            ``client-per-byte=0.5ns`` and ``rpc-per-byte=0.5ns``, too; or ``ideal``, where nothing costs
            anything.

    Raises:
        RequestError: a cost is missing, unknown or impossible.
    """
    values = dict(parse_assignments(IDEAL if text == "ideal" else text, "the network"))
    slow_links = []
    for name in list(values):
        worker, dot, rest = name.partition(".")
        if dot and rest == "bandwidth":
            link = f"{name} of the network"
            slow_links.append((parse_worker(worker, link), parse_rate(values.pop(name), link)))
        else:
            check_known(name, _KNOWN, "cost of the network")
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        raise RequestError(
            f"The network does not say what {' and '.join(missing)} cost{'s' * (len(missing) == 1)}. A "
            "missing cost is not taken for zero: give it, or say 'ideal' for a network in which nothing "
            "costs anything."
        )
    handlers = parse_number(values.get("handlers", "1"), "handlers of the network")
    if handlers < 1 or handlers != int(handlers):
        raise RequestError(
            f"A server needs at least 1 handler, a whole number, but handlers={values['handlers']}."
        )
    if 0 < len(given := [name for name in _CHECKPOINT if name in values]) < len(_CHECKPOINT):
        raise RequestError(
            f"The network says only half of what a checkpoint costs: {given[0]}. Give "
            f"{' and '.join(_CHECKPOINT)}, such as checkpoint=5ms checkpoint-per-byte=2ns."
        )
    cores = _cores(values)
    checkpoint = values.get("checkpoint")
    between = values.get("between-servers")
    return Network(
        parse_law(values["latency"], "the latency of the network"),
        parse_rate(values["bandwidth"], "the bandwidth of the network"),
        parse_rate(values["server"], "the server's bandwidth"),
        parse_nanoseconds(values["rpc"], "rpc of the network"),
        parse_nanoseconds(values["lock"], "lock of the network"),
        parse_duration(values["lock-per-byte"], "lock-per-byte of the network"),
        int(handlers),
        None if between is None else parse_nanoseconds(between, "between-servers of the network"),
        tuple(slow_links),
        parse_nanoseconds(values.get("client", "0s"), "client of the network"),
        parse_nanoseconds(values.get("client-per-request", "0s"), "client-per-request of the network"),
        parse_duration(values.get("client-per-byte", "0s"), "client-per-byte of the network"),
        parse_duration(values.get("rpc-per-byte", "0s"), "rpc-per-byte of the network"),
        cores,
        None if checkpoint is None else parse_nanoseconds(checkpoint, "checkpoint of the network"),
        parse_duration(values.get("checkpoint-per-byte", "0s"), "checkpoint-per-byte of the network"),
    )


def _cores(values: Mapping[str, str]) -> float | None:
    """Return how many cores are shared; whoever shares them has to say what needs them."""
    if "cores" not in values:
        return None
    cores = parse_number(values["cores"], "cores of the network")
    if cores < CORES_LEAST:
        raise RequestError(
            f"A machine has at least {CORES_LEAST} of a core, but cores={values['cores']}. Leave it out "
            "where every replica and server has a core to itself."
        )
    missing = [name for name in _ENDS if name not in values]
    if missing:
        raise RequestError(
            f"The network says that cores are shared, but not what {' and '.join(missing)} "
            f"cost{'s' * (len(missing) == 1)}, which needs them. Give it, or leave cores out."
        )
    return cores
