"""Channels to the servers: one for each address, a lane of its own for heartbeats, and errors.

To the next editor: whatever gRPC raises becomes a ``RequestError`` or a ``JobError`` in `Channels.errors`,
and nowhere else. `Channels.stop` ends every transfer under way from any thread; the coordinator's lane stays
open, so that one can still say goodbye.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import grpc

from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.security.access import NO_ACCESS, Access
from paramserver.security.channels import open_channel
from paramserver.security.shut import is_shut, why_shut
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.paramserver_pb2_grpc import ParameterServerStub
from paramserver.wire.refusals import error_of, is_later
from paramserver.wire.transfer import INITIALISE, PULL, PUSH

OPTIONS = (
    # One thread for a stream and its reader: a small pull takes three quarters of the time.
    ("SingleThreadedUnaryStream", 1),
    # Servers are reached directly, on loopback or in one network, whatever the environment says.
    ("grpc.enable_http_proxy", 0),
    # A server that is just coming up is found within half a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A machine that vanishes without closing its connections is noticed within 40 s, while a call is open.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)

Options = tuple[tuple[str, Any], ...]
OpenChannel = Callable[[str, Access, Options], grpc.Channel]
"""Opens a channel to an address, ``host:port``, with what opens doors there and options of gRPC."""

OWN_LANE = ("grpc.use_local_subchannel_pool", 1)
"""Makes a channel open a connection of its own, where it would share one with another channel."""

PAUSES_SECONDS = (0.05, 0.05, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4, *6 * (0.8,))
"""How long to wait before each repetition of a call that failed without an answer; then it has failed.

So many that a network which breaks every third call still lets a long job through: of 15 attempts in 6 s all
fail less than once in a million calls.
"""

PATIENT_PAUSE_SECONDS = 1.0
"""Between two attempts to reach a server that may come back."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        call: one attempt of a call that is answered at once: join, leave, heartbeat, score, status.
        push: one attempt of a push or an initialise.
        pull: one attempt of a pull. A pull that the server has told to wait is then asked again, without
            end: waiting is no failure.
    """

    call: float = 20.0
    push: float = 600.0
    pull: float = 600.0


class Server:
    """The calls of one server that move tensors, over one channel.

    ``push_short`` and ``initialise_short`` are for streams of one message. On the wire gRPC does not say
    whether a call streams, and opened like this it needs no thread that writes: half the time of a push.
    """

    def __init__(self, address: str, channel: grpc.Channel) -> None:
        self.address = address
        self.channel = channel
        self.join = ParameterServerStub(channel).Join
        self.pull: Any = channel.unary_stream(PULL, pb.PullRequest.SerializeToString)
        self.push: Any = channel.stream_unary(PUSH)
        self.push_short: Any = channel.unary_stream(PUSH)
        self.initialise: Any = channel.stream_unary(INITIALISE)
        self.initialise_short: Any = channel.unary_stream(INITIALISE)


class Channels:
    """All channels of one connection; any thread may use them.

    Args:
        coordinator: address of the first server, ``host:port``.
        access: what opens the servers' doors.
        opens: opens each channel.

    Attributes:
        coordinator: the same.
        control: the coordinator's calls over a connection that carries no tensors, so that a heartbeat never
            queues behind them.
    """

    def __init__(
        self, coordinator: str, access: Access = NO_ACCESS, opens: OpenChannel = open_channel
    ) -> None:
        self.coordinator = coordinator
        self._access = access
        self._opens = opens
        self._control = opens(coordinator, access, (*OPTIONS, OWN_LANE))
        self.control = ParameterServerStub(self._control)
        self._lock = threading.Lock()
        self._servers: dict[str, Server] = {}  # guarded by _lock
        self._knocking: set[grpc.Channel] = set()  # guarded by _lock
        self._reason = ""  # guarded by _lock; set before _stopped is
        self._stopped = threading.Event()

    def server(self, address: str) -> Server:
        """Return the calls of the server at an address.

        Raises:
            JobError: the connection has been stopped.
        """
        with self._lock:
            self._check()
            if address not in self._servers:
                channel = self._opens(address, self._access, OPTIONS)
                self._servers[address] = Server(address, channel)
            return self._servers[address]

    @contextmanager
    def knock(self) -> Iterator[Server]:
        """Give the coordinator's calls over a connection of its own, for a ``with`` block.

        It looks the name up anew. A channel that could not find a name waits ever longer before it looks
        again, up to two minutes, and a server's name may not exist before the server does.

        Raises:
            JobError: the connection has been stopped.
        """
        channel = self._opens(self.coordinator, self._access, (*OPTIONS, OWN_LANE))
        with channel:
            with self._lock:
                self._check()
                self._knocking.add(channel)
            try:
                yield Server(self.coordinator, channel)
            finally:
                with self._lock:
                    self._knocking.discard(channel)

    def wait(self, seconds: float) -> bool:
        """Wait until the connection is stopped, but no longer than this; say whether it is."""
        return self._stopped.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Wait, unless the connection is stopped meanwhile.

        Raises:
            JobError: the connection has been stopped.
        """
        if self.wait(seconds):
            self._check()

    def stop(self, reason: str) -> None:
        """End all transfers, under way and to come, with this sentence. The first reason counts."""
        with self._lock:
            if not self._stopped.is_set():
                self._reason = reason
                self._stopped.set()
            channels = [*(server.channel for server in self._servers.values()), *self._knocking]
        for channel in channels:
            channel.close()

    def close(self) -> None:
        """End everything."""
        self.stop("The connection was closed.")
        self._control.close()

    @contextmanager
    def errors(self, address: str) -> Iterator[None]:
        """Turn what gRPC raises in a ``with`` block into one of the two errors.

        Args:
            address: whom the block calls.

        Raises:
            RequestError: the server refused the request.
            JobError: it did not answer, has failed, or the connection has been stopped.
        """
        try:
            yield
        except grpc.RpcError as error:
            raise self._error_of(error, address) from error
        except grpc.FutureCancelledError as error:
            self._check()
            raise JobError(
                f"The server at {address} has ended the call; it stops.", Failure.UNAVAILABLE
            ) from error
        except ValueError as error:
            # What gRPC raises for a call on a channel that was closed a moment ago.
            self._check()
            if isinstance(error, RequestError):
                raise
            raise JobError(f"The server at {address} cannot be called: {error}.") from error

    def _error_of(self, error: grpc.RpcError, address: str) -> RequestError | JobError:
        if self._stopped.is_set():
            return JobError(self._reason, Failure.ENDED)
        if not isinstance(error, grpc.Call):
            return JobError(f"The call to the server at {address} failed: {error}.")
        call: Any = error
        if call.code() is grpc.StatusCode.CANCELLED:
            # Nobody here has cancelled it, so it is a server on its way out, which may be on its way back.
            return JobError(f"The server at {address} has ended the call; it stops.", Failure.UNAVAILABLE)
        details = call.details() or ""
        shut = call.code() is grpc.StatusCode.UNAVAILABLE and is_shut(details)
        if shut and (sentence := why_shut(address, self._access)):
            return RequestError(sentence, Fault.DENIED)
        return error_of(call.code(), details, address, later=is_later(call.trailing_metadata()))

    def _check(self) -> None:
        if self._stopped.is_set():
            raise JobError(self._reason, Failure.ENDED)


def pauses(patience_seconds: float = 0.0) -> Iterator[float]:
    """Give the pauses before each repetition of a call.

    Args:
        patience_seconds: repeat for so long, and in any case as often as `PAUSES_SECONDS` says.
    """
    left = max(patience_seconds, sum(PAUSES_SECONDS))
    for pause in chain(PAUSES_SECONDS, repeat(PATIENT_PAUSE_SECONDS)):
        if left <= 0:
            return
        yield pause
        left -= pause


def may_repeat(error: JobError) -> bool:
    """Say whether a call failed without an answer, or was refused for now, so that the same may succeed."""
    return error.failure in (Failure.UNAVAILABLE, Failure.DEADLINE, Failure.BUSY)
