"""A cluster over two hosts: a server and a worker on each, and a cable between them.

The hosts are network namespaces, so these tests skip, and say why, where such cannot be made.
"""

import select

import pytest
from by_hand import ByHand

from paramserver.storage import read_checkpoint

pytestmark = pytest.mark.cluster

JOB = 'model = "mlp:512"\nworkers = 2\nthreads = 1\nshards = 2\nservers = 2\n'
MBIT_PER_SECOND = 80
OUTAGE_SECONDS = 5.0
"""Half the usual lease: whoever is silent for that long still counts."""


def train(cluster):
    """Start a server and a worker on each host."""
    for index in range(2):
        cluster.server(index, 2)
    for index in range(2):
        cluster.worker(index)


def network_seconds(summary):
    """Return how much of all replicas' time went into pulls and pushes."""
    budget = summary["time_budget"]
    return (budget["total"]["pull"] + budget["total"]["push"]) / 100 * budget["replica_seconds"]


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:2"])
def test_training_completes_over_a_slow_cable(hosts, tmp_path, consistency):
    hosts.limit(MBIT_PER_SECOND)
    before = [host.bytes_sent() for host in hosts.all]
    with ByHand(tmp_path, f'{JOB}epochs = 1\nconsistency = "{consistency}"\n', hosts.all) as cluster:
        train(cluster)
        assert set(cluster.end().values()) == {0}
    summary = cluster.summary()
    assert summary["outcome"] == "finished"
    assert summary["gradients"]["applied"] == summary["gradients"]["computed"] > 0
    # Half of each replica's weights and gradients are on the other host.
    checkpoint = read_checkpoint(cluster.out / "checkpoint")
    size = sum(array.nbytes for array in checkpoint.weights.values())
    crossed = [host.bytes_sent() - sent for host, sent in zip(hosts.all, before, strict=True)]
    steps = summary["gradients"]["computed"] / 2
    assert all(sent > steps * size for sent in crossed)


def test_the_time_budget_shows_the_network_and_the_weights_do_not(hosts, tmp_path):
    found = {}
    for name in ("unlimited", "limited"):
        if name == "limited":
            hosts.limit(MBIT_PER_SECOND / 4)
        (tmp_path / name).mkdir()
        with ByHand(tmp_path / name, f"{JOB}epochs = 1\n", hosts.all) as cluster:
            train(cluster)
            assert set(cluster.end().values()) == {0}
        found[name] = cluster.summary()
    assert network_seconds(found["limited"]) > network_seconds(found["unlimited"])
    assert found["limited"]["weights_sha256"] == found["unlimited"]["weights_sha256"]


@pytest.mark.parametrize("consistency", ["sync", pytest.param("async", marks=pytest.mark.long)])
def test_a_cable_that_is_unplugged_for_a_while_is_ridden_out(hosts, tmp_path, consistency):
    hosts.limit(MBIT_PER_SECOND)
    with ByHand(tmp_path, f'{JOB}epochs = 8\nconsistency = "{consistency}"\n', hosts.all) as cluster:
        train(cluster)
        cluster.until(lambda: cluster.steps() > 10)
        hosts.unplug()
        before = cluster.steps()
        select.select([], [], [], OUTAGE_SECONDS)
        hosts.plug_in()
        assert all(program.process.poll() is None for program in cluster.programs)
        assert set(cluster.end().values()) == {0}
    summary = cluster.summary()
    assert summary["outcome"] == "finished"
    assert summary["wall_seconds"] > OUTAGE_SECONDS
    assert summary["gradients"]["applied"] == summary["gradients"]["computed"] > before
    assert not any(" is dead" in program.log() or "fenced" in program.log() for program in cluster.programs)
    assert "incarnation 2" not in cluster.programs[0].log()
