"""Channels that bring a token along.

A token travels in the metadata of each call, as ``authorization: Bearer TOKEN``. gRPC's own call credentials
need TLS, and its interceptors wrap every call in objects that cost more than the call of a small pull does.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc

from paramserver.security.access import Access

AUTHORIZATION = "authorization"
BEARER = "Bearer "


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

    def subscribe(self, callback: Callable[[Any], None], try_to_connect: bool = False) -> None:
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
