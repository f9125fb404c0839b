"""A network under a client's channels that loses, repeats, delays, cuts and refuses as planned."""

from __future__ import annotations

import threading
from dataclasses import replace

import grpc

from paramserver.chaos.calls import FaultyCalls, Messages
from paramserver.chaos.relay import Relay
from paramserver.client.channels import Options
from paramserver.data import generator
from paramserver.faults import Fates, Faults, decide
from paramserver.quantities import NANOSECONDS
from paramserver.security.access import Access
from paramserver.security.channels import TokenChannel, metadata, open_channel

CUT_BYTES_MAX = 1 << 16
"""A cut comes at most so many bytes after it was decided: within the transfers of a small model, too."""


class FaultyNetwork:
    """The network of one process, on which planned things go wrong.

    Args:
        faults: what goes wrong, but for what is done to processes.
        seed: of all chance in it.
        position: of this process among those with the same seed: its role and its index.
    """

    def __init__(self, faults: Faults, seed: int, position: tuple[int, int]) -> None:
        self._relay = Relay()
        self._happenings = decide(faults, seed, position[1] + 1)
        self._messages = Messages(Fates(faults.chances, seed, position), self._begin)
        self._places = generator(seed, "places of cuts", *position)  # guarded by _lock
        self._lock = threading.Lock()

    def open(self, address: str, access: Access, options: Options) -> grpc.Channel:
        """Open a channel to a server."""
        near = self._relay.lead_to(address)
        # Whoever checks a certificate, or reads the authority, is to see whom it really is.
        host = address.rpartition(":")[0].strip("[]")
        names = (("grpc.default_authority", address), ("grpc.ssl_target_name_override", host))
        calls = FaultyCalls(self._messages, lambda: self._cut(address), self._relay.hold)
        # The token is put on from outside, since gRPC can only look into calls of channels of its own.
        plain = open_channel(near, replace(access, token=""), (*options, *names))
        channel = grpc.intercept_channel(plain, calls)
        return TokenChannel(channel, metadata(access)) if access.token else channel

    def close(self) -> None:
        """Break all connections."""
        self._messages.stopped.set()
        self._relay.close()

    def account(self) -> str:
        """Say what has gone wrong so far, such as ``3 x lose request, 2 connections cut``."""
        met = [f"{count} x {what}" for what, count in sorted(self._messages.met.items())]
        return ", ".join([*met, f"{self._relay.cuts} connections cut"])

    def __enter__(self) -> FaultyNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self, address: str) -> None:
        with self._lock:
            place = int(self._places.integers(1, CUT_BYTES_MAX))
        self._relay.cut(address, place)

    def _begin(self) -> None:
        """Let begin what is planned for a time: it is counted from here."""
        for each in self._happenings:
            lasts = ((each.until or each.at) - each.at) / NANOSECONDS
            act = {"partition": self._relay.hold, "refuse": self._relay.refuse}[each.kind]
            act(lasts, each.at / NANOSECONDS)
