"""The port of a server, and what gRPC is told of it."""

from __future__ import annotations

from grpc import aio

from paramserver.errors import RequestError
from paramserver.security.doors import Doors
from server.link import KEEPALIVE

PENDING_CALLS_MAX = 50_000
"""Calls that gRPC holds until the event loop takes them; above it, calls are cancelled."""

SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else two servers could share a port, and nobody would know
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # From 1,000 calls that the program has not taken yet, gRPC would cancel some of them at random.
    ("grpc.server.max_pending_requests", PENDING_CALLS_MAX),
    ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS_MAX),
    # Who connects and says nothing, or nothing that is HTTP/2, is cut; and who makes no call for long.
    ("grpc.server_handshake_timeout_ms", 20_000),
    # What may be under way on a stream before the program waits for it; then all of a message may. By itself
    # gRPC lets that grow with the network's speed: 200 clients that pushed at once had 2.6 GB under way.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 18),
    ("grpc.max_connection_idle_ms", 600_000),
    *KEEPALIVE,
)


def bind(server: aio.Server, address: str, doors: Doors) -> int:
    """Let a gRPC server listen, and return its port.

    Raises:
        RequestError: the address cannot be listened on.
    """
    credentials = doors.credentials()
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        port = 0
    if not port:
        raise RequestError(
            f"{address} cannot be listened on: another program uses that port, or the host is not of this "
            "machine. Choose another with --listen."
        )
    return port
