"""Channels that bring a token along, and why a door stayed shut.

A token travels in the metadata of each call, as ``authorization: Bearer TOKEN``. gRPC's own call credentials
need TLS, and its interceptors wrap every call in objects that cost more than the call of a small pull does.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc

from paramserver.security.access import Access

AUTHORIZATION = "authorization"
BEARER = "Bearer "

PROBE_SECONDS = 3.0
"""How long it may take to find out why a server's door is shut."""

_EXPIRED, _NOT_YET_VALID = 10, 9
_WRONG_HOST = (62, 64)
"""X509_V_ERR_... of OpenSSL's x509_vfy.h."""


def metadata(access: Access) -> tuple[tuple[str, str], ...]:
    """Return what travels with each call."""
    return ((AUTHORIZATION, BEARER + access.token),) if access.token else ()


def tls_credentials(access: Access) -> grpc.ChannelCredentials | None:
    """Return what gRPC needs to speak TLS; None where there is none."""
    if access.ca is None:
        return None
    return grpc.ssl_channel_credentials(access.ca, access.key, access.cert)


def open_channel(address: str, access: Access, options: tuple[tuple[str, Any], ...]) -> grpc.Channel:
    """Open a channel to a server, whose every call has the token.

    Args:
        address: ``host:port``.
        access: what opens the door.
        options: of gRPC.
    """
    credentials = tls_credentials(access)
    if credentials is None:
        channel = grpc.insecure_channel(address, options)
    else:
        channel = grpc.secure_channel(address, credentials, options)
    return TokenChannel(channel, metadata(access)) if access.token else channel


class TokenChannel(grpc.Channel):
    """A channel whose calls all carry the same metadata.

    Args:
        channel: that makes the calls.
        metadata: of each.
    """

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel = channel
        self._metadata = metadata

    def unary_unary(self, *words: Any, **more: Any) -> Any:
        """Make a call of one request and one answer."""
        return _Call(self._channel.unary_unary(*words, **more), self._metadata)

    def unary_stream(self, *words: Any, **more: Any) -> Any:
        """Make a call of one request and many answers."""
        return _Call(self._channel.unary_stream(*words, **more), self._metadata)

    def stream_unary(self, *words: Any, **more: Any) -> Any:
        """Make a call of many requests and one answer."""
        return _Call(self._channel.stream_unary(*words, **more), self._metadata)

    def stream_stream(self, *words: Any, **more: Any) -> Any:
        """Make a call of many requests and many answers."""
        return _Call(self._channel.stream_stream(*words, **more), self._metadata)

    def subscribe(self, callback: Callable[[Any], None], try_to_connect: bool | None = False) -> None:
        """Listen to what becomes of the connection."""
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[Any], None]) -> None:
        """Listen no more."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """End all calls."""
        self._channel.close()

    def __enter__(self) -> TokenChannel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.close()
        return None


class _Call:
    def __init__(self, call: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._call = call
        self._metadata = metadata

    def __call__(self, request: Any, timeout: float | None = None) -> Any:
        return self._call(request, timeout=timeout, metadata=self._metadata)

    def future(self, request: Any, timeout: float | None = None) -> Any:
        return self._call.future(request, timeout=timeout, metadata=self._metadata)


def is_shut(details: str) -> bool:
    """Say whether gRPC's words for a failed connection are those of a door that stays shut.

    The same words may come from a server that was killed just now, so `why_shut` looks.
    """
    return "handshake failed" in details or ("failed to connect" in details and "Socket closed" in details)


def why_shut(address: str, access: Access) -> str:
    """Find out why no connection comes about, by a TLS handshake of our own; gRPC does not say.

    Blocks for at most a few times ``PROBE_SECONDS``.

    Args:
        address: of the server.
        access: what was brought.

    Returns:
        A sentence; empty where it is not TLS, or nobody is there.
    """
    server = f"The server at {address}"
    if access.ca is None:
        return (
            f"{server} speaks TLS, and this side does not. Say with --tls-ca FILE (or tls_ca=, or the "
            "variable PARAMSERVER_TLS_CA) whose certificate it has."
            if _shake_hands(address, None) is None
            else ""
        )
    found = _shake_hands(address, access.ca)
    if isinstance(found, ssl.SSLCertVerificationError):
        host = _host_and_port(address)[0]
        if found.verify_code == _EXPIRED:
            return (
                f"The certificate of the server at {address} has expired. Make new ones: paramserver certs."
            )
        if found.verify_code == _NOT_YET_VALID:
            return (
                f"The certificate of the server at {address} is not valid yet. Is this machine's clock right?"
            )
        if found.verify_code in _WRONG_HOST:
            return (
                f"The certificate of the server at {address} is not for '{host}'. Use a name that it is for, "
                f"or make new ones with paramserver certs --host {host}."
            )
        return (
            f"The certificate of the server at {address} comes from another CA than the one that is trusted "
            "here. Is --tls-ca the ca.crt of this cluster?"
        )
    if isinstance(found, ssl.SSLError):
        if "WRONG_VERSION_NUMBER" in str(found) or "RECORD_LAYER_FAILURE" in str(found):
            return (
                f"{server} does not speak TLS, and this side does. Start it with --tls-cert and --tls-key, "
                "or leave --tls-ca (and PARAMSERVER_TLS_CA) out here."
            )
        if "CERTIFICATE_REQUIRED" in str(found).upper().replace(" ", "_"):
            if access.cert is None:
                return (
                    f"{server} asks for a certificate, and none was shown. Give one of its CA with "
                    "--tls-cert and --tls-key."
                )
            return (
                f"{server} does not accept the certificate that was shown: it has expired, or is of another "
                "CA than the server's --tls-ca."
            )
    return ""


def _shake_hands(address: str, ca: bytes | None) -> Exception | None:
    """Begin TLS with a server and hang up; return what went wrong, None where nothing did."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=ca.decode(errors="replace"))
    host, port = _host_and_port(address)
    try:
        with (
            socket.create_connection((host, port), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            # In TLS 1.3 a server says only after the handshake that it wants a certificate.
            return None if ca is None or tls.recv(1) else OSError("It hung up.")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        return error


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
