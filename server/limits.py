"""What a server takes at most, and the count of what it holds. Confined to the event loop."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from paramserver.arguments import positive, seconds
from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.transfer import CHUNK_BYTES_MAX

MESSAGE_BYTES_MIN = 2 * CHUNK_BYTES_MAX
"""Of --message-bytes-max: a chunk and what stands around it have to fit."""

TURNS_MIN, TURNS_MAX = 4, 64
"""Messages under way: as many as keep a few fast connections busy, and no more than are of use to many."""

GRPC_MAX = 2**31 - 1
"""The largest number that an option of gRPC may have."""

_MEMORY_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes at most; each is an option.

    Attributes:
        job_bytes_max: bytes of weights of a job.
        tensors_max: tensors of a job.
        replicas_max: replicas of a job.
        message_bytes_max: of one message.
        buffer_bytes_max: bytes of gradients and first weights that arrive, or wait for their round.
        waiting_pulls_max: pulls that wait.
        streams_max: open pulls, pushes and initialises of one connection.
        connections_max: connections.
        silence_seconds: without a byte from or to the other side, after which a stream is ended.
    """

    job_bytes_max: int
    tensors_max: int
    replicas_max: int
    message_bytes_max: int
    buffer_bytes_max: int
    waiting_pulls_max: int
    streams_max: int
    connections_max: int
    silence_seconds: float

    @classmethod
    def pop_from(cls, given: dict[str, Any]) -> Limits:
        """Take the limits out of all options.

        Raises:
            RequestError: messages could not carry a chunk.
        """
        limits = cls(**{field.name: given.pop(field.name) for field in fields(cls)})
        if limits.message_bytes_max < MESSAGE_BYTES_MIN:
            raise RequestError(
                f"--message-bytes-max is {limits.message_bytes_max:,}, and has to be at least "
                f"{MESSAGE_BYTES_MIN:,}: a chunk of {CHUNK_BYTES_MAX:,} bytes and what stands around it."
            )
        return limits

    def check_job(self, job: pb.JobSpec) -> None:
        """Refuse a job of too many parts before anything is made of it; its bytes are looked at later.

        Raises:
            RequestError: it has too many tensors or replicas.
        """
        for what, found, most in (
            ("tensors", len(job.tensors), self.tensors_max),
            ("replicas", max(job.replicas, job.replicas_max), self.replicas_max),
        ):
            if found > most:
                raise RequestError(
                    f"The job has {found:,} {what}, and this server takes at most {most:,}. Start it with a "
                    f"larger --{what}-max if that is right.",
                    Fault.EXHAUSTED,
                )

    @property
    def turns(self) -> int:
        """Say how many messages with tensors may come, and how many may go, at a time.

        An eighth of the memory for gradients is for what comes, and as much for what goes: of a message there
        are up to two copies, as gRPC has it and as Python does.
        """
        return min(max(self.buffer_bytes_max // 8 // (2 * CHUNK_BYTES_MAX), TURNS_MIN), TURNS_MAX)

    def grpc_options(self) -> tuple[tuple[str, int], ...]:
        """Return what gRPC itself is to see to."""
        return (
            ("grpc.max_receive_message_length", min(self.message_bytes_max, GRPC_MAX)),
            # Above ours, which says so; from here on gRPC lets the other side wait.
            ("grpc.max_concurrent_streams", min(2 * self.streams_max, GRPC_MAX)),
            ("grpc.max_allowed_incoming_connections", min(self.connections_max, GRPC_MAX)),
        )


def add_limit_options(add: Callable[..., Any]) -> None:
    """Add an option for each limit to the server's parser."""

    def most(option: str, metavar: str, default: int, what: str, told: str = "") -> None:
        shown = told or f"{default:,}"
        add(option, metavar=metavar, type=positive, default=default, help=f"{what} (default: {shown})")

    most("--job-bytes-max", "BYTES", 1 << 40, "most bytes of weights that a job may have", "2^40")
    most("--tensors-max", "N", 100_000, "most tensors that a job may have")
    most("--replicas-max", "N", 100_000, "most replicas that a job may have")
    most("--message-bytes-max", "BYTES", 4 << 20, "largest message that is taken", "2^22")
    most(
        "--buffer-bytes-max",
        "BYTES",
        memory_bytes() // 2,
        "most bytes of gradients that arrive or wait for their round; more are refused and sent again",
        "half of this machine's or container's memory",
    )
    most("--waiting-pulls-max", "N", 100_000, "most pulls that may wait")
    most("--streams-max", "N", 10_000, "most pulls and pushes of one connection at a time")
    most("--connections-max", "N", 10_000, "most connections; more are closed at once, and tried again")
    add(
        "--silence-seconds",
        metavar="SECONDS",
        type=seconds,
        default=60.0,
        help="end a pull or push whose other side sends or takes nothing for so long (default: 60)",
    )


def memory_bytes() -> int:
    """Return how much memory there is for this process: that of its container, or of the machine."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _MEMORY_FILES:
        try:
            found = Path(name).read_text().strip()
        except OSError:
            continue
        if found.isdecimal():
            total = min(total, int(found))
    return total


class Held(dict[Any, Any]):
    """Arrays by slice whose bytes count for as long as anybody holds this mapping."""

    __slots__ = ("__weakref__",)


class Budget:
    """Counts bytes that are being received or wait, and refuses what would be too many.

    Args:
        bytes_max: at the same time.

    Attributes:
        refused: how often it has.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = 0
        self._freed: deque[int] = deque()  # a mapping may be dropped in any thread; appending is atomic
        self.refused = 0

    @property
    def held(self) -> int:
        """Return how many bytes are held now."""
        while self._freed:
            self._held -= self._freed.popleft()
        return self._held

    def take(self, size: int) -> Held:
        """Count these bytes until the mapping that is returned is dropped.

        Raises:
            RequestError: they are more than there may ever be.
            JobError: they are too many now (``BUSY``).
        """
        if size > self._bytes_max:
            raise RequestError(
                f"{size:,} bytes for one shard are more than this server ever holds, {self._bytes_max:,}. "
                "Use more shards, or raise --buffer-bytes-max.",
                Fault.EXHAUSTED,
            )
        if self.held + size > self._bytes_max:
            self.refused += 1
            raise JobError(
                f"This server holds {self._held:,} bytes of gradients that arrive or wait for their round; "
                f"{size:,} more would exceed its limit of {self._bytes_max:,}. Send it again later; if "
                "rounds never complete, raise --buffer-bytes-max.",
                Failure.BUSY,
            )
        self._held += size
        held = Held()
        weakref.finalize(held, self._freed.append, size).atexit = False
        return held


class Places:
    """Counts who is in: streams of each connection, and pulls that wait.

    Args:
        limits: how many may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[str, int] = {}
        self._waiting = 0

    @contextmanager
    def stream(self, peer: str) -> Iterator[None]:
        """Count a stream of a connection while the block runs.

        Raises:
            JobError: it has too many (``BUSY``).
        """
        count = self._streams.get(peer, 0)
        if count >= self._limits.streams_max:
            raise JobError(
                f"This connection has {count:,} open pulls and pushes, which is the limit. Wait for some "
                "to end, or raise --streams-max.",
                Failure.BUSY,
            )
        self._streams[peer] = count + 1
        try:
            yield
        finally:
            count = self._streams[peer] - 1
            if count:
                self._streams[peer] = count
            else:
                del self._streams[peer]

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a pull that waits while the block runs.

        Raises:
            JobError: too many do (``BUSY``).
        """
        if self._waiting >= self._limits.waiting_pulls_max:
            raise JobError(
                f"{self._waiting:,} pulls wait here, which is the limit. Pull later, or raise "
                "--waiting-pulls-max.",
                Failure.BUSY,
            )
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
