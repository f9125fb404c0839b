"""The relay cuts between two bytes, holds, and refuses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from paramserver.chaos.relay import Relay

SECONDS = 20.0


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of a server that says what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(4096):
                        connection.sendall(data)
                except OSError:
                    pass

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as relay:
        yield relay


def connect(relay: Relay, address: str) -> socket.socket:
    host, _, port = relay.lead_to(address).rpartition(":")
    return socket.create_connection((host, int(port)), SECONDS)


def say(connection: socket.socket, data: bytes) -> bytes:
    """Send bytes, and return what comes back before the connection ends or all is there."""
    heard = b""
    try:
        connection.sendall(data)
        while len(heard) < len(data) and (more := connection.recv(4096)):
            heard += more
    except ConnectionError:
        pass
    return heard


def test_a_cut_falls_between_two_bytes_and_a_new_connection_is_whole(relay: Relay, echo: str) -> None:
    with connect(relay, echo) as connection:
        assert say(connection, b"hello") == b"hello"
        relay.cut(echo, 7)
        assert len(say(connection, bytes(100_000))) <= 7
    assert relay.cuts == 1
    with connect(relay, echo) as connection:
        assert say(connection, b"again") == b"again"


def test_what_is_held_comes_later_and_whole(relay: Relay, echo: str) -> None:
    with connect(relay, echo) as connection:
        assert say(connection, b"one") == b"one"
        relay.hold(0.2)
        connection.sendall(b"two")
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(3)
        connection.settimeout(SECONDS)
        assert connection.recv(3) == b"two"


def test_while_it_refuses_every_connection_breaks(relay: Relay, echo: str) -> None:
    with connect(relay, echo) as connection:
        assert say(connection, b"one") == b"one"
        relay.refuse(SECONDS)
        assert say(connection, b"two") == b""
    with connect(relay, echo) as connection:
        assert say(connection, b"three") == b""
