"""Every limit of a server: what is refused, with which sentence, and that the server goes on."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from raw import JOB, SECONDS, RawReplica, ServerProcess

from paramserver.client import Connection
from paramserver.errors import Failure, JobError, RequestError
from paramserver.events import TensorSpec
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import encode_join
from paramserver.wire.paramserver_pb2_grpc import ParameterServerStub
from paramserver.wire.refusals import is_later
from server.limits import Budget, memory_bytes
from server.turns import Turns

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def refusal_of(call: Any) -> Any:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


@pytest.mark.parametrize(
    ("option", "job", "words"),
    [
        ("--tensors-max", JOB, ("3 tensors", "at most 2", "--tensors-max")),
        ("--replicas-max", replace(JOB, replicas=3, replicas_max=3), ("3 replicas", "--replicas-max")),
        ("--job-bytes-max", JOB, ("64 bytes", "at most 2", "--job-bytes-max")),
    ],
)
def test_a_job_of_too_many_parts_is_refused(option: str, job: Any, words: tuple[str, ...]) -> None:
    with ServerProcess(option, "2") as server:
        error = refusal_of(lambda: server.stub.Join(encode_join("w", "a", job), timeout=SECONDS))
        assert error.code() is EXHAUSTED
        assert not is_later(error.trailing_metadata())
        for word in words:
            assert word in error.details()


def test_a_message_that_is_too_large_is_refused() -> None:
    with ServerProcess("--message-bytes-max", f"{2 << 20}") as server:
        error = refusal_of(lambda: server.stub.Push(iter([pb.PushRequest(chunks=[big()])]), timeout=SECONDS))
        assert error.code() is EXHAUSTED
        replica = RawReplica(server)
        replica.initialise()
        assert replica.push().version == 1
        replica.close()


def big() -> pb.Chunk:
    return pb.Chunk(slice=0, offset=0, data=bytes(3 << 20))


def test_a_gradient_that_never_fits_is_refused_for_good() -> None:
    with ServerProcess("--buffer-bytes-max", "32") as server:
        replica = RawReplica(server)
        error = refusal_of(replica.initialise)
        assert error.code() is EXHAUSTED
        assert not is_later(error.trailing_metadata())
        assert "64 bytes for one shard" in error.details()
        assert "--buffer-bytes-max" in error.details()
        replica.close()


def test_an_unfinished_round_beyond_the_limit_is_refused_for_now() -> None:
    job = replace(JOB, consistency="sync", replicas=2, replicas_max=2)
    with ServerProcess("--buffer-bytes-max", "100") as server, ExitStack() as stack:
        first, second = (RawReplica(server, job, f"w/{number}") for number in range(2))
        stack.callback(first.close)
        stack.callback(second.close)
        first.initialise()
        first.pull()
        second.pull()
        assert first.push().outcome == pb.OUTCOME_BUFFERED
        error = refusal_of(second.push)
        assert error.code() is EXHAUSTED
        assert is_later(error.trailing_metadata())
        assert "64 bytes" in error.details()


def test_the_client_sends_again_what_was_refused_for_now() -> None:
    busy = JobError("Full.", Failure.BUSY)
    from paramserver.client.channels import may_repeat

    assert may_repeat(busy)
    assert not may_repeat(JobError("Over.", Failure.ENDED))


@pytest.mark.parametrize(
    ("option", "asker", "words"),
    [("--waiting-pulls-max", 1, "1 pulls wait here"), ("--streams-max", 0, "1 open pulls and pushes")],
)
def test_pulls_beyond_a_limit_are_refused(option: str, asker: int, words: str) -> None:
    job = replace(JOB, consistency="sync", replicas=2, replicas_max=2)
    with ServerProcess(option, "1") as server, ExitStack() as stack:
        replicas = [RawReplica(server, job, f"w/{number}") for number in range(2)]
        for replica in replicas:
            stack.callback(replica.close)
        first = replicas[0]
        first.initialise()
        first.pull()
        first.push()
        first.clock += 1
        waiting = first.pull_stream()
        assert next(waiting).HasField("waiting")
        error = refusal_of(replicas[asker].pull)
        assert error.code() is EXHAUSTED
        assert words in error.details()
        waiting.cancel()


def test_connections_beyond_the_limit_are_closed_and_come_later() -> None:
    with ServerProcess("--connections-max", "1") as server:
        with grpc.insecure_channel(server.address, OWN_CONNECTION) as first:
            ParameterServerStub(first).Status(pb.StatusRequest(), timeout=SECONDS)
            with grpc.insecure_channel(server.address, OWN_CONNECTION) as second:
                error = refusal_of(lambda: ParameterServerStub(second).Status(pb.StatusRequest(), timeout=5))
                assert error.code() is grpc.StatusCode.UNAVAILABLE
        with Connection(server.address) as connection:
            assert connection.status().job is not None


def test_only_some_messages_come_at_a_time_and_slow_ones_do_not_count() -> None:
    async def run() -> None:
        turns, entered = Turns(1), asyncio.Event()

        async def second() -> None:
            async with turns.one():
                entered.set()

        async with turns.one():
            waiting = asyncio.create_task(second())
            await asyncio.sleep(0)
            assert not entered.is_set()
            await asyncio.wait_for(entered.wait(), SECONDS)  # the first has become slow, and is still here
            await waiting
        async with turns.one():  # it has given its place back once, not twice
            third = asyncio.create_task(second())
            entered.clear()
            await asyncio.sleep(0)
            assert not entered.is_set()
        await third

    asyncio.run(run())


def test_a_stream_that_says_nothing_is_ended() -> None:
    with ServerProcess("--silence-seconds", "0.2") as server:
        replica = RawReplica(server)
        replica.initialise()
        done = threading.Event()

        def header_alone() -> Any:
            yield pb.PushRequest(header=replica.push_header())
            done.wait(SECONDS)

        def nothing() -> Any:
            done.wait(SECONDS)
            yield from ()

        for messages in (header_alone(), nothing()):
            error = refusal_of(lambda messages=messages: server.stub.Push(messages, timeout=SECONDS))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "Nothing was sent for 0.2 s" in error.details()
        done.set()
        assert replica.push().version == 1
        replica.close()


def test_garbage_on_the_port_costs_nothing() -> None:
    chance = np.random.default_rng(5)
    with ServerProcess() as server:
        host, _, port = server.address.rpartition(":")
        for size in (1, 24, 1000, 100_000):
            for begin in (
                b"",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01",
            ):
                with socket.create_connection((host, int(port)), SECONDS) as garbage:
                    garbage.sendall(begin + chance.bytes(size))
        replica = RawReplica(server)
        replica.initialise()
        assert replica.push().version == 1
        replica.close()
        assert server.process.poll() is None
        assert "Traceback" not in server.log()


def test_limits_that_make_no_sense_are_refused() -> None:
    with ServerProcess("--message-bytes-max", "1000") as server:
        assert server.wait() == 2
        assert "at least 2,097,152" in server.log()


def test_a_budget_counts_for_as_long_as_somebody_holds() -> None:
    budget = Budget(100)
    first, second = budget.take(60), budget.take(40)
    with pytest.raises(JobError) as busy:
        budget.take(1)
    assert busy.value.failure is Failure.BUSY
    with pytest.raises(RequestError, match="ever holds"):
        budget.take(101)
    assert (budget.held, budget.refused) == (100, 1)
    kept = [first]
    del first
    assert budget.held == 100
    kept.clear()
    gc.collect()
    assert budget.held == 40
    del second
    assert budget.held == 0


def test_the_memory_of_this_machine_is_known() -> None:
    assert memory_bytes() > 1 << 28


OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)

OVERLOAD = TensorSpec("w", (10_000_000 // 4,))


def overload(clients: int, seconds: float, buffer_bytes: int) -> tuple[int, int, int]:
    """Let clients, each with a connection of its own, push 10 MB to one server again and again.

    Returns:
        Pushes that were applied, those that were refused for now, and the server's peak memory, bytes.
    """
    job = replace(JOB, tensors=(OVERLOAD,), replicas=clients, replicas_max=clients)
    applied: list[int] = []
    refusals: list[Any] = []
    gradient = np.zeros(OVERLOAD.shape, np.float32).tobytes()
    size = 1 << 20
    parts = [
        pb.PushRequest(chunks=[pb.Chunk(slice=0, offset=at, data=gradient[at : at + size])])
        for at in range(0, len(gradient), size)
    ]
    with ServerProcess("--buffer-bytes-max", f"{buffer_bytes}") as server, ExitStack() as stack:
        replicas = [RawReplica(server, job, f"w/{number}", OWN_CONNECTION) for number in range(clients)]
        for replica in replicas:
            stack.callback(replica.close)
        header = replicas[0].initialise_messages(0)[0].header
        stream = iter([pb.InitialiseRequest(header=header), *initial(gradient, size)])
        server.stub.Initialise(stream, timeout=SECONDS)

        def push_on(index: int) -> None:
            replica = replicas[index]
            while time.monotonic() < end:
                try:
                    replica.send([pb.PushRequest(header=replica.push_header()), *parts])
                except grpc.RpcError as error:
                    refusals.append(error)
                else:
                    replica.clock += 1
                    applied.append(index)

        end = time.monotonic() + seconds
        threads = [threading.Thread(target=push_on, args=(index,)) for index in range(clients)]
        for thread in threads:
            thread.start()
        with Connection(server.address) as connection:
            while any(thread.is_alive() for thread in threads):
                assert connection.status(repeat=False).job is not None  # it answers all the time
                threads[0].join(0.05)
        for thread in threads:
            thread.join()
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024
    for error in refusals:
        assert error.code() is EXHAUSTED, error.details()
        assert "Send it again later" in error.details()
        assert is_later(error.trailing_metadata())
    return len(applied), len(refusals), peak


def initial(data: bytes, size: int) -> list[pb.InitialiseRequest]:
    return [
        pb.InitialiseRequest(chunks=[pb.Chunk(slice=0, offset=at, data=data[at : at + size])])
        for at in range(0, len(data), size)
    ]


@pytest.mark.parametrize(
    ("clients", "seconds", "buffer_bytes"),
    [
        (20, 5.0, 40_000_000),
        pytest.param(200, 30.0, 200_000_000, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_an_overload_is_refused_before_memory_is_gone(
    clients: int, seconds: float, buffer_bytes: int
) -> None:
    applied, refused, peak = overload(clients, seconds, buffer_bytes)
    most = 1.5 * buffer_bytes + 150e6 + 0.5e6 * clients
    shown = f"peak {peak / 1e6:.0f} of {most / 1e6:.0f} MB"
    print(f"{clients} clients: {applied} applied, {refused} refused, {shown}")
    assert applied
    assert refused
    assert peak < most
