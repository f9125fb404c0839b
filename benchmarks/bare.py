"""The bare parts that transfers are compared with: a gRPC stream and a TCP socket, with nothing on top.

Each runs its server in a process of its own, as the parameter server does. The stream carries chunks in the
bytes field of a protobuf message (the standard `BytesValue`) over the same kind of server and channel as
ours; what arrives is counted and let go, while ours checks its bytes and keeps them.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value

CHUNK_BYTES = 1 << 20
DOWN, UP = "/bare.Stream/Down", "/bare.Stream/Up"
DEADLINE_SECONDS = 120.0


class BareStream:
    """A client of the bare gRPC stream."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._down = self._channel.unary_stream(
            DOWN, request_serializer=Int64Value.SerializeToString, response_deserializer=BytesValue.FromString
        )
        self._up = self._channel.stream_unary(
            UP, request_serializer=BytesValue.SerializeToString, response_deserializer=Int64Value.FromString
        )

    def pull(self, size: int) -> float:
        """Receive so many bytes; return the seconds that it took."""
        began = time.perf_counter()
        reply = self._down(Int64Value(value=size), timeout=DEADLINE_SECONDS)
        received = sum(len(message.value) for message in reply)
        assert received == size
        return time.perf_counter() - began

    def push(self, data: bytes) -> float:
        """Send bytes; return the seconds until the server has said that it has them."""
        began = time.perf_counter()
        received = self._up(
            (BytesValue(value=chunk) for chunk in _chunks(data)), timeout=DEADLINE_SECONDS
        ).value
        assert received == len(data)
        return time.perf_counter() - began


class BareSocket:
    """A client of the bare TCP socket."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def pull(self, size: int) -> float:
        """Receive so many bytes into one buffer; return the seconds that it took."""
        buffer = memoryview(bytearray(size))
        began = time.perf_counter()
        self._socket.sendall(b"d" + size.to_bytes(8, "little"))
        _receive_into(self._socket, buffer)
        return time.perf_counter() - began

    def push(self, data: bytes) -> float:
        """Send bytes; return the seconds until the server has said that it has them."""
        began = time.perf_counter()
        self._socket.sendall(b"u" + len(data).to_bytes(8, "little"))
        self._socket.sendall(data)
        _receive_into(self._socket, memoryview(bytearray(1)))
        return time.perf_counter() - began


@contextmanager
def serving(kind: str) -> Iterator[str]:
    """Run the bare server of this kind (``stream`` or ``socket``) as a process; yield its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare", kind], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _chunks(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for begin in range(0, len(data), CHUNK_BYTES):
        yield bytes(view[begin : begin + CHUNK_BYTES])


def _receive_into(connection: socket.socket, buffer: memoryview) -> None:
    while buffer:
        count = connection.recv_into(buffer)
        if count == 0:
            raise ConnectionError("The bare socket was closed.")
        buffer = buffer[count:]


async def _serve_stream() -> None:
    async def down(request: Int64Value, context: object) -> AsyncIterator[BytesValue]:
        data = bytes(CHUNK_BYTES)
        left = request.value
        while left > 0:
            yield BytesValue(value=data[: min(left, CHUNK_BYTES)])
            left -= CHUNK_BYTES

    async def up(requests: AsyncIterator[BytesValue], context: object) -> Int64Value:
        received = 0
        async for message in requests:
            received += len(message.value)
        return Int64Value(value=received)

    handlers = {
        "Down": grpc.unary_stream_rpc_method_handler(
            down, request_deserializer=Int64Value.FromString, response_serializer=BytesValue.SerializeToString
        ),
        "Up": grpc.stream_unary_rpc_method_handler(
            up, request_deserializer=BytesValue.FromString, response_serializer=Int64Value.SerializeToString
        ),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Stream", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def _serve_socket() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"127.0.0.1:{listener.getsockname()[1]}", flush=True)
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        header = bytearray(9)
        _receive_into(connection, memoryview(header))
        size = int.from_bytes(header[1:], "little")
        if header[:1] == b"d":
            connection.sendall(bytes(size))
        else:
            _receive_into(connection, memoryview(bytearray(size)))
            connection.sendall(b"k")


if __name__ == "__main__":
    if sys.argv[1] == "stream":
        asyncio.run(_serve_stream())
    else:
        _serve_socket()
