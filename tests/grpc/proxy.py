"""A network that misbehaves on request: a gRPC proxy that loses answers or cuts streams."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc

LOSE_ANSWER = "lose the answer"
CUT_STREAM = "cut the stream after its first message"


class Proxy(grpc.GenericRpcHandler):
    """Passes every call on as it is, but for faults that a test has asked for.

    Attributes:
        address: of the proxy; advertise it as the server's.
        calls: how often each method was called.
        sent: bytes of the messages that clients sent to each method.
        answered: bytes of the messages that came back.
        faults: for each method what goes wrong with its next calls.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: dict[str, deque[str]] = defaultdict(deque)
        self._server = grpc.server(
            ThreadPoolExecutor(16), handlers=[self], options=[("grpc.so_reuseport", 0)]
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._upstream: grpc.Channel | None = None
        self._server.start()

    def lead_to(self, address: str) -> None:
        self._upstream = grpc.insecure_channel(address)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        method = details.method

        def forward(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            return self._forward(method, messages, context)

        return grpc.stream_stream_rpc_method_handler(forward)

    def _counted(self, name: str, messages: Iterator[bytes]) -> Iterator[bytes]:
        for message in messages:
            self.sent[name] += len(message)
            yield message

    def _forward(
        self, method: str, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        assert self._upstream is not None
        name = method.rpartition("/")[2]
        self.calls[name] += 1
        fault = self.faults[name].popleft() if self.faults[name] else ""
        counted = self._counted(name, messages)
        call = self._upstream.stream_stream(method)(counted, timeout=context.time_remaining())
        context.add_callback(call.cancel)
        try:
            for answer in call:
                self.answered[name] += len(answer)
                if fault != LOSE_ANSWER:
                    yield answer
                if fault == CUT_STREAM:
                    break
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        if fault:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()
        if self._upstream is not None:
            self._upstream.close()
