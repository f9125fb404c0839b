"""How a running job stands, asked of its coordinator."""

from __future__ import annotations

from types import TracebackType

import grpc

from paramserver.client.channels import OPTIONS
from paramserver.errors import RequestError
from paramserver.events import JobStatus
from paramserver.launch.progress import Moment
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.paramserver_pb2_grpc import ParameterServerStub
from paramserver.wire.status import decode_job_status

ANSWER_SECONDS = 2.0
"""Longest wait for one answer; also the longest that Ctrl-C can go unheard."""


class Watch:
    """Asks a coordinator how its job stands, once at a time: whoever follows a job asks again soon anyway.

    Args:
        address: host:port of the coordinator.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._status = ParameterServerStub(self._channel).Status

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def ask(self) -> JobStatus | None:
        """Return how the job stands, or None where there is no answer in time."""
        try:
            reply = self._status(pb.StatusRequest(), timeout=ANSWER_SECONDS)
            return decode_job_status(reply.job)
        except (grpc.RpcError, RequestError):
            return None


def moment_of(status: JobStatus, steps: int) -> Moment:
    """Return what progress shows of a job's status.

    Args:
        status: from the coordinator.
        steps: of all replicas together.
    """
    members = status.members
    losses = [member.counters.loss for member in members if member.counters.loss == member.counters.loss]
    accuracies = [score.accuracy for score in status.scores if score.split == "validation"]
    return Moment(
        fraction=min(1.0, sum(member.clock for member in members) / steps),
        samples=sum(member.counters.samples.get("computed", 0) for member in members),
        loss=sum(losses) / len(losses) if losses else float("nan"),
        accuracy=accuracies[-1] if accuracies else None,
    )
