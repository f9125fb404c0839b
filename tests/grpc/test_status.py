"""How a running job stands, asked of real servers: the watch, and the command that shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from raw import JOB, SECONDS, RawReplica, ServerProcess, two_servers, wait_serving

from paramserver.events import Beat, Counters, Phase
from paramserver.launch.overview import Overview
from paramserver.launch.watch import Watch
from paramserver.storage import json_text
from paramserver.wire.replicas import encode_heartbeat

SSP = replace(JOB, consistency="ssp:0", replicas=2, replicas_max=2, versions_total=8)


def run(*options: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run the command to its end."""
    command = [sys.executable, "-P", "-m", "paramserver", "status", *options]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def servers() -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two servers with a shard each, and a job of two replicas: the first is a step ahead and waits."""
    with (
        two_servers() as (first, second),
        closing(RawReplica(first, SSP, "w0/0")) as ahead,
        closing(RawReplica(first, SSP, "w1/0")) as behind,
    ):
        ahead.initialise()
        for shard in ahead.shards:
            ahead.pull(shard)
            ahead.push(shard)
        for replica, clock, phase in ((ahead, 1, Phase.WAIT), (behind, 0, Phase.COMPUTE)):
            samples = {"computed": 32 * clock, "applied": 32 * clock}
            counters = Counters(samples=samples, seconds={"compute": 2.0}, latest_staleness=clock or None)
            beat = Beat(replica.replica, clock, 4, phase, counters)
            first.stub.Heartbeat(encode_heartbeat([beat]), timeout=SECONDS)
        ahead.clock = 1
        stream = ahead.pull_stream(1)
        assert next(stream).HasField("waiting")
        yield first, second
        stream.cancel()


def without_ages(seen: Overview) -> Overview:
    """Leave out what grows while nothing happens."""
    rows = tuple(replace(row, heard_seconds=0.0, waits_seconds=None) for row in seen.replicas)
    shards = tuple(replace(row, lock_hold_seconds=0.0, lock_wait_seconds=0.0) for row in seen.shards)
    return replace(seen, replicas=rows, shards=shards)


def test_a_watch_asks_every_server_and_knows_who_waits_for_whom(
    servers: tuple[ServerProcess, ServerProcess],
) -> None:
    first, second = servers
    with Watch(first.address) as watch:
        seen = watch.look()
    assert seen is not None
    assert (seen.state, seen.samples, seen.samples_per_second, seen.fraction) == ("training", 32, 16.0, 0.125)
    ahead, behind = seen.replicas
    assert (ahead.does, ahead.waits_for, ahead.staleness) == ("wait", (1,), 1)
    assert (behind.does, behind.waits_for, behind.staleness) == ("compute", (), None)
    assert "ssp:0" in ahead.waits_because
    assert [row.address for row in seen.servers] == [first.address, second.address]
    assert [(row.shard, row.server, row.version, row.waiting) for row in seen.shards] == [
        (0, 0, 1, 0),
        (1, 1, 1, 1),
    ]
    assert all(row.received_bytes and row.sent_bytes for row in seen.servers)


def test_json_has_the_numbers_of_the_table(servers: tuple[ServerProcess, ServerProcess]) -> None:
    first, _ = servers
    with Watch(first.address) as watch:
        seen = watch.look()
    assert seen is not None
    code, out, err = run("--connect", first.address, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    for row in told["replicas"]:
        row.update(heard_seconds=0.0, waits_seconds=None)
    for row in told["shards"]:
        row.update(lock_hold_seconds=0.0, lock_wait_seconds=0.0)
    assert told == json.loads(json_text(asdict(without_ages(seen))))
    code, out, _ = run("--connect", first.address)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["0", "w0/0", "1", "1", "16", "wait", "1"] in lines
    assert ["1", "w1/0", "0", "-", "0", "compute"] in lines


def test_a_server_that_is_not_the_first_is_told_from_none(
    servers: tuple[ServerProcess, ServerProcess],
) -> None:
    _, second = servers
    code, _, err = run("--connect", second.address)
    assert code == 2
    assert "it is not the first one" in err
    code, out, _ = run("--connect", f"{second.address},{servers[0].address}", "--json")
    assert code == 0
    assert [row["shard"] for row in json.loads(out)["shards"]] == [0, 1]


def test_nobody_answers() -> None:
    code, out, err = run("--connect", "127.0.0.1:1")
    assert (code, out) == (1, "")
    assert err.startswith("paramserver: No server answers at 127.0.0.1:1.")


def test_there_is_no_job_yet() -> None:
    with ServerProcess() as server:
        wait_serving(server)
        code, out, err = run("--connect", server.address)
    assert (code, err) == (0, "")
    assert out.startswith("There is no job yet: 1 of 1 servers are up, and no replica has joined.\n")


def test_a_watch_ends_with_the_job() -> None:
    job = replace(JOB, versions_total=1)
    with ServerProcess() as server, closing(RawReplica(server, job)) as replica:
        replica.initialise()
        command = [sys.executable, "-P", "-m", "paramserver", "status", "--connect", server.address]
        with subprocess.Popen(
            [*command, "--watch", "--every", "0.1", "--json"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["state"] == "training"
            replica.leave()
            assert server.wait() == 0
            assert process.wait(SECONDS) == 0
            for line in process.stdout:
                assert json.loads(line)["state"] in ("training", "over")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "No run is going on in "),
        (("runs/none",), "There is no folder runs/none."),
        (("runs/mine",), "runs/mine is not the folder of a job with servers"),
        (("runs/mine", "--connect", "h:1"), "Both the folder runs/mine and --connect h:1 were given."),
        (("--connect", "somewhere"), "HOST:PORT"),
        (("--every", "0"), "--every is from 0.1 to 3600 seconds, and 0 was given."),
    ],
)
def test_bad_input_is_a_sentence(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    code, out, err = run(*options, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in err


def test_a_run_that_is_over_says_how_it_ended(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"outcome": "failed", "reason": "Replica 0 failed."}')
    code, _, err = run(str(tmp_path))
    assert code == 1
    assert f"The run in {tmp_path} is over (failed). Replica 0 failed. Its figures are in" in err
