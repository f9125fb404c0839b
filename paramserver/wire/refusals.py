"""Errors as gRPC statuses, and back. The status's message is the error's sentence."""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from paramserver.errors import Failure, Fault, JobError, RequestError

_STATUS_OF_FAULT = {
    Fault.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Fault.UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Fault.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Fault.OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    Fault.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Fault.DENIED: grpc.StatusCode.UNAUTHENTICATED,
}
_STATUS_OF_FAILURE = {
    Failure.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Failure.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Failure.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Failure.ENDED: grpc.StatusCode.ABORTED,
}
LATER = (("grpc-retry-pushback-ms", "500"),)
"""Trailing metadata of ``BUSY``, which tells it from a request that is too large at any time. The name is of
gRPC's retry design (gRFC A6)."""

_FAULT_OF_STATUS = {status: fault for fault, status in _STATUS_OF_FAULT.items()}


def status_of(error: RequestError | JobError) -> grpc.StatusCode:
    """Return the status that an error travels as."""
    if isinstance(error, RequestError):
        return _STATUS_OF_FAULT[error.fault]
    return _STATUS_OF_FAILURE[error.failure]


def is_later(trailing_metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Say whether a status came with the word that the same request may succeed later."""
    return any(name == LATER[0][0] for name, _ in trailing_metadata or ())


def error_of(
    code: grpc.StatusCode, details: str, server: str, *, later: bool = False
) -> RequestError | JobError:
    """Return the error that a status stands for.

    Args:
        code: of the failed call.
        details: its message.
        server: who answered, or did not, as ``host:port``.
        later: what `is_later` says.

    Returns:
        A ``RequestError`` if the asker has to change something, else a ``JobError``: ``UNAVAILABLE``,
        ``DEADLINE`` and ``BUSY`` may be tried again, ``ENDED`` may not.
    """
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and later:
        return JobError(details, Failure.BUSY)
    if code in _FAULT_OF_STATUS:
        return RequestError(details, _FAULT_OF_STATUS[code])
    if code is grpc.StatusCode.ABORTED:
        return JobError(details, Failure.ENDED)
    if code is grpc.StatusCode.UNAVAILABLE:
        return JobError(_unavailable(details, server), Failure.UNAVAILABLE)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return JobError(
            f"The server at {server} did not answer in time. It may be overloaded or unreachable.",
            Failure.DEADLINE,
        )
    if code is grpc.StatusCode.CANCELLED:
        return JobError(f"The call to the server at {server} was cancelled.", Failure.ENDED)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return JobError(
            f"The server at {server} does not know this call. Is it a parameter server of this release?",
            Failure.ENDED,
        )
    return JobError(f"The server at {server} failed: {details}", Failure.ENDED)


def _unavailable(details: str, server: str) -> str:
    """Return a server's own sentence, or one in place of what gRPC says of a broken connection.

    Of the two only a server's ends with a full stop.
    """
    if details.endswith("."):
        return details
    return f"The server at {server} does not answer ({details}). Is it running, and is the address right?"
