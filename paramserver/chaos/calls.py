"""Calls that go wrong where a client makes them.

Each call is two messages, a request and a reply, and each meets at most one fault. A lost request never
reaches the server; of a lost reply the server does not know that it is lost: it has handled the request. What
is duplicated reaches the server twice, the copy first, so that the answer is that to the second.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from paramserver.faults import Fates
from paramserver.quantities import NANOSECONDS

PULL_NAME = "/Pull"


class LostError(grpc.RpcError, grpc.Call):
    """What a client sees of a message that was lost: the connection broke under it."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def code(self) -> grpc.StatusCode:
        """Return ``UNAVAILABLE``, as of a broken connection."""
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        """Say that it was on purpose."""
        return f"A {self._what} was lost on purpose."

    def initial_metadata(self) -> tuple[()]:
        """Return nothing."""
        return ()

    def trailing_metadata(self) -> tuple[()]:
        """Return nothing."""
        return ()

    def is_active(self) -> bool:
        """Say that it is over."""
        return False

    def time_remaining(self) -> float:
        """Return that there is no time left."""
        return 0.0

    def cancel(self) -> bool:
        """Do nothing: it is over."""
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Refuse: it is over."""
        return False


class FaultyCalls(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor
):
    """Lets the calls of one channel go wrong.

    Args:
        faults: decides about each message; shared by all channels of a process.
        cut: breaks the connection under the next transfer.
        hold: holds all that is on the connections up, for so many seconds.
    """

    def __init__(self, faults: Messages, cut: Callable[[], None], hold: Callable[[float], None]) -> None:
        self._faults = faults
        self._cut = cut
        self._hold = hold

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """Make a call that is answered at once."""
        if self._request(client_call_details):
            continuation(client_call_details, request)
        call = continuation(client_call_details, request)
        if self._reply():
            raise LostError("reply")
        return call

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """Begin a call whose answer is a stream."""
        if self._request(client_call_details):
            copy = continuation(client_call_details, request)
            # Unread, it would be cancelled once nobody holds it.
            threading.Thread(target=_drain, args=(copy,), name="copy of a call", daemon=True).start()
        call = continuation(client_call_details, request)
        return _LostAnswers(call) if self._reply() else call

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Iterator[Any]
    ) -> Any:
        """Begin a call whose request is a stream."""
        if self._request(client_call_details):
            messages = list(request_iterator)
            self._faults.keep(continuation(client_call_details, iter(messages)))
            request_iterator = iter(messages)
        call = continuation(client_call_details, request_iterator)
        return _LostAnswer(call) if self._reply() else call

    def _request(self, details: Any) -> bool:
        """Let a request meet its fate; say whether it is to be sent twice."""
        if str(details.method).endswith(PULL_NAME):
            self._faults.training_begins()
        kind = self._meet("request")
        if kind == "lose":
            raise LostError("request")
        return kind == "duplicate"

    def _reply(self) -> bool:
        """Let a reply meet its fate; say whether it is lost. Of replies nobody gets a second one."""
        return self._meet("reply") == "lose"

    def _meet(self, what: str) -> str:
        kind, late = self._faults.next(what)
        if kind == "delay":
            self._hold(late / NANOSECONDS)
        elif kind == "cut":
            self._cut()
        elif kind == "reorder":
            self._faults.stopped.wait(late / NANOSECONDS)
        return kind


class Messages:
    """Decides about the messages of one process, one after the other; any thread may ask.

    Args:
        fates: in which order what happens.
        on_training: called once, when training begins.

    Attributes:
        met: how often what has happened, such as ``lose request``.
        stopped: set once nobody is to wait any more.
    """

    def __init__(self, fates: Fates, on_training: Callable[[], None]) -> None:
        self.met: Counter[str] = Counter()
        self.stopped = threading.Event()
        self._fates = fates
        self._on_training = on_training
        self._trains = False  # guarded by _lock
        self._copies: set[Any] = set()  # guarded by _lock
        self._lock = threading.Lock()

    def next(self, what: str) -> tuple[str, int]:
        """Return what happens to the next message, and by how many nanoseconds it is late."""
        with self._lock:
            kind, late = self._fates.next()
            if kind:
                self.met[f"{kind} {what}"] += 1
        return kind, late

    def training_begins(self) -> None:
        """Take in that somebody reads weights."""
        with self._lock:
            first, self._trains = not self._trains, True
        if first:
            self._on_training()

    def keep(self, call: Any) -> None:
        """Hold a call until it is over; else it would be cancelled."""
        with self._lock:
            self._copies.add(call)
        call.add_done_callback(self._forget)

    def _forget(self, call: Any) -> None:
        with self._lock:
            self._copies.discard(call)


class _LostAnswer:
    """A call whose one answer is lost, once the server has given it."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def result(self, timeout: float | None = None) -> Any:
        self._call.result(timeout)
        raise LostError("reply")

    def cancel(self) -> bool:
        return bool(self._call.cancel())


class _LostAnswers:
    """A call whose stream of answers is lost, once the server has begun to give it."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        next(self._call)
        self._call.cancel()
        raise LostError("reply")

    def cancel(self) -> bool:
        return bool(self._call.cancel())


def _drain(answers: Iterator[Any]) -> None:
    try:
        for _ in answers:
            pass
    except grpc.RpcError:
        pass  # what becomes of a copy is nobody's concern
