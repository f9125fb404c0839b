"""Runs on a network that breaks every third call, and processes that are struck by hand or by plan."""

import json
import re
import subprocess
import sys

import pytest
from by_hand import ByHand

pytestmark = pytest.mark.chaos

FAULTS = "lose=10% duplicate=10% cut=5%"
"""Of requests and of replies; more than a tenth of the replies, a tenth of the requests, a twentieth cut."""


def run(launcher, *options):
    code, out, err = launcher.run("--epochs", "2", *options, deadline_seconds=110)
    assert code == 0, err
    return out


def gone_wrong(launcher):
    """Return what the workers say has gone wrong, in sums."""
    sums = {}
    for log in sorted(launcher.out.glob("logs/worker*.log")):
        [account] = re.findall(r"Gone wrong on purpose: (.*)\.", log.read_text())
        for count, what in re.findall(r"(\d+) (?:x )?([a-z ]+)", account):
            sums[what] = sums.get(what, 0) + int(count)
    return sums


def test_in_sync_a_broken_network_changes_nothing(launcher, sequential_sha256):
    out = run(launcher, "--chaos", FAULTS, "--chaos-seed", "3")
    assert "Of the messages of every worker, requests and replies: lose 10%, duplicate 10%, cut 5%." in out
    assert launcher.summary()["weights_sha256"] == sequential_sha256
    assert launcher.summary()["gradients"]["duplicate"] > 0
    wrong = gone_wrong(launcher)
    assert min(wrong["lose request"], wrong["lose reply"], wrong["duplicate request"]) > 5
    assert wrong["connections cut"] > 5
    plan = json.loads((launcher.out / "chaos.json").read_text())
    assert plan["seed"] == 3
    assert len(plan["messages"]["worker0"]) == pytest.approx(2000 * 0.25, rel=0.2)


@pytest.mark.parametrize("durability", ["checkpoint", "journal"])
def test_links_between_servers_that_break_change_nothing(launcher, sequential_sha256, durability):
    faults = f"{FAULTS} delay=5%+5ms reorder=5%+5ms"
    out = run(launcher, "--servers", "3", "--durability", durability, "--chaos", faults, "--chaos-seed", "5")
    assert "Of those between servers: the same." in out
    summary = launcher.summary()
    assert summary["weights_sha256"] == sequential_sha256
    assert (summary["generation"], summary["restarts"]) == (0, {})
    for server in range(3):
        log = (launcher.out / f"logs/server{server}.log").read_text()
        [account] = re.findall(r"Gone wrong on purpose on links: (.*)\.", log)
        assert "lose message" in account
    plan = json.loads((launcher.out / "chaos.json").read_text())
    assert set(plan["messages"]) == {"worker0", "worker1", "server0", "server1", "server2"}


@pytest.mark.parametrize("consistency", ["async", "ssp:2"])
def test_every_push_is_applied_once_on_each_shard(launcher, consistency):
    run(launcher, "--consistency", consistency, "--chaos", FAULTS, "--chaos-seed", "4")
    summary = launcher.summary()
    gradients = summary["gradients"]
    assert gradients["computed"] == gradients["applied"] == 88
    assert summary["versions"] == [88, 88]
    assert summary["samples"]["applied"] == summary["samples"]["computed"] == 2590
    assert gradients["duplicate"] > 0


def test_a_planned_pause_happens_and_ends(launcher, sequential_sha256):
    out = run(launcher, "--chaos", "pause=w1@0s+500ms partition=w0@100ms+300ms")
    assert "On purpose: worker 1 is paused" in out
    assert "On purpose: worker 1 goes on" in out
    assert launcher.summary()["weights_sha256"] == sequential_sha256


def test_processes_are_struck_by_hand(launcher):
    def chaos(*words):
        command = [sys.executable, "-P", "-m", "paramserver", "chaos", *words, "--run", str(launcher.out)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "is not the folder of a run" in chaos("kill", "w1").stderr
    with launcher.start("--epochs", "1000000", "--quiet") as process:
        try:
            launcher.until(lambda: launcher.training() or process.poll() is not None)
            assert chaos("pause", "w1").stdout.startswith("worker1 (process ")
            assert "worker1" in chaos("resume", "worker1").stdout
            assert "10 times slower for 0.3 s" in chaos("slow", "w0", "--by", "10", "--seconds", "0.3").stdout
            refused = chaos("kill", "w7")
            assert refused.returncode == 2
            assert "There is no process 'w7'" in refused.stderr
            assert chaos("kill", "evaluator").returncode == 0
        finally:
            process.terminate()
            process.communicate(timeout=60)
    launcher.until(lambda: not launcher.processes())
    assert "The run in" in chaos("kill", "w1").stderr


def test_calls_that_go_wrong_at_the_server_change_nothing(tmp_path, sequential_sha256):
    job = "epochs = 2\nworkers = 2\nthreads = 2\nshards = 2\n"
    faults = "lose=8% duplicate=8% delay=4%+1ms..5ms"
    with ByHand(tmp_path, job) as cluster:
        server = cluster.server(0, 1, "--chaos", faults, "--chaos-seed", "5", "--score-grace-seconds", "0")
        workers = [cluster.worker(0), cluster.worker(1)]
        assert [program.end() for program in (*workers, server)] == [0, 0, 0]
        assert cluster.summary()["weights_sha256"] == sequential_sha256
        assert cluster.summary()["gradients"]["duplicate"] > 0
        assert re.search(r"Gone wrong on purpose: .*\d\d x lose reply", server.log())
