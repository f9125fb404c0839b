"""How a running job stands, asked of its servers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import grpc

from paramserver.client.channels import OPTIONS
from paramserver.errors import RequestError
from paramserver.events import JobStatus
from paramserver.launch.overview import Overview
from paramserver.launch.sighting import History, Sighting
from paramserver.security.access import NO_ACCESS, Access
from paramserver.security.channels import open_channel
from paramserver.security.shut import is_shut, why_shut
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.paramserver_pb2_grpc import ParameterServerStub
from paramserver.wire.status import ServerStanding, decode_status

ANSWER_SECONDS = 2.0
"""Longest wait for the coordinator's answer."""

OTHERS_SECONDS = 1.0
"""Longest wait for the other servers' answers; with the one above the longest that Ctrl-C can go unheard."""

Answer = tuple[JobStatus | None, ServerStanding]


class Watch:
    """Asks the servers of a job how it stands, once at a time: whoever follows a job asks again soon anyway.

    Args:
        addresses: host:port of the coordinator, and of other servers if they cannot be reached under the
            addresses that they advertise.
        access: what opens their doors.

    Attributes:
        heard: a server has answered the latest question, if perhaps not the coordinator.
        refusal: why a server lets nobody in who has no more than this; empty if none has refused.
    """

    def __init__(self, *addresses: str, access: Access = NO_ACCESS) -> None:
        self._addresses = addresses
        self._access = access
        self.refusal = ""
        self._channels: dict[str, grpc.Channel] = {}
        self._history = History()
        self.heard = False

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            channel.close()

    def ask(self) -> Sighting | None:
        """Return what the servers say, or None where the coordinator does not answer in time."""
        answers = self._ask(self._addresses, ANSWER_SECONDS)
        self.heard = bool(answers)
        job = next((job for job, _ in answers if job is not None), None)
        if job is None:
            return None
        here = {shard.statistics.shard for _, server in answers for shard in server.shards}
        missing = [
            server.address for server in job.servers if server.server * max(1, server.shards) not in here
        ]
        answers += self._ask(missing, OTHERS_SECONDS)
        return Sighting(time.monotonic(), job, tuple(server for _, server in answers))

    def look(self) -> Overview | None:
        """Return how the job stands, with the speeds of the last seconds; None as `ask` does."""
        sighting = self.ask()
        return None if sighting is None else self.overview(sighting)

    def overview(self, sighting: Sighting) -> Overview:
        """Return how the job stands by what its servers said, each sighting once and in order."""
        return self._history.see(sighting)

    def _ask(self, addresses: Iterable[str], seconds: float) -> list[Answer]:
        """Ask several servers at the same time; return the answers of those that give one."""
        asked = list(addresses)
        calls = [self._status(address).future(pb.StatusRequest(), timeout=seconds) for address in asked]
        answers = []
        for address, call in zip(asked, calls, strict=True):
            try:
                answers.append(decode_status(call.result()))
            except RequestError:
                continue
            except grpc.RpcError as error:
                self._note_refusal(address, error)
        return answers

    def _note_refusal(self, address: str, error: Any) -> None:
        """Keep why a door is shut, the first time; who only does not answer may do so the next time."""
        if not self.refusal and isinstance(error, grpc.Call):
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                self.refusal = error.details() or ""
            elif is_shut(error.details() or ""):
                self.refusal = why_shut(address, self._access)

    def _status(self, address: str) -> Any:
        if address not in self._channels:
            self._channels[address] = open_channel(address, self._access, OPTIONS)
        return ParameterServerStub(self._channels[address]).Status
