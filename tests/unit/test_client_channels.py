"""What gRPC raises becomes one of two errors, with a sentence that names the address."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from paramserver.client.channels import Channels, may_repeat
from paramserver.errors import Failure, Fault, JobError, RequestError

ADDRESS = "somewhere:1234"


class Failed(grpc.RpcError, grpc.Call):
    """A call that has failed, as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def _unused(self, *_: object) -> None:
        raise NotImplementedError

    initial_metadata = is_active = time_remaining = cancel = add_callback = _unused  # type: ignore[assignment]


@pytest.fixture
def channels() -> Iterator[Channels]:
    channels = Channels(ADDRESS)
    yield channels
    channels.close()


def test_a_refusal_is_the_askers_and_keeps_the_servers_sentence(channels: Channels) -> None:
    with pytest.raises(RequestError, match=r"^There is no shard 9\.$") as caught, channels.errors(ADDRESS):
        raise Failed(grpc.StatusCode.NOT_FOUND, "There is no shard 9.")
    assert caught.value.fault is Fault.UNKNOWN


@pytest.mark.parametrize(
    ("code", "failure", "repeatable"),
    [
        (grpc.StatusCode.UNAVAILABLE, Failure.UNAVAILABLE, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Failure.DEADLINE, True),
        (grpc.StatusCode.ABORTED, Failure.ENDED, False),
        (grpc.StatusCode.INTERNAL, Failure.ENDED, False),
        (grpc.StatusCode.CANCELLED, Failure.UNAVAILABLE, True),
    ],
)
def test_other_failures_are_not(
    channels: Channels, code: grpc.StatusCode, failure: Failure, repeatable: bool
) -> None:
    with pytest.raises(JobError) as caught, channels.errors(ADDRESS):
        raise Failed(code, "socket closed")
    assert caught.value.failure is failure
    assert may_repeat(caught.value) is repeatable
    assert ADDRESS in str(caught.value) or code is grpc.StatusCode.ABORTED


@pytest.mark.parametrize(
    "error",
    [
        Failed(grpc.StatusCode.UNAVAILABLE, "socket closed"),
        Failed(grpc.StatusCode.CANCELLED, None),
        grpc.FutureCancelledError(),
        ValueError("Cannot invoke RPC on closed channel!"),
    ],
)
def test_once_stopped_everything_fails_with_the_reason(channels: Channels, error: Exception) -> None:
    channels.stop("Enough.")
    channels.stop("Too much.")
    with pytest.raises(JobError, match=r"^Enough\.$") as caught, channels.errors(ADDRESS):
        raise error
    assert caught.value.failure is Failure.ENDED


def test_a_sentence_of_our_own_passes_as_it_is(channels: Channels) -> None:
    with pytest.raises(RequestError, match=r"^A shape is wrong\.$"), channels.errors(ADDRESS):
        raise RequestError("A shape is wrong.")


def test_pauses_end_when_the_connection_is_stopped(channels: Channels) -> None:
    assert not channels.wait(0.0)
    channels.pause(0.0)
    channels.stop("Enough.")
    assert channels.wait(1000.0)
    with pytest.raises(JobError, match=r"^Enough\.$"):
        channels.pause(1000.0)
    with pytest.raises(JobError, match=r"^Enough\.$"):
        channels.server(ADDRESS)


def test_one_channel_for_each_address(channels: Channels) -> None:
    assert channels.server("a:1") is channels.server("a:1")
    assert channels.server("a:1") is not channels.server("b:1")
