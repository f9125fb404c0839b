"""Metrics: a scrape says what the shards and the coordinator know, and agrees with the summary."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from raw import JOB, SECONDS, RawReplica, ServerProcess, wait_serving

from paramserver.errors import RequestError
from paramserver.events import Beat, Counters, Phase, Score
from paramserver.wire.jobs import encode_join
from paramserver.wire.replicas import encode_heartbeat, encode_score
from server.families import STALENESS_BUCKETS
from server.metrics import Metrics

Scrape = dict[tuple[str, frozenset[tuple[str, str]]], float]


def url_of(server: ServerProcess) -> str:
    assert server.process.stdout is not None
    return server.process.stdout.readline().removeprefix("metrics ").strip()


def scrape(url: str) -> Scrape:
    """Return each sample's value by its name and labels."""
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("paramserver_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Scrape, name: str, /, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def by_label(found: Scrape, name: str, label: str) -> dict[str, float]:
    return {dict(labels)[label]: number for (each, labels), number in found.items() if each == name}


@pytest.mark.parametrize("consistency", ["async", "sync"])
def test_a_scrape_at_the_end_agrees_with_the_summary(tmp_path: Path, consistency: str) -> None:
    job = tmp_path / "job.toml"
    job.write_text(f'epochs = 2\nworkers = 1\nthreads = 4\nshards = 2\nconsistency = "{consistency}"\n')
    out = tmp_path / "out"
    with ServerProcess("--shards", "2", "--metrics-port", "0", "--out", str(out)) as server:
        url = url_of(server)
        worker = [sys.executable, "-P", "-m", "worker", "--connect", server.address, "--job", str(job)]
        with subprocess.Popen(worker, stderr=subprocess.PIPE, text=True) as process:
            join_as_scorer(server)
            assert process.wait(SECONDS) == 0
        # The server waits for our score, so it is still there.
        found = scrape(url)
        assert value(found, "job_ended") == 1
        server.stub.Score(encode_score(Score("test", 1, -1, 0.5, 0.5, 10)), timeout=SECONDS)
        assert server.wait() == 0
    summary = json.loads((out / "summary.json").read_text())
    assert by_label(found, "gradients_total", "outcome") == summary["gradients"]
    assert by_label(found, "samples_total", "outcome") == summary["samples"]
    check_histogram(found, "staleness_versions", summary["staleness"]["histogram"])
    assert summary["gradients"]["applied"] == 88
    for shard in ("0", "1"):
        # A shard counts for itself, so this is another witness of the same.
        assert (
            value(found, "shard_pushes_total", shard=shard, verdict="applied")
            == summary["gradients"]["applied"]
        )
        assert value(found, "shard_staleness_versions_count", shard=shard) == summary["gradients"]["applied"]
        assert value(found, "shard_version", shard=shard) == summary["versions"][int(shard)]
        assert value(found, "shard_buffered_gradients", shard=shard) == 0
        assert value(found, "shard_lock_hold_seconds_total", shard=shard) > 0
    weights = sum(by_label(found, "shard_weight_bytes", "shard").values())
    assert value(found, "sent_bytes_total") > weights * summary["gradients"]["applied"]
    assert value(found, "received_bytes_total") > weights * summary["gradients"]["applied"]
    assert value(found, "rounds") == summary["rounds"]
    assert by_label(found, "replicas", "standing") == {"live": 0, "dead": 0, "left": 4}


def join_as_scorer(server: ServerProcess) -> None:
    """Join as an observer that will send the final score, as soon as there is a job."""
    while True:
        with suppress(grpc.RpcError):  # there is none yet
            server.stub.Join(encode_join("scorer", "scorer", None, True), timeout=SECONDS)
            return


def check_histogram(found: Scrape, name: str, expected: dict[str, int]) -> None:
    counts = {int(staleness): times for staleness, times in expected.items()}
    assert value(found, f"{name}_count") == sum(counts.values())
    assert value(found, f"{name}_sum") == sum(staleness * times for staleness, times in counts.items())
    for bound in STALENESS_BUCKETS:
        at_most = sum(times for staleness, times in counts.items() if staleness <= bound)
        assert value(found, f"{name}_bucket", le=str(float(bound))) == at_most


def test_staleness_is_sorted_into_its_buckets() -> None:
    with ServerProcess("--metrics-port", "0") as server, closing(RawReplica(server)) as replica:
        url = url_of(server)
        replica.initialise()
        for _ in range(3):  # each computed at version 0
            replica.push(sequence=replica.clock, version=0)
            replica.clock += 1
        found = scrape(url)
    assert value(found, "shard_staleness_versions_sum", shard="0") == 3
    buckets = {
        dict(labels)["le"]: number
        for (name, labels), number in found.items()
        if name == "shard_staleness_versions_bucket"
    }
    assert [buckets[bound] for bound in ("0.0", "1.0", "2.0", "3.0", "+Inf")] == [1, 2, 3, 3, 3]


def test_who_waits_and_how_long_a_lease_lasts() -> None:
    job = replace(JOB, consistency="ssp:0", replicas=2, replicas_max=2, lease_seconds=60.0)
    with (
        ServerProcess("--metrics-port", "0") as server,
        closing(RawReplica(server, job, "w0/0")) as ahead,
        closing(RawReplica(server, job, "w1/0")) as behind,
    ):
        url = url_of(server)
        ahead.initialise()
        ahead.pull()
        ahead.push()
        ahead.clock = 1
        stream = ahead.pull_stream()
        assert next(stream).HasField("waiting")
        beat = Beat(behind.replica, 0, 4, Phase.COMPUTE, Counters())
        server.stub.Heartbeat(encode_heartbeat([beat]), timeout=SECONDS)
        found = scrape(url)
        assert value(found, "waiting_replicas") == value(found, "shard_waiting_pulls", shard="0") == 1
        assert 0 < value(found, "replica_lease_remaining_seconds", rank="1", name="w1/0") <= 60
        assert value(found, "replica_clock", rank="1", name="w1/0") == 0
        assert by_label(found, "replicas", "standing") == {"live": 2, "dead": 0, "left": 0}
        stream.cancel()


def test_a_server_that_is_not_the_first_serves_its_own_shards_alone() -> None:
    with (
        ServerProcess("--servers", "2") as first,
        ServerProcess(
            "--servers", "2", "--server", "1", "--coordinator", first.address, "--metrics-port", "0"
        ) as second,
    ):
        url = url_of(second)
        wait_serving(second)
        found = scrape(url)
    assert by_label(found, "shard_version", "shard") == {"1": 0}
    assert not any(name == "job_ended" for name, _ in found)


def test_metrics_listen_to_this_machine_and_the_log_says_where() -> None:
    with ServerProcess("--metrics-port", "0") as server:
        url = url_of(server)
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/metrics")
        wait_serving(server)
        assert f"Metrics are served at {url}." in server.log()


def test_a_port_in_use_is_refused() -> None:
    with ServerProcess("--metrics-port", "0") as server:
        taken = url_of(server).split(":")[2].partition("/")[0]
        with ServerProcess("--metrics-port", taken) as other:
            assert other.wait() == 2
            assert f"Metrics cannot be served at 127.0.0.1:{taken}" in other.log()


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ask: Any = None
    with pytest.raises(RequestError, match=r"pip install 'paramserver\[metrics\]'"):
        Metrics(ask, "127.0.0.1", 0)


def test_metrics_may_ask_for_a_secret_of_their_own(tmp_path: Path) -> None:
    secret = tmp_path / "metrics-token"
    secret.write_text("m" * 32)
    with ServerProcess("--metrics-port", "0", "--metrics-token-file", str(secret)) as server:
        url = url_of(server)
        for brought in ({}, {"Authorization": "Bearer " + "x" * 32}, {"Authorization": "m" * 32}):
            with pytest.raises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(urllib.request.Request(url, headers=brought), timeout=SECONDS)
            assert raised.value.code == 401
            assert raised.value.headers["WWW-Authenticate"] == "Bearer"
            assert b"--metrics-token-file" in raised.value.read()
            raised.value.close()
        request = urllib.request.Request(url, headers={"Authorization": "Bearer " + "m" * 32})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            assert b"paramserver_" in answer.read()
    with ServerProcess("--token-file", str(secret), "--metrics-token-file", str(secret)) as server:
        assert server.wait() == 2
        assert "Make one of its own" in server.log()
