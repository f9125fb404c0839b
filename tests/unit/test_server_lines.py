"""A line between two servers brings every message once and in order, whatever its connections do."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from paramserver.errors import Failure, JobError, RequestError
from paramserver.wire import paramserver_pb2 as pb
from server.lines import ACKNOWLEDGE_EVERY, Line, send_plainly

MESSAGES = 300


class Ends:
    """Two ends, and connections between them that break by chance."""

    def __init__(self, seed: int) -> None:
        self.up, self.down = Line(pb.LinkUp), Line(pb.LinkDown)
        self.came: dict[str, list[int]] = {"up": [], "down": []}
        self.connections = 0
        self._chance = random.Random(seed)

    async def connect(self) -> None:
        """Carry both ways until a message is lost or all are there."""
        self.connections += 1
        self.up.resume(self.down.received)
        self.down.resume(self.up.received)
        ways = [
            asyncio.create_task(self.up.carry(self._send, self._to(self.down, "up"))),
            asyncio.create_task(self.down.carry(self._send, self._to(self.up, "down"))),
        ]
        done, pending = await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        for task in pending:
            task.cancel()
        for task in done:
            if (error := task.exception()) is not None and not isinstance(error, JobError):
                raise error

    def _to(self, other: Line, way: str) -> Any:
        async def write(message: Any) -> None:
            copy = type(message).FromString(message.SerializeToString())
            if other.take(copy):
                self.came[way].append(copy.staged.shard if way == "up" else copy.number)

        return write

    async def _send(self, write: Any, message: Any) -> None:
        await asyncio.sleep(0)
        point = self._chance.random()
        if point < 0.1:
            raise JobError("Lost.", Failure.UNAVAILABLE)
        for _ in range(2 if point < 0.3 else 1):
            await write(message)
        if point > 0.95:
            raise JobError("Cut.", Failure.UNAVAILABLE)


@pytest.mark.parametrize("seed", range(5))
def test_every_message_comes_once_and_in_order(seed: int) -> None:
    async def run() -> Ends:
        ends = Ends(seed)
        for number in range(MESSAGES):
            ends.up.put(pb.LinkUp(staged=pb.Staged(shard=number)))
            ends.down.put(pb.LinkDown(number=number))
        ends.up.close()
        ends.down.close()
        while not all(len(came) >= MESSAGES for came in ends.came.values()):
            await ends.connect()
        return ends

    ends = asyncio.run(run())
    assert ends.came == {"up": list(range(MESSAGES)), "down": list(range(MESSAGES))}
    assert ends.connections > 10


def test_what_the_other_end_has_is_not_kept() -> None:
    async def run() -> tuple[Line, Line]:
        sender, receiver = Line(pb.LinkUp), Line(pb.LinkDown)
        for number in range(ACKNOWLEDGE_EVERY):
            sender.put(pb.LinkUp(staged=pb.Staged(shard=number)))
        sender.close()
        receiver.close()
        written: list[Any] = []

        async def write(message: Any) -> None:
            written.append(message)
            if isinstance(message, pb.LinkUp):
                receiver.take(message)
            else:
                sender.take(message)

        await sender.carry(send_plainly, write)
        await receiver.carry(send_plainly, write)
        # There was nothing else to say, so one message said that all are here.
        assert [type(message) for message in written] == [pb.LinkUp] * ACKNOWLEDGE_EVERY + [pb.LinkDown]
        return sender, receiver

    sender, receiver = asyncio.run(run())
    assert receiver.received == ACKNOWLEDGE_EVERY
    assert not sender._kept


def test_a_gap_breaks_the_connection_and_nonsense_the_link() -> None:
    line = Line(pb.LinkUp)
    assert line.take(pb.LinkDown(place=1))
    assert not line.take(pb.LinkDown(place=1))
    with pytest.raises(JobError, match="is missing") as missing:
        line.take(pb.LinkDown(place=3))
    assert missing.value.failure is Failure.UNAVAILABLE
    with pytest.raises(RequestError, match="has 5 messages, and was sent 0"):
        line.take(pb.LinkDown(place=2, received=5))
    with pytest.raises(RequestError, match="has 1 messages"):
        line.resume(1)


def test_a_new_other_end_gets_only_what_means_something_to_it() -> None:
    line = Line(pb.LinkUp)
    for shard in range(3):
        line.put(pb.LinkUp(staged=pb.Staged(shard=shard)))
    void = line.newest
    line.put(pb.LinkUp(staged=pb.Staged(shard=3)))
    line.take(pb.LinkDown(place=1))
    line.begin_anew(void)
    assert (line.newest, line.received) == (1, 0)
    assert [(message.place, message.staged.shard) for message in line._kept] == [(1, 3)]
