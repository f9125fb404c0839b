"""Programs by hand that something starts again whenever they fail, as a container engine does."""

import signal

import pytest
from by_hand import ByHand

pytestmark = pytest.mark.cluster

JOB = """
epochs = 20
workers = 2
threads = 1
shards = 2
checkpoint_every = "5"
lease_seconds = 3.0
"""


@pytest.fixture
def cluster(tmp_path):
    with ByHand(tmp_path, JOB) as cluster:
        yield cluster


def names_in(folder):
    return ("--named-in", str(folder), "--restarts", "--chaos", "delay=100%+10ms")


def shared_worker(cluster, number, folder):
    """Start a worker with a command line that it shares with others; its number is for its log alone."""
    return cluster._start(f"started{number}", "worker", cluster._joining(*names_in(folder)), 0)


def test_a_server_that_is_stopped_and_a_worker_that_is_killed_come_back(cluster, tmp_path, launcher):
    launcher.out = tmp_path / "sequential"
    code, _, err = launcher.run(str(tmp_path / "job.toml"), "--engine", "sequential", "--quiet")
    assert code == 0, err
    (names := tmp_path / "names").mkdir()
    cluster.server(0, 2, "--restarts")
    second = cluster.server(1, 2, "--restarts")
    workers = [shared_worker(cluster, number, names) for number in range(2)]
    cluster.until(lambda: cluster.steps() > 20)
    address = second.address()
    second.process.send_signal(signal.SIGTERM)
    assert second.end() == 143
    assert "stopped by SIGTERM. The job waits for it to be started again." in second.log()
    cluster.server(1, 2, "--restarts", listen=address)
    before = cluster.steps()
    cluster.until(lambda: cluster.steps() > before + 20)
    workers[1].process.kill()
    workers[1].end()
    shared_worker(cluster, 2, names)
    back = [each for each in cluster.programs if each not in (second, workers[1])]
    assert [each.end() for each in back] == [0] * 4
    summary = cluster.summary()
    assert summary["outcome"] == "finished"
    assert set(summary["time_budget"]["workers"]) == {"worker0", "worker1"}
    assert summary["weights_sha256"] == launcher.summary()["weights_sha256"]


@pytest.mark.parametrize("durability", ["checkpoint", "journal"])
def test_a_cluster_that_is_stopped_altogether_goes_on(tmp_path, launcher, durability):
    with ByHand(tmp_path, f'{JOB}durability = "{durability}"\n') as cluster:
        launcher.out = tmp_path / "sequential"
        code, _, err = launcher.run(str(tmp_path / "job.toml"), "--engine", "sequential", "--quiet")
        assert code == 0, err
        (names := tmp_path / "names").mkdir()
        addresses = ["", ""]
        for life in range(2):
            for index in range(2):
                server = cluster.server(index, 2, "--restarts", listen=addresses[index])
                cluster.until(server.address)
                addresses[index] = server.address()
            for number in range(2):
                shared_worker(cluster, number, names)
            living = cluster.programs[-4:]
            if life == 0:
                cluster.until(lambda: cluster.steps() > 20)
                cluster.send(signal.SIGTERM)
            assert [each.end() for each in living] == [0 if life else 143] * 4
        summary = cluster.summary()
    assert summary["outcome"] == "finished"
    assert summary["generation"] == (1 if durability == "checkpoint" else 0)
    assert summary["weights_sha256"] == launcher.summary()["weights_sha256"]


def test_a_worker_that_has_left_is_not_waited_for_when_a_server_comes_back(cluster):
    server = cluster.server(0, 1, "--restarts", "--chaos", "delay=100%+10ms")
    workers = [cluster.worker(index, "--leave-on-stop") for index in range(3)]
    cluster.until(lambda: len(cluster.clocks()) == 3 and cluster.clocks()[2] > 0)
    workers[2].process.send_signal(signal.SIGTERM)
    assert workers[2].end() == 0
    before = cluster.steps()
    cluster.until(lambda: cluster.steps() > before + 10)
    server.process.kill()
    server.end()
    again = cluster.server(0, 1, "--restarts", listen=server.address())
    assert [each.end() for each in (again, *workers[:2])] == [0] * 3
    summary = cluster.summary()
    assert (summary["outcome"], summary["generation"]) == ("finished", 1)
    assert summary["visits"]["share"] == 1.0


@pytest.mark.parametrize(("outcome", "code"), [("finished", 0), ("failed", 1)])
def test_who_is_started_although_the_run_is_over_is_told_so(cluster, tmp_path, outcome, code):
    cluster.out.mkdir()
    (cluster.out / "summary.json").write_text(f'{{"outcome": "{outcome}", "reason": "It broke."}}')
    before = sorted(cluster.out.iterdir())
    first = cluster.server(0, 2, "--restarts")
    second = cluster.server(1, 2, "--restarts")
    worker = cluster.worker(0, "--restarts")
    sentence = f"The run in {cluster.out} is over ({outcome}). It broke."
    assert worker.end() == 0
    assert sentence in worker.log()
    assert (first.end(), second.end()) == (code, code)
    assert sentence in first.log()
    assert sentence in second.log()
    assert sorted(cluster.out.iterdir()) == before


def test_a_worker_that_restarts_ends_well_where_its_job_has_failed(cluster, tmp_path):
    cluster.server(0, 1)
    worker = cluster.worker(0, "--restarts")
    other = cluster.worker(1, "--restarts")
    cluster.until(lambda: cluster.steps() > 5)
    cluster.programs[0].process.send_signal(signal.SIGTERM)  # it does not restart, so this ends the job
    assert cluster.programs[0].end() == 143
    assert (worker.end(), other.end()) == (0, 0)
    assert "The job was interrupted" in worker.log()


def test_a_worker_whose_servers_are_gone_ends_badly_since_they_may_come_back(tmp_path):
    job = JOB.replace("lease_seconds = 3.0", "lease_seconds = 1.0\nrestart_timeout = 1.0")
    with ByHand(tmp_path, job) as cluster:
        server = cluster.server(0, 1, "--restarts")
        workers = [cluster.worker(index, "--restarts") for index in range(2)]
        cluster.until(lambda: cluster.steps() > 5)
        server.process.kill()
        server.end()
        assert [worker.end() for worker in workers] == [1, 1]
