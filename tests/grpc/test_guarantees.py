"""What the servers promise, under many threads: nothing lost, nothing torn, one result, nobody starved."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from raw import SECONDS, ServerProcess

from paramserver import events as ev
from paramserver.client import Connection, Heartbeats, ReplicaClient
from paramserver.placement import place
from paramserver.shard import Shard
from paramserver.types import tensors_sha256
from server.host import ShardHost

pytestmark = pytest.mark.slow


def job(elements: int, consistency: str = "async", replicas: int = 1) -> ev.JobSpec:
    """Return a job whose weights go down by exactly the gradient."""
    return ev.JobSpec(
        tensors=(ev.TensorSpec("w", (elements,)),),
        consistency=consistency,
        learning_rate=1.0,
        replicas=replicas,
        replicas_max=replicas,
        on_death="drop",
        lease_seconds=600,
    )


@contextmanager
def joined(shards: int, spec: ev.JobSpec) -> Iterator[tuple[Connection, list[ReplicaClient]]]:
    """Run a server and join all replicas of a job, with weights of zero."""
    with ServerProcess("--shards", f"{shards}") as server, Connection(server.address) as connection:
        replicas = [connection.join(f"w/{index}", spec) for index in range(spec.replicas)]
        replicas[0].initialise({t.key: np.zeros(t.shape, np.float32) for t in spec.tensors})
        yield connection, replicas


def together(work: Callable[[int], None], threads: int) -> None:
    """Run work(0), work(1), … in threads; fail if one of them does or does not end."""
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert failures == []


def test_nothing_is_lost() -> None:
    pushes, threads = 2000, 64
    gradient = {"w": np.ones(300, np.float32)}
    outcomes: Counter[str] = Counter()
    counting = threading.Lock()

    def push_all(index: int) -> None:
        replica = replicas[index]
        for clock, number in enumerate(range(index, pushes, threads)):
            replica.pull(clock)
            verdicts = [replica.push(clock, gradient, samples=1)]
            if number % 10 == 9:
                verdicts.append(replica.push(clock, gradient, samples=1))
            with counting:
                outcomes.update("duplicate" if v.duplicate else v.outcome.value for v in verdicts)

    with joined(3, job(300, replicas=threads)) as (connection, replicas):
        together(push_all, threads)
        observer = connection.observe("look")
        final = observer.pull()
        shards = connection.status().shards
    assert outcomes == {"applied": pushes, "duplicate": pushes // 10}
    np.testing.assert_array_equal(final.values["w"], np.full(300, -pushes, np.float32))
    assert final.versions == (pushes,) * 3
    for shard in shards:
        assert shard.statistics.pushes["applied"] == pushes
        assert shard.statistics.pushes["duplicate"] == pushes // 10


def test_nothing_is_torn() -> None:
    elements, shards, updates = 1 << 20, 2, 60
    spec = job(elements)
    parts = place(spec.tensors, shards)
    reads: list[int] = []
    done = threading.Event()

    def hammer(index: int) -> None:
        if index == 0:
            for clock in range(updates):
                replicas[0].pull(clock)
                replicas[0].push(clock, {"w": np.ones(elements, np.float32)}, samples=1)
            done.set()
            return
        observer = connection.observe(f"reader {index}")
        while not done.is_set():
            pulled = observer.pull()
            for part in parts:
                values = pulled.values["w"][part.row_begin : part.row_end]
                version = pulled.versions[part.shard]
                assert (values == -version).all(), (
                    f"shard {part.shard}, version {version}: {np.unique(values)}"
                )
            reads.append(pulled.versions[0])

    with joined(shards, spec) as (connection, replicas):
        together(hammer, 4)
    assert len(set(reads)) > 5  # the readers did see the weights move


def test_thousands_of_calls_at_once_are_all_answered() -> None:
    shards, replicas_count = 500, 4
    gradient = {"w": np.ones(shards, np.float32)}

    def step(index: int) -> None:
        replicas[index].pull(0)
        replicas[index].push(0, gradient, samples=1)
        pulled = replicas[index].pull(1)
        assert (pulled.values["w"] == -1).all()

    with joined(shards, job(shards, "sync", replicas_count)) as (_, replicas):
        together(step, replicas_count)


def test_the_threaded_host_gives_one_result() -> None:
    hashes = {_threaded_rounds(seed) for seed in range(20)}
    assert len(hashes) == 1


def _threaded_rounds(seed: int, replicas: int = 4, rounds: int = 10, elements: int = 1000) -> str:
    """Let threads push to one shard in shuffled orders, for some rounds; return the weights' hash."""
    spec = job(elements, "sync", replicas)
    part = ev.Slice("w", 0, elements, 0)
    host = ShardHost(Shard(0))
    members = tuple(ev.Member(rank, 1) for rank in range(replicas))
    host.handle(ev.JobAnnounced(1, spec, (part,)))
    host.handle(ev.MembershipChanged(2, members, started=True, expected=replicas))
    host.handle(ev.InitialiseReceived(0, "i", {part: np.zeros(elements, np.float32)}))
    host.handle(ev.Sealed(3, "i"))
    shuffled = np.random.default_rng(seed)
    clock = iter(range(rounds))

    def close() -> None:
        number = next(clock)
        host.handle(ev.RoundClosed(4 + number, number, tuple(range(replicas))))

    barrier = threading.Barrier(replicas, action=close)
    order = [shuffled.permutation(replicas) for _ in range(rounds)]
    turns = [[threading.Event() for _ in range(replicas + 1)] for _ in range(rounds)]

    def push_all(rank: int) -> None:
        own = np.random.default_rng(rank)
        for number in range(rounds):
            # Values of very different sizes, so that another order of the sum would be other bytes.
            gradient = (own.standard_normal(elements) * 10.0 ** own.integers(-3, 4, elements)).astype(
                np.float32
            )
            place_in_order = int(np.flatnonzero(order[number] == rank)[0])
            if place_in_order:
                assert turns[number][place_in_order].wait(SECONDS)
            host.handle(
                ev.PushReceived(rank, ev.Replica(rank, 1), 0, number, number, rank + 1, {part: gradient})
            )
            turns[number][place_in_order + 1].set()
            barrier.wait(SECONDS)

    together(push_all, replicas)
    host.handle(ev.PullReceived(99, None))
    host.handle(ev.JobEnded(4 + rounds))
    host.handle(ev.PullReceived(100, None))
    snapshots = [e.snapshot for e in host.effects() if isinstance(e, ev.PullGranted) and e.request == 100]
    assert snapshots[0].rounds == rounds
    return tensors_sha256({"w": snapshots[0].values[part]})


def test_heartbeats_are_answered_while_300_mb_travel() -> None:
    elements, lease_seconds = 75_000_000, 10.0
    spec = job(elements)
    answered: list[float] = []

    with joined(1, spec) as (connection, replicas):
        replica = replicas[0]

        def beats() -> list[ev.Beat]:
            answered.append(time.monotonic())  # asked for the next one: the one before has been answered
            return [replica.beat()]

        with Heartbeats(connection, lease_seconds / 50, beats):
            began = time.monotonic()
            replica.pull(0)
            verdict = replica.push(0, {"w": np.ones(elements, np.float32)}, samples=1)
            ended = time.monotonic()
    assert verdict.outcome is ev.Outcome.APPLIED
    during = [began, *(when for when in answered if began < when < ended), ended]
    assert max(later - earlier for earlier, later in pairwise(during)) < lease_seconds / 2


@pytest.mark.long
def test_a_tensor_of_400_mb_is_pulled_and_pushed() -> None:
    elements = 100_000_000
    with ServerProcess("--shards", "1") as server, Connection(server.address) as connection:
        replica = connection.join("w/0", job(elements))
        replica.initialise({"w": np.zeros(elements, np.float32)})
        replica.pull(0)
        verdict = replica.push(0, {"w": np.ones(elements, np.float32)}, samples=1)
        assert str(verdict) == "applied at version 1, staleness 0"
        assert (replica.pull(1).values["w"] == -1).all()
        status = Path(f"/proc/{server.process.pid}/status")
        if not status.exists():
            pytest.skip("the peak memory of a process is read from /proc")
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        peak_bytes = int(peak.split()[1]) * 1024
    # The weights, the gradient, and the new weights that are written beside the old ones.
    assert peak_bytes < 3.5 * elements * 4
    print(f"peak memory of the server: {peak_bytes / (elements * 4):.2f} times the tensor")
