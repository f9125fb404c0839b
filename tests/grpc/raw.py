"""A server as a process, and replicas that speak to it with generated messages alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from paramserver.events import Counters, JobSpec, Replica, Slice, TensorSpec
from paramserver.placement import slice_shape
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import decode_granted, encode_join, encode_replica
from paramserver.wire.paramserver_pb2_grpc import ParameterServerStub
from paramserver.wire.receive import slice_headers
from paramserver.wire.replicas import encode_leave

SECONDS = 30.0
"""Deadline of every wait in these tests."""

JOB = JobSpec(
    tensors=(TensorSpec("dense/bias", (3,)), TensorSpec("dense/weight", (4, 3)), TensorSpec("scale", ())),
    consistency="async",
    learning_rate=0.5,
)


class ServerProcess:
    """One server. Leaves nothing behind."""

    def __init__(self, *options: str, stdin: int | None = None) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "server", *options],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        self.address = self.first_line.removeprefix("listening ").strip()
        self._channel: grpc.Channel | None = None

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.address)
        return self._channel

    @property
    def stub(self) -> ParameterServerStub:
        return ParameterServerStub(self.channel)

    def wait(self) -> int:
        """Return the exit code."""
        return self.process.wait(SECONDS)

    def log(self) -> str:
        """Return what it has written to stderr."""
        self._log.seek(0)
        return self._log.read()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            self._channel.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        if error is not None:
            print(self.log(), file=sys.stderr)
        self._log.close()


@contextmanager
def two_servers(shards: int = 1, out: Path | None = None) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Run a coordinator and a second server, linked."""
    options = ["--servers", "2", "--shards", f"{shards}", *(["--out", str(out)] if out else [])]
    with (
        ServerProcess(*options) as first,
        ServerProcess(*options, "--server", "1", "--coordinator", first.address) as second,
    ):
        wait_serving(first)
        yield first, second


class RawReplica:
    """A replica that has joined; every call may be sent wrongly on purpose."""

    def __init__(
        self,
        server: ServerProcess,
        job: JobSpec = JOB,
        name: str = "w/0",
        options: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.job = job
        self.shapes = {tensor.key: tensor.shape for tensor in job.tensors}
        self.coordinator = server.stub
        request = encode_join(name, f"attempt of {name}", job)
        granted = decode_granted(server.stub.Join(request, timeout=SECONDS))
        assert granted.replica is not None
        self.replica: Replica = granted.replica
        self.clock = granted.clock
        self._channels = {
            address: grpc.insecure_channel(address, options) for address in set(granted.addresses)
        }
        self._stubs = [ParameterServerStub(self._channels[address]) for address in granted.addresses]
        self.slices = [
            [part for part in granted.placement if part.shard == shard]
            for shard in range(len(granted.addresses))
        ]

    @property
    def shards(self) -> range:
        return range(len(self._stubs))

    def constant(self, shard: int, value: float) -> dict[Slice, np.ndarray]:
        """Return this value for all elements of a shard."""
        return {
            part: np.full(slice_shape(self.shapes[part.key], part), value, np.float32)
            for part in self.slices[shard]
        }

    def initialise(self, value: float = 0.0, initialiser: str = "i") -> list[bool]:
        """Initialise all shards; return for each whether weights were adopted."""
        return [
            self._stubs[shard]
            .Initialise(iter(self.initialise_messages(shard, value, initialiser)), timeout=SECONDS)
            .adopted
            for shard in self.shards
        ]

    def initialise_messages(
        self, shard: int, value: float = 0.0, initialiser: str = "i"
    ) -> list[pb.InitialiseRequest]:
        header = pb.InitialiseHeader(
            shard=shard, initialiser=initialiser, slices=slice_headers(self.slices[shard], self.shapes)
        )
        return [pb.InitialiseRequest(header=header, chunks=chunks(self.constant(shard, value)))]

    def push_header(self, shard: int = 0, **fields: Any) -> pb.PushHeader:
        """Return the header of a right push, with these fields changed."""
        right: dict[str, Any] = {
            "shard": shard,
            "replica": encode_replica(self.replica),
            "sequence": self.clock,
            "samples": 1,
            "slices": slice_headers(self.slices[shard], self.shapes),
        }
        return pb.PushHeader(**{**right, **fields})

    def push(self, shard: int = 0, value: float = 1.0, **fields: Any) -> pb.Verdict:
        """Push a constant gradient to one shard."""
        values = {} if fields.get("refusal") else self.constant(shard, value)
        if fields.get("refusal"):
            fields = {"slices": [], "samples": 0, **fields}
        message = pb.PushRequest(header=self.push_header(shard, **fields), chunks=chunks(values))
        return self.send([message], shard)

    def send(self, messages: list[pb.PushRequest], shard: int = 0) -> pb.Verdict:
        """Push these messages."""
        return self._stubs[shard].Push(iter(messages), timeout=SECONDS)

    def pull_request(self, shard: int = 0, **fields: Any) -> pb.PullRequest:
        right = {"shard": shard, "replica": encode_replica(self.replica), "clock": self.clock}
        return pb.PullRequest(**{**right, **fields})

    def pull_stream(self, shard: int = 0, **fields: Any) -> Any:
        """Begin a pull; iterate over its replies, or cancel it."""
        return self._stubs[shard].Pull(self.pull_request(shard, **fields), timeout=SECONDS)

    def pull(self, shard: int = 0, **fields: Any) -> tuple[pb.PullHeader, dict[str, bytes]]:
        """Pull one shard; return the header and the bytes of each key."""
        header, data = pb.PullHeader(), dict[int, bytes]()
        for reply in self.pull_stream(shard, **fields):
            if reply.HasField("header"):
                header = reply.header
            for chunk in reply.chunks:
                assert chunk.offset == len(data.get(chunk.slice, b""))
                data[chunk.slice] = data.get(chunk.slice, b"") + chunk.data
        return header, {header.slices[index].key: value for index, value in data.items()}

    def leave(self, counters: Counters | None = None, failure: str = "") -> None:
        self.coordinator.Leave(encode_leave(self.replica, counters or Counters(), failure), timeout=SECONDS)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


def chunks(values: Mapping[Slice, np.ndarray]) -> list[pb.Chunk]:
    """Return one chunk for each slice."""
    return [
        pb.Chunk(slice=index, data=array.astype("<f4").tobytes())
        for index, array in enumerate(values.values())
    ]


def wait_serving(server: ServerProcess, service: str = "") -> None:
    """Wait until the health service says that a server serves."""
    request = health_pb2.HealthCheckRequest(service=service)
    for reply in health_pb2_grpc.HealthStub(server.channel).Watch(request, timeout=SECONDS):
        if reply.status == health_pb2.HealthCheckResponse.SERVING:
            return
    raise TimeoutError("The server never served.")
