"""Pull and push of one tensor beside a bare gRPC stream and a bare TCP socket of the same bytes.

Within a run the three take turns, one transfer each, so that a slow moment of the machine hits all alike; the
ratios are of neighbours, and the median of the pairs is what counts. ``push checked`` is answered when all
bytes are received and known to be finite (a synchronous round, applied afterwards); ``push applied`` when the
weights are updated, too (asynchronous, plain SGD).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.bare import BareSocket, BareStream, serving
from paramserver.client import Connection, ReplicaClient
from paramserver.events import JobSpec, TensorSpec

SIZES_BYTES = {"1 KB": 1 << 10, "1 MB": 1 << 20, "16 MB": 16 << 20, "100 MB": 100 << 20}
KINDS = ("pull", "push checked", "push applied")
LEASE_SECONDS = 600.0


@dataclass(frozen=True)
class Row:
    """One line of the table: medians over the pairs."""

    kind: str
    size: str
    milliseconds: float
    gigabytes_per_second: float
    to_stream: float
    to_stream_spread: tuple[float, float]
    to_socket: float


def run(pairs: int = 7) -> list[Row]:
    """Measure every kind and size.

    Args:
        pairs: transfers of each, in turns, after one that is not counted.
    """
    return [_measure(kind, size, pairs) for kind in KINDS for size in SIZES_BYTES]


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| transfer | size | ms | GB/s | to a bare gRPC stream (least to most) | to a bare socket |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        low, high = row.to_stream_spread
        lines.append(
            f"| {row.kind} | {row.size} | {row.milliseconds:.2f} | {row.gigabytes_per_second:.3f} "
            f"| {row.to_stream:.2f} ({low:.2f} to {high:.2f}) | {row.to_socket:.2f} |"
        )
    return "\n".join(lines)


def _measure(kind: str, size: str, pairs: int) -> Row:
    size_bytes = SIZES_BYTES[size]
    data = bytes(size_bytes)
    with ExitStack() as stack:
        stream = BareStream(stack.enter_context(serving("stream")))
        bare_socket = BareSocket(stack.enter_context(serving("socket")))
        ours = stack.enter_context(_replica(size_bytes // 4, "sync" if kind == "push checked" else "async"))
        transfers = _transfers(ours, kind, size_bytes // 4)
        times: list[tuple[float, float, float]] = []
        for _ in range(pairs + 1):
            mine = next(transfers)
            if kind == "pull":
                times.append((mine, stream.pull(size_bytes), bare_socket.pull(size_bytes)))
            else:
                times.append((mine, stream.push(data), bare_socket.push(data)))
    counted = times[1:]
    to_stream = [stream_seconds / mine for mine, stream_seconds, _ in counted]
    seconds = statistics.median(mine for mine, _, _ in counted)
    return Row(
        kind,
        size,
        seconds * 1000,
        size_bytes / seconds / 1e9,
        statistics.median(to_stream),
        (min(to_stream), max(to_stream)),
        statistics.median(socket_seconds / mine for mine, _, socket_seconds in counted),
    )


def _transfers(replica: ReplicaClient, kind: str, elements: int) -> Iterator[float]:
    """Do one step after the other; yield the seconds of the part that is measured."""
    clock = 0
    gradient = {"w": np.full(elements, 1e-3, np.float32)}
    while True:
        began = time.perf_counter()
        replica.pull(clock)
        pulled = time.perf_counter()
        replica.push(clock, gradient, 1)
        pushed = time.perf_counter()
        yield pulled - began if kind == "pull" else pushed - pulled
        clock += 1


@contextmanager
def _replica(elements: int, consistency: str) -> Iterator[ReplicaClient]:
    """Run a server with one shard and join it as the only replica, with one tensor."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "server", "--shards", "1"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[1]
            job = JobSpec(
                tensors=(TensorSpec("w", (elements,)),),
                consistency=consistency,
                lease_seconds=LEASE_SECONDS,
                on_death="drop",
            )
            with Connection(address) as connection:
                replica = connection.join("benchmark", job)
                replica.initialise({"w": np.zeros(elements, np.float32)})
                yield replica
        finally:
            process.kill()
