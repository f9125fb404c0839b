"""Messages that are almost right: a seeded fuzzer over valid calls, and bytes that are no call at all."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from raw import RawReplica, ServerProcess, chunks

from paramserver.events import Counters
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import encode_join, encode_replica
from paramserver.wire.replicas import encode_leave

CALL_SECONDS = 20.0
"""A call that takes longer counts as one that hangs: each is answered in a millisecond."""

AT_ONCE = 16
SERVICE = "/paramserver.v1.ParameterServer/"
LINK = "/paramserver.v1.Internal/Link"
HUGE = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Mutation = Callable[[bytes], bytes]


class Mutator:
    """Makes messages almost right.

    Args:
        rng: all chance comes from it.
        others: right messages of any kind, of which pieces may get into others.
    """

    def __init__(self, rng: random.Random, others: list[bytes]) -> None:
        self._rng = rng
        self._others = others
        self._mutations: list[Mutation] = [
            self._flip,
            self._truncate,
            self._insert,
            self._repeat,
            self._huge,
            self._fields,
            self._fields,
            self._splice,
        ]

    def mutate(self, raw: bytes) -> bytes:
        """Return bytes that are no longer what they were, in one to three places."""
        for _ in range(self._rng.choice((1, 1, 2, 3))):
            raw = self._rng.choice(self._mutations)(raw)
        return raw

    def mutate_fields(self, raw: bytes) -> bytes:
        """Return a message that can be read, with fields swapped, dropped, repeated or of other values."""
        for _ in range(self._rng.choice((1, 1, 2, 3))):
            raw = self._fields(raw)
        return raw

    def _flip(self, raw: bytes) -> bytes:
        changed = bytearray(raw)
        for _ in range(self._rng.randint(1, 8)):
            if changed:
                changed[self._rng.randrange(len(changed))] ^= 1 << self._rng.randrange(8)
        return bytes(changed)

    def _truncate(self, raw: bytes) -> bytes:
        return raw[: self._rng.randint(0, len(raw))]

    def _insert(self, raw: bytes) -> bytes:
        at = self._rng.randint(0, len(raw))
        return raw[:at] + self._rng.randbytes(self._rng.randint(1, 40)) + raw[at:]

    def _repeat(self, raw: bytes) -> bytes:
        at = self._rng.randint(0, len(raw))
        return (
            raw[:at] + raw[max(0, at - self._rng.randint(1, 60)) : at] * self._rng.randint(1, 30) + raw[at:]
        )

    def _huge(self, raw: bytes) -> bytes:
        at = self._rng.randint(0, len(raw))
        return raw[:at] + HUGE[self._rng.randrange(10) :] + raw[at + 1 :]

    def _splice(self, raw: bytes) -> bytes:
        other = self._rng.choice(self._others)
        return raw[: self._rng.randint(0, len(raw))] + other[self._rng.randint(0, len(other)) :]

    def _fields(self, raw: bytes) -> bytes:
        """Swap, drop or repeat whole fields, here or inside one of them."""
        try:
            fields = split_fields(raw)
        except (IndexError, ValueError):
            return self._flip(raw)
        if not fields:
            return self._insert(raw)
        at = self._rng.randrange(len(fields))
        tag, body = fields[at]
        match self._rng.randrange(4):
            case 0:
                fields[at], fields[0] = fields[0], fields[at]
            case 1:
                del fields[at]
            case 2:
                fields.insert(at, fields[at])
            case _ if tag & 7 == 2:
                fields[at] = (tag, self._fields(body))
            case _:
                fields[at] = (tag, varint(self._rng.getrandbits(self._rng.choice((1, 8, 31, 32, 63, 64)))))
        return b"".join(
            varint(tag) + (varint(len(body)) if tag & 7 == 2 else b"") + body for tag, body in fields
        )


class Fuzzer:
    """Sends mutated messages to one server.

    Args:
        server: with a job that has begun.
        replica: one of its replicas.
        seed: of all chance.

    Attributes:
        statuses: how often each status came.
        applied: pushes that were right after all, and were applied.
    """

    def __init__(self, server: ServerProcess, replica: RawReplica, seed: int) -> None:
        self.statuses: Counter[str] = Counter()
        self.applied = 0
        self._server = server
        self._rng = random.Random(seed)
        self._channel = server.channel
        self._bases = valid_messages(replica)
        self._mutator = Mutator(self._rng, [raw for _, messages in self._bases for raw in messages])

    def run(self, messages: int) -> None:
        """Send so many, some at once, and look at each answer."""
        sent = 0
        while sent < messages:
            calls = [self._begin() for _ in range(min(AT_ONCE, messages - sent))]
            sent += len(calls)
            for method, call in calls:
                self._judge(method, call)

    def knock(self, times: int) -> None:
        """Send bytes that are no call to the port, and go away at once or without reading."""
        host, _, port = self._server.address.rpartition(":")
        for _ in range(times):
            with socket.create_connection((host, int(port)), CALL_SECONDS) as connection:
                noise = self._rng.randbytes(self._rng.choice((1, 9, 100, 5000)))
                try:
                    connection.sendall(
                        self._rng.choice((noise, PREFACE + noise, PREFACE + _frames(self._rng)))
                    )
                except OSError:
                    self.statuses["closed by the server"] += 1

    def _begin(self) -> tuple[str, Any]:
        method, messages = self._rng.choice(self._bases)
        mutated = [*messages]
        place = self._rng.randrange(len(mutated))
        mutated[place] = self._mutator.mutate(mutated[place])
        if method in ("Push", "Initialise"):
            return method, self._channel.stream_unary(SERVICE + method).future(
                iter(mutated), timeout=CALL_SECONDS
            )
        if method == "Link":
            return method, self._channel.stream_stream(LINK)(iter(mutated), timeout=CALL_SECONDS)
        if method == "Pull":
            return method, self._channel.unary_stream(SERVICE + method)(mutated[0], timeout=CALL_SECONDS)
        return method, self._channel.unary_unary(SERVICE + method).future(mutated[0], timeout=CALL_SECONDS)

    def _judge(self, method: str, call: Any) -> None:
        try:
            answer = list(call) if method in ("Pull", "Link") else call.result()
        except grpc.RpcError as error:
            code, details = error.code(), error.details()  # type: ignore[attr-defined]
            self.statuses[code.name] += 1
            bad = (grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED)
            assert code not in bad, f"{method}: {code.name}: {details}"
            return
        self.statuses["OK"] += 1
        if method == "Push":
            verdict = pb.Verdict.FromString(answer)
            self.applied += verdict.outcome == pb.OUTCOME_APPLIED and not verdict.duplicate


def valid_messages(replica: RawReplica) -> list[tuple[str, list[bytes]]]:
    """Return one right call of each kind, as serialised messages by method.

    None of them would change anything: the push has been applied already, and nobody leaves who is there.
    """
    gone = pb.Replica(rank=100, incarnation=9)
    old = pb.PushRequest(header=replica.push_header(sequence=replica.clock - 1))
    parts = chunks(replica.constant(0, 1.0))
    beat = pb.Beat(replica=encode_replica(replica.replica), clock=replica.clock, steps=9)
    leave = encode_leave(replica.replica, Counters({"computed": 3}))
    leave.replica.CopyFrom(gone)
    score = pb.ScoreRequest(split="validation", version=1, rounds=-1, loss=0.5, accuracy=0.5, samples=3)
    hello = pb.LinkUp(hello=pb.Hello(server=1, address="127.0.0.1:1", shards=1))
    pushed = [old, *(pb.PushRequest(chunks=[part]) for part in parts)]
    messages: list[tuple[str, list[Any]]] = [
        ("Push", pushed),
        ("Push", [pb.PushRequest(header=old.header, chunks=parts)]),
        ("Initialise", replica.initialise_messages(0)),
        ("Pull", [replica.pull_request()]),
        ("Pull", [pb.PullRequest(shard=0)]),
        ("Join", [encode_join("w/0", "attempt of w/0", replica.job)]),
        ("Join", [encode_join("observer", "a", None)]),
        ("Heartbeat", [pb.HeartbeatRequest(beats=[beat])]),
        ("Leave", [leave]),
        ("Score", [score]),
        ("Status", [pb.StatusRequest()]),
        ("Link", [hello]),
    ]
    return [(method, [each.SerializeToString() for each in group]) for method, group in messages]


def split_fields(raw: bytes) -> list[tuple[int, bytes]]:
    """Return the fields of a message: tag, and body without its length."""
    fields, at = [], 0
    while at < len(raw):
        tag, at = _read_varint(raw, at)
        begin = at
        if tag & 7 == 0:
            _, at = _read_varint(raw, at)
        elif tag & 7 == 2:
            size, begin = _read_varint(raw, at)
            at = begin + size
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError("a group")
        if at > len(raw):
            raise ValueError("cut off")
        fields.append((tag, raw[begin:at]))
    return fields


def varint(value: int) -> bytes:
    """Return a number in groups of seven bits."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def resident_bytes(pid: int) -> int:
    """Return the memory of a process; 0 where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (raw[at] & 0x7F) << shift
        at += 1
        if raw[at - 1] < 0x80:
            return value, at
        shift += 7


def _frames(rng: random.Random) -> bytes:
    """Return some HTTP/2 frames with random contents."""
    frames = [b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"]
    for _ in range(rng.randint(1, 8)):
        body = rng.randbytes(rng.randint(0, 200))
        kind, flags, stream = rng.randrange(12), rng.randrange(256), rng.getrandbits(31)
        frames.append(len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body)
    return b"".join(frames)
