"""A cluster that is started in any order, that never comes up, or that is stopped in the middle."""

import signal
import socket

import pytest
from by_hand import ByHand

from paramserver.storage import read_checkpoint

pytestmark = pytest.mark.cluster

ENDLESS = "epochs = 1000000\nworkers = 2\nthreads = 1\nshards = 2\n"
SHORT = "epochs = 1\nworkers = 2\nthreads = 1\nshards = 2\n"


@pytest.fixture
def cluster(tmp_path, request):
    with ByHand(tmp_path, request.param) as cluster:
        yield cluster


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("cluster", [SHORT], indirect=True)
def test_workers_that_start_long_before_the_servers_wait_for_them(cluster):
    cluster.address = free_address()
    workers = [cluster.worker(0), cluster.worker(1)]
    evaluator = cluster.evaluator()
    # They say why they wait, without having been given up.
    cluster.until(lambda: all("still waits to join" in program.log() for program in cluster.programs))
    assert all("does not answer" in worker.log() for worker in workers)
    second = cluster.server(1, 2)
    cluster.server(0, 2, listen=cluster.address)
    assert set(cluster.end().values()) == {0}
    summary = cluster.summary()
    assert summary["outcome"] == "finished"
    assert summary["accuracy"] is not None
    assert "The job is over" in second.log()
    assert "test accuracy" in evaluator.log()
    assert (cluster.out / "job.toml").read_text() == SHORT


@pytest.mark.parametrize("cluster", [SHORT], indirect=True)
def test_an_evaluator_that_is_expected_is_waited_for(cluster):
    server = cluster.server(0, 1, "--expect-evaluator")
    workers = [cluster.worker(0), cluster.worker(1)]
    assert [worker.end() for worker in workers] == [0, 0]
    cluster.until(lambda: "The checkpoint is in" in server.log())
    cluster.evaluator()
    assert set(cluster.end().values()) == {0}
    assert cluster.summary()["accuracy"] > 0.5


@pytest.mark.parametrize("cluster", [SHORT], indirect=True)
def test_a_server_that_never_comes_up_ends_the_cluster_with_a_sentence(cluster):
    server = cluster.server(0, 3, "--connect-timeout", "3")
    cluster.server(2, 3)
    cluster.worker(0)
    assert cluster.end() == {"server0": 1, "server2": 1, "worker0": 1}
    sentence = "Server 1 did not come up within 3 s."
    assert sentence in cluster.programs[0].log()
    for program in cluster.programs[1:]:
        assert sentence in program.log()
    assert cluster.summary()["outcome"] == "failed"
    assert cluster.summary()["reason"].startswith(sentence)
    assert server.log().count("\n") < 8


@pytest.mark.parametrize("consistency", ["sync", "async"])
@pytest.mark.parametrize("cluster", [ENDLESS], indirect=True)
def test_a_cluster_that_is_stopped_saves_the_run(cluster, consistency):
    (cluster.out.parent / "job.toml").write_text(f'{ENDLESS}consistency = "{consistency}"\n')
    first = cluster.server(0, 2)
    cluster.server(1, 2)
    cluster.evaluator()
    for index in range(2):
        cluster.worker(index)
    cluster.until(lambda: cluster.steps() > 100)
    cluster.send(signal.SIGTERM)
    assert set(cluster.end().values()) == {143}
    assert all("stopped by SIGTERM" in program.log() for program in cluster.programs)
    assert f"What there is of the run is saved in {cluster.out}." in first.log()
    summary = cluster.summary()
    assert summary["outcome"] == "interrupted"
    assert summary["samples"]["applied"] > 0
    checkpoint = read_checkpoint(cluster.out / "checkpoint")
    assert checkpoint.versions == tuple(summary["versions"])
    if consistency == "sync":
        assert len(set(checkpoint.versions)) == 1, "A checkpoint has the rounds of one moment."
        assert checkpoint.versions[0] == summary["rounds"]


@pytest.mark.parametrize("cluster", [ENDLESS], indirect=True)
def test_any_server_that_is_stopped_ends_the_job_in_order(cluster):
    cluster.server(0, 2)
    second = cluster.server(1, 2)
    workers = [cluster.worker(0), cluster.worker(1)]
    cluster.until(lambda: cluster.steps() > 100)
    second.process.send_signal(signal.SIGTERM)
    assert cluster.end() == {"server0": 1, "server1": 143, "worker0": 1, "worker1": 1}
    sentence = "The job was interrupted: server 1 was stopped by SIGTERM."
    assert all(sentence in worker.log() for worker in workers)
    assert cluster.summary()["outcome"] == "interrupted"
    assert cluster.summary()["reason"] == sentence
    assert len(read_checkpoint(cluster.out / "checkpoint").versions) == 4


@pytest.mark.parametrize("cluster", [ENDLESS], indirect=True)
def test_a_second_signal_ends_a_server_at_once(cluster):
    """The first one waits for the other server, which is stopped and cannot answer."""
    first = cluster.server(0, 2)
    second = cluster.server(1, 2)
    for index in range(2):
        cluster.worker(index)
    cluster.until(lambda: cluster.steps() > 10)
    second.process.send_signal(signal.SIGSTOP)
    first.process.send_signal(signal.SIGTERM)
    cluster.until(lambda: "The job is over" in first.log())
    first.process.send_signal(signal.SIGTERM)
    assert first.end() == 143
