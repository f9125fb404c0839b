"""What a message costs on its way: latency, links that are shared, and who waits behind whom.

A message leaves over its sender's link and arrives over its receiver's, bytes after bytes: it flows through
both at once, at the pace of the slower. Each worker has a link of its own in each direction; all workers
share the server's. A link carries one message after the other, in the order in which their first bytes
reach it. On one connection nothing overtakes; heartbeats, joins and leaves have a lane of their own, as in
the real thing.
"""

from __future__ import annotations

from dataclasses import dataclass

from paramserver.errors import RequestError
from paramserver.sim.laws import Law, parse_law
from paramserver.sim.quantities import (
    UNLIMITED,
    check_known,
    format_duration,
    format_rate,
    parse_assignments,
    parse_duration,
    parse_nanoseconds,
    parse_number,
    parse_rate,
    parse_worker,
)


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
        if self.between_servers_ns is not None:
            pairs["between-servers"] = format_duration(self.between_servers_ns)
        for worker, rate in self.slow_links:
            pairs[f"w{worker}.bandwidth"] = format_rate(rate)
        return " ".join(f"{name}={value}" for name, value in pairs.items())


IDEAL = (
    f"latency=0s bandwidth={UNLIMITED} server={UNLIMITED} rpc=0s lock=0s lock-per-byte=0s between-servers=0s"
)
"""A network in which nothing costs anything, said in so many words: what laws about waiting assume."""

_NEEDED = ("latency", "bandwidth", "server", "rpc", "lock", "lock-per-byte")
_KNOWN = (*_NEEDED, "handlers", "between-servers")


def parse_network(text: str) -> Network:
    """Read what a network costs.

    Args:
        text: ``latency=100us bandwidth=1Gbit/s server=10Gbit/s rpc=80us lock=5us lock-per-byte=0.3ns``, and
            if wanted ``handlers=4``, ``between-servers=50us`` and ``w1.bandwidth=80Mbit/s``; or ``ideal``,
            where nothing costs anything.

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
    )
