"""The links between servers lose, repeat and break, and the job is none the worse for it."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from raw import JOB, RawReplica, ServerProcess, wait_serving

FAULTS = "lose=10% duplicate=10% delay=10%+1ms reorder=5%+2ms cut=10%"
ROUNDS = 10


@pytest.mark.parametrize("durability", ["checkpoint", "journal"])
def test_a_link_that_goes_wrong_costs_nothing_but_time(tmp_path: Path, durability: str) -> None:
    job = replace(JOB, consistency="sync", replicas=2, replicas_max=2, lease_seconds=3600.0)
    job = replace(job, durability=durability, checkpoint_updates=5)
    options = ["--servers", "2", "--out", str(tmp_path), "--chaos-links", FAULTS, "--chaos-seed", "1"]
    with (
        ServerProcess(*options) as first,
        ServerProcess(*options, "--server", "1", "--coordinator", first.address) as second,
        ExitStack() as stack,
    ):
        wait_serving(first)
        replicas = [RawReplica(first, job, f"w/{number}") for number in range(2)]
        for replica in replicas:
            stack.callback(replica.close)
        replicas[0].initialise()
        for clock in range(ROUNDS):
            for replica in replicas:
                replica.clock = clock
                headers = [replica.pull(shard)[0] for shard in replica.shards]
                assert [header.rounds for header in headers] == [clock, clock]
            for replica in replicas:
                for shard in replica.shards:
                    replica.push(shard)
        for replica in replicas:
            replica.clock = ROUNDS
            replica.pull()
            replica.leave()
        assert [first.wait(), second.wait()] == [0, 0]
        for server in (first, second):
            account = re.search(r"Gone wrong on purpose on links: (.*)\.", server.log())
            assert account, server.log()
            assert "lose message" in account[1]
            assert "cut message" in account[1]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["versions"] == [ROUNDS, ROUNDS]
    assert summary["generation"] == 0, "a link that goes on is no server that was lost"
    assert summary["outcome"] == "finished"
