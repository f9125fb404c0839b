"""Metrics over HTTP, for Prometheus: each scrape asks the event loop how things stand.

prometheus-client is an extra, so it is imported only where metrics are wanted.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import socket
import socketserver
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from paramserver.errors import RequestError
from paramserver.events import JobStatus
from paramserver.security.channels import BEARER
from paramserver.security.doors import OPEN, Doors, tls_context
from paramserver.security.secrets import is_same
from paramserver.wire.status import ServerStanding

log = logging.getLogger("server")

Ask = Callable[[], Awaitable[tuple[JobStatus | None, ServerStanding]]]
"""Asks, on the event loop, how the job and this server stand."""

SCRAPE_SECONDS = 5.0
"""How long a scrape may wait for the event loop; Prometheus itself waits 10 s."""

REFUSAL = b"These metrics ask for a token: Authorization: Bearer TOKEN, with that of --metrics-token-file.\n"

LOOK_SECONDS = 0.05
"""How often the serving thread looks whether it is to end."""


class Metrics:
    """Serves metrics from a thread of its own until closed.

    Args:
        ask: where the numbers come from.
        host: to listen on.
        port: to listen on; 0 takes a free one.
        doors: with TLS the metrics are served over it, too; with a secret for them it is asked for.

    Attributes:
        url: of the metrics.

    Raises:
        RequestError: prometheus-client is not installed, or the port cannot be had.
    """

    def __init__(self, ask: Ask, host: str, port: int, doors: Doors = OPEN) -> None:
        if importlib.util.find_spec("prometheus_client") is None:
            raise RequestError(
                "Metrics need the package prometheus-client, which is not installed. Install it with "
                "pip install 'paramserver[metrics]', or leave --metrics-port out."
            )
        from prometheus_client import CollectorRegistry, MetricsHandler

        registry = CollectorRegistry()
        registry.register(_Collector(ask, asyncio.get_running_loop()))
        try:
            handler = _asking(MetricsHandler.factory(registry), doors.metrics_token)
            self._server = _Server((host, port), handler, tls_context(doors))
        except OSError as error:
            raise RequestError(
                f"Metrics cannot be served at {host}:{port}: {error.strerror or error}. Choose another "
                "--metrics-port, or another --metrics-listen."
            ) from None
        self.url = (
            f"http{'s' if doors.has_tls else ''}://{_in_url(host)}:{self._server.server_address[1]}/metrics"
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(LOOK_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: Any, tls: ssl.SSLContext | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._tls = tls
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; its handshake, which may take long, is for the thread that serves it."""
        connection, peer = super().get_request()
        connection.settimeout(SCRAPE_SECONDS)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, peer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note a scrape that failed; whoever scrapes sees its connection closed."""
        log.debug("A scrape from %s failed.", client_address[0], exc_info=True)


def _asking(handler: Any, token: str) -> Any:
    """Return a handler that serves who brings the token, as ``Authorization: Bearer TOKEN``."""
    if not token:
        return handler

    class Asking(handler):  # type: ignore[misc]
        def do_GET(self) -> None:  # noqa: N802 - http.server calls it
            brought = self.headers.get("Authorization") or ""
            if brought.startswith(BEARER) and is_same(brought.removeprefix(BEARER), token):
                super().do_GET()
                return
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Bearer")
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(REFUSAL)

    return Asking


class _Collector:
    def __init__(self, ask: Ask, loop: asyncio.AbstractEventLoop) -> None:
        self._ask = ask
        self._loop = loop

    def collect(self) -> Iterator[Any]:
        """Yield the metrics of this moment; blocks a thread of the HTTP server until the loop answers."""
        from server.families import families

        async def ask() -> tuple[JobStatus | None, ServerStanding]:
            return await self._ask()

        found = asyncio.run_coroutine_threadsafe(ask(), self._loop).result(SCRAPE_SECONDS)
        yield from families(*found)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
