"""A piece of network of our own, between a process and its servers: it can be cut, held and refused.

To the next editor: all connections live on one event loop in a thread of its own; the public methods may be
called from any thread. A cut falls between two bytes, wherever these belong: in the middle of a chunk, as a
broken cable would.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

READ_BYTES = 1 << 16


@dataclass(slots=True, eq=False)
class _Route:
    """One server's place in the relay; confined to the event loop."""

    host: str
    port: int
    cut_after: int | None = None
    transports: set[asyncio.BaseTransport] = field(default_factory=set)


class Relay:
    """Carries bytes to servers and back, until it is closed.

    Attributes:
        cuts: how many connections it has cut so far.
    """

    def __init__(self) -> None:
        self.cuts = 0
        self._lock = threading.Lock()
        self._addresses: dict[str, tuple[str, _Route]] = {}  # guarded by _lock
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._refusing = 0
        self._holds = 0
        self._loop = asyncio.new_event_loop()
        self._passes = asyncio.Event()
        self._passes.set()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def lead_to(self, address: str) -> str:
        """Return the address on this machine that leads to a server; the same one each time.

        Args:
            address: of the server, ``host:port``.
        """
        with self._lock:
            if address not in self._addresses:
                host, _, port = address.rpartition(":")
                route = _Route(host.strip("[]"), int(port))
                self._addresses[address] = (self._wait_for(self._listen(route)), route)
            return self._addresses[address][0]

    def cut(self, address: str, after_bytes: int) -> None:
        """Break the connection to a server that next carries so many bytes more, in either direction."""
        with self._lock:
            route = self._addresses[address][1]
        self._call(lambda: setattr(route, "cut_after", after_bytes))

    def hold(self, seconds: float, begin: float = 0.0) -> None:
        """Carry nothing for a while, and then all that has come meanwhile.

        Args:
            seconds: for how long.
            begin: seconds from now.
        """
        self._call(lambda: self._loop.call_later(begin, self._hold, 1))
        self._call(lambda: self._loop.call_later(begin + seconds, self._hold, -1))

    def refuse(self, seconds: float, begin: float = 0.0) -> None:
        """Break all connections and refuse new ones for a while.

        Args:
            seconds: for how long.
            begin: seconds from now.
        """
        self._call(lambda: self._loop.call_later(begin, self._refuse, 1))
        self._call(lambda: self._loop.call_later(begin + seconds, self._refuse, -1))

    def close(self) -> None:
        """Break all connections and listen no more; closing twice does nothing."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._wait_for(self._shut())
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, act: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # it has been closed
            self._loop.call_soon_threadsafe(act)

    def _wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self, route: _Route) -> str:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await self._carry(route, reader, writer)
            except asyncio.CancelledError:
                pass  # the relay closes; asyncio would call it an error of its own
            finally:
                self._tasks.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def _carry(self, route: _Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection in both directions, to its end."""
        near = writer.transport
        route.transports.add(near)
        far: asyncio.BaseTransport | None = None
        try:
            if self._refusing:
                return
            try:
                out_reader, out_writer = await asyncio.open_connection(route.host, route.port)
            except OSError:
                return
            far = out_writer.transport
            route.transports.add(far)
            for transport in (near, far):
                connection = transport.get_extra_info("socket")
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps = [
                asyncio.ensure_future(self._pump(route, reader, out_writer)),
                asyncio.ensure_future(self._pump(route, out_reader, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            for end in (near, far):
                if end is not None:
                    route.transports.discard(end)
                    _abort(end)

    async def _pump(self, route: _Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction until it ends, breaks or is cut."""
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                await self._passes.wait()
                if route.cut_after is not None:
                    if route.cut_after <= len(data):
                        writer.write(data[: route.cut_after])
                        route.cut_after = None
                        self.cuts += 1
                        await asyncio.sleep(0)  # so that what is before the cut leaves
                        return
                    route.cut_after -= len(data)
                writer.write(data)
                await writer.drain()

    def _hold(self, change: int) -> None:
        self._holds += change
        if self._holds:
            self._passes.clear()
        else:
            self._passes.set()

    def _refuse(self, change: int) -> None:
        self._refusing += change
        if change > 0:
            for _, route in self._addresses.values():
                for transport in list(route.transports):
                    _abort(transport)

    async def _shut(self) -> None:
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _abort(transport: asyncio.BaseTransport) -> None:
    """Close at once, without a farewell."""
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
