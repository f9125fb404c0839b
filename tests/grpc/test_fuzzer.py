"""Mutated messages and plain noise cost a server nothing but the answer."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from fuzzer import Fuzzer, resident_bytes
from raw import JOB, RawReplica, ServerProcess, wait_serving

GROWTH_BYTES_MAX = 24 << 20
"""More than the allocators of Python and gRPC keep back; 1 kB of each of 100,000 messages would be 100 MB."""


@pytest.mark.parametrize(
    ("messages", "knocks"),
    [
        pytest.param(2_000, 50, id="2,000"),
        pytest.param(100_000, 2_000, id="100,000", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_mutated_messages_change_nothing(messages: int, knocks: int) -> None:
    job = replace(JOB, replicas=2, replicas_max=2, on_death="drop", lease_seconds=3600.0)
    # Of the two one would be enough; the job must not end should a mutation make one leave.
    with ServerProcess("--servers", "1") as server:
        replica, other = RawReplica(server, job), RawReplica(server, job, "w/1")
        replica.initialise(1.0)
        for clock in range(3):
            replica.pull()
            replica.push()
            replica.clock = clock + 1
        warm = Fuzzer(server, replica, seed=1)
        warm.run(messages // 10)
        warm.knock(knocks // 10)
        before, memory = weights(replica), resident_bytes(server.process.pid)
        fuzzer = Fuzzer(server, replica, seed=2)
        began = time.monotonic()
        fuzzer.run(messages)
        seconds = time.monotonic() - began
        fuzzer.knock(knocks)
        wait_serving(server)
        after, growth = weights(replica), resident_bytes(server.process.pid) - memory
        assert server.process.poll() is None
        assert "Traceback" not in server.log()
        assert "failed inside" not in server.log()
        assert fuzzer.applied == warm.applied == 0, "a mutation that is right after all: choose another seed"
        assert after == before
        assert growth < GROWTH_BYTES_MAX
        assert fuzzer.statuses["INVALID_ARGUMENT"] > messages / 10
        print(
            f"{messages:,} messages, {messages / seconds:,.0f} a second, {knocks} knocks; memory "
            f"{memory / 1e6:.0f} MB and {growth / 1e6:+.1f} MB; {dict(fuzzer.statuses.most_common())}"
        )
        replica.close()
        other.close()


def weights(replica: RawReplica) -> dict[str, bytes]:
    """Return the weights, as anybody reads them."""
    return replica.pull(replica=None, clock=0)[1]
