"""The lock and its doorway, the lane to it, and memory that is used again: without a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from paramserver import events as ev
from paramserver.errors import JobError, RequestError
from paramserver.shard import Shard
from paramserver.wire.buffers import SMALL_ELEMENTS, Buffers
from server.host import Broken, Lane, ShardHost
from server.requests import Requests

SECONDS = 20.0
PART = ev.Slice("w", 0, 8, 0)
JOB = ev.JobSpec((ev.TensorSpec("w", (8,)),), consistency="async", learning_rate=1.0, replicas_max=64)


def begun(job: ev.JobSpec = JOB, replicas: int = 1) -> ShardHost:
    """Return a host whose shard has zeros for weights and that many live replicas."""
    host = ShardHost(Shard(0))
    members = tuple(ev.Member(rank, 1) for rank in range(replicas))
    events: list[ev.ShardEvent] = [
        ev.JobAnnounced(1, job, (PART,)),
        ev.MembershipChanged(2, members, started=True, expected=replicas),
        ev.InitialiseReceived(0, "i", {PART: np.zeros(8, np.float32)}),
        ev.Sealed(3, "i"),
    ]
    for event in events:
        host.handle(event)
    list(host.effects())
    return host


def push(rank: int, sequence: int, request: int = 0, version: int = 0) -> ev.PushReceived:
    gradient: Mapping[ev.Slice, Any] = {PART: np.ones(8, np.float32)}
    return ev.PushReceived(request, ev.Replica(rank, 1), 0, sequence, version, 1, gradient)


def weights(host: ShardHost) -> ev.Snapshot:
    host.handle(ev.PullReceived(-1, None))
    (granted,) = (effect for effect in host.effects() if isinstance(effect, ev.PullGranted))
    return granted.snapshot


def test_no_update_of_many_threads_is_lost_and_duplicates_are_counted() -> None:
    replicas, steps = 16, 40
    host = begun(replicas=replicas)

    def run(rank: int) -> None:
        for step in range(steps):
            host.handle(push(rank, step))
            if step % 10 == 0:
                host.handle(push(rank, step))

    with ThreadPoolExecutor(replicas) as pool:
        list(pool.map(run, range(replicas)))
    assert weights(host).version == replicas * steps
    assert set(weights(host).values[PART].tolist()) == {-float(replicas * steps)}
    statistics = host.statistics()
    assert statistics.shard.pushes == {"applied": replicas * steps, "duplicate": replicas * steps // 10}
    assert statistics.lock_hold_seconds > 0


def test_effects_leave_in_the_order_of_the_shard() -> None:
    host = begun(replicas=8)

    def run(rank: int) -> None:
        for step in range(50):
            host.handle(push(rank, step))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    versions = [effect.verdict.version for effect in host.effects() if isinstance(effect, ev.PushAnswered)]
    assert versions == list(range(1, 401))


class Blocking(Shard):
    """A shard in which pushes stop until they are let go."""

    def __init__(self) -> None:
        super().__init__(0)
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.handled: list[str] = []

    def handle(self, event: ev.ShardEvent, now: float) -> list[ev.ShardEffect]:
        self.handled.append(type(event).__name__)
        if isinstance(event, ev.PushReceived):
            self.entered.set()
            assert self.go_on.wait(SECONDS)
        return [ev.Refused(getattr(event, "request", 0), "No.")]


def test_nothing_that_never_blocks_waits_for_the_lock() -> None:
    shard = Blocking()
    host = ShardHost(shard)
    thread = threading.Thread(target=host.handle, args=(push(0, 0),))
    thread.start()
    assert shard.entered.wait(SECONDS)
    assert not host.try_handle(ev.PullReceived(1, None))
    assert host.try_statistics() is None
    shard.go_on.set()
    thread.join(SECONDS)
    assert host.try_handle(ev.PullReceived(1, None))
    assert host.try_statistics() is not None


def test_a_lane_keeps_the_loop_free_and_all_events_in_order() -> None:
    async def scenario() -> tuple[list[str], list[int]]:
        shard = Blocking()
        delivered: list[int] = []
        all_here = asyncio.Event()
        loop = asyncio.get_running_loop()
        home = threading.get_ident()

        def deliver(effect: Any) -> None:
            assert threading.get_ident() == home
            delivered.append(effect.request)
            if len(delivered) == 4:
                all_here.set()

        with ThreadPoolExecutor(2) as pool:
            lane = Lane(ShardHost(shard), pool, loop.call_soon_threadsafe, deliver)
            lane.submit(ev.PullReceived(1, None), cheap=True)
            assert delivered == [1]  # at once, without a thread
            lane.submit(push(0, 0, request=2), cheap=False)
            lane.submit(ev.PullReceived(3, None), cheap=True)
            lane.submit(ev.PullReceived(4, None), cheap=True)
            assert delivered == [1]  # the loop goes on while the push is inside
            shard.go_on.set()
            await asyncio.wait_for(all_here.wait(), SECONDS)
        return shard.handled, delivered

    handled, delivered = asyncio.run(scenario())
    assert handled == ["PullReceived", "PushReceived", "PullReceived", "PullReceived"]
    assert delivered == [1, 2, 3, 4]


def test_a_mistake_inside_the_shard_is_an_effect_and_the_lock_is_free_again() -> None:
    host = begun()
    host.handle(ev.Sealed(9, "i"))  # out of order: an honest coordinator never does that
    (broken,) = host.effects()
    assert isinstance(broken, Broken)
    assert isinstance(broken.error, AssertionError)
    assert host.try_handle(ev.PullReceived(1, None))


def test_answers_reach_who_asks_and_nobody_else() -> None:
    async def scenario() -> None:
        requests = Requests(asyncio.get_running_loop())
        granted, refused, ended, gone = (requests.open() for _ in range(4))
        effect = ev.Acknowledged(granted.number)
        requests.settle(granted.number, effect)
        assert await granted.answer is effect
        requests.settle(refused.number, ev.Refused(refused.number, "Why."))
        with pytest.raises(RequestError, match="Why"):
            await refused.answer
        assert requests.close(gone)
        requests.settle(gone.number, ev.Acknowledged(gone.number))
        assert not gone.answer.done()
        requests.fail_all(JobError("Over."))
        with pytest.raises(JobError, match="Over"):
            await ended.answer
        assert not requests.close(ended)
        assert len(requests) == 0

    asyncio.run(scenario())


def test_memory_is_used_again_only_when_no_view_of_it_is_left() -> None:
    buffers, shape = Buffers(), (2, SMALL_ELEMENTS)
    first = buffers.empty(shape)
    first[...] = 1
    row = first[1:]
    held = first.reshape(-1).data.cast("B")
    del first
    second = buffers.empty(shape)
    second[...] = 2
    assert row.min() == 1
    del row
    third = buffers.empty(shape)
    third[...] = 3
    assert held[:4] == np.float32(1).tobytes()  # a memoryview holds it, too
    assert buffers.statistics() == {"bytes": 3 * second.nbytes, "idle_bytes": 0}
    del held
    assert buffers.statistics()["idle_bytes"] == second.nbytes
    fourth = buffers.empty(shape)
    assert buffers.statistics() == {"bytes": 3 * second.nbytes, "idle_bytes": 0}
    assert not np.may_share_memory(fourth, second)
    assert not np.may_share_memory(fourth, third)


def test_small_arrays_and_other_shapes_of_the_same_size() -> None:
    buffers = Buffers()
    assert buffers.empty(()).shape == ()
    assert buffers.empty((3, 2)).dtype == np.float32
    assert buffers.statistics()["bytes"] == 0
    large = buffers.empty((4, SMALL_ELEMENTS))
    large.flags.writeable = False  # what a shard publishes
    del large
    again = buffers.empty((SMALL_ELEMENTS, 4))
    assert again.shape == (SMALL_ELEMENTS, 4)
    assert again.flags.writeable
    assert again.flags.c_contiguous
    assert buffers.statistics()["bytes"] == again.nbytes
