"""One run whose workers come and go: two, five, one, and then its usual end with every sample seen."""

import signal

import pytest
from by_hand import ByHand

pytestmark = pytest.mark.cluster

JOB = """
data = "synthetic:spirals,n=400"
model = "mlp:8"
workers = 2
threads = 1
batch = 16
epochs = 60
"""
SLOWLY = ("--chaos", "delay=100%+5ms")


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:2"])
def test_two_workers_become_five_and_then_one_and_the_run_is_whole(tmp_path, consistency):
    with ByHand(tmp_path, f'{JOB}consistency = "{consistency}"\n') as cluster:
        server = cluster.server(0, 1, *SLOWLY)
        workers = [cluster.worker(index, "--leave-on-stop") for index in range(2)]
        cluster.until(lambda: cluster.steps() > 20)
        workers += [cluster.worker(index, "--leave-on-stop") for index in range(2, 5)]
        cluster.until(lambda: len(cluster.clocks()) == 5 and min(cluster.clocks()[2:]) > 5)
        for worker in workers[:4]:
            worker.process.send_signal(signal.SIGTERM)
        assert [worker.end() for worker in workers[:4]] == [0] * 4
        assert workers[4].process.poll() is None
        assert (workers[4].end(), server.end()) == (0, 0)
        summary = cluster.summary()
    assert summary["outcome"] == "finished"
    assert summary["generation"] == 0
    visits = summary["visits"]
    assert (visits["epochs_begun"], visits["share"]) == (60, 1.0)
    assert (visits["unseen"], visits["repeated"]) == (0, 0)
    assert summary["samples"]["applied"] == summary["samples"]["computed"] == visits["samples"]
    assert len(summary["time_budget"]["workers"]) == 5
