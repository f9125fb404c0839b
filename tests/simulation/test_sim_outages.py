"""Servers that crash and come back in virtual time: what is promised of checkpoints holds there, too."""

import pytest
from virtual import LAN, simulate

from paramserver.errors import RequestError

NETWORK = f"{LAN} checkpoint=5ms checkpoint-per-byte=2ns"


def run(faults, **changes):
    usual = {"problem": "quadratic:1,0.1", "servers": 2, "shards": 2, "steps": 60, "checkpoint_updates": 8}
    return simulate("exponential:10ms", NETWORK, faults, **usual | changes)


@pytest.mark.parametrize(
    "faults",
    [
        "crash=s1@300ms+2s",
        "crash=s0@300ms+2s",
        "crash=s1@300ms+2s crash=s0@3s+500ms crash=s1@3200ms+1s",
        "crash=s0@300ms+1s crash=w1@300ms+2s lose=2% duplicate=2%",
        "pause=s1@100ms+1s pause=s0@500ms+12s",
    ],
)
def test_rounds_end_with_the_weights_of_a_run_without_faults(faults):
    disturbed, calm = run(faults), run("")
    assert disturbed.reason == ""
    assert disturbed.weights_sha256 == calm.weights_sha256
    assert disturbed.seconds > calm.seconds + 1


@pytest.mark.parametrize("faults", ["crash=s1@0s+2s", "crash=s1@5ms+2s", "crash=s0@0s+2s", "crash=s0@2ms+2s"])
@pytest.mark.parametrize("consistency", ["sync", "async"])
def test_who_is_lost_before_there_is_a_checkpoint_lets_the_job_begin_anew(faults, consistency):
    changes = {"consistency": consistency, "on_death": "restart"}
    disturbed, calm = run(faults, **changes), run("", **changes)
    assert disturbed.reason == ""
    assert any("begins anew" in sentence for _, sentence in disturbed.notes) or "@0s" in faults
    assert disturbed.seconds + 2 > calm.seconds
    for member in disturbed.status.members:
        assert member.counters.gradients["applied"] == 60
    if consistency == "sync":
        assert disturbed.weights_sha256 == calm.weights_sha256


def test_the_same_seed_gives_the_same_trace():
    faults = "crash=s0@300ms+1s crash=s1@2s+1s lose=2%"
    traces = {run(faults, trace_max=100_000).chrome_trace() for _ in range(2)}
    assert len(traces) == 1


def test_what_was_rolled_back_is_counted():
    run_ = run("crash=s1@300ms+2s", consistency="async", on_death="restart")
    assert run_.status.generation == 1
    rolled_back = [member.counters.gradients.get("rolled_back", 0) for member in run_.status.members]
    assert sum(rolled_back) > 0
    for member in run_.status.members:
        assert member.counters.gradients["applied"] == 60


def test_the_last_checkpoint_is_kept_before_anybody_hears_of_the_end():
    calm = run("")
    # The server ends while the final weights are being written: the job goes back and ends a second time.
    at = calm.ended_ns // 1_000_000 + 3
    late = run(f"crash=s1@{at}ms+1s")
    assert late.status.generation == 1
    assert late.weights_sha256 == calm.weights_sha256
    assert run(f"crash=s1@{at + 2000}ms+1s").status.generation == 0


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        ("crash=s1@300ms", "server 1 did not come back within 5 s"),
        ("crash=s0@300ms", "server 0, and with it the coordinator, did not come back within 5 s"),
        (" ".join(f"crash=s1@{second}s+100ms" for second in range(1, 6)), "needed more than 3 restarts"),
    ],
)
def test_a_job_that_cannot_go_on_says_why(faults, sentence):
    failed = run(faults, steps=500, lease_seconds=2.0, restart_timeout_seconds=3.0)
    assert sentence in failed.reason
    assert failed.status.ended


def test_only_a_world_that_may_lose_a_server_has_to_say_what_a_checkpoint_costs():
    with pytest.raises(RequestError, match="Give checkpoint=5ms checkpoint-per-byte=2ns"):
        simulate("constant:10ms", LAN, "crash=s0@1s+1s")
    with pytest.raises(RequestError, match="only half of what a checkpoint costs"):
        simulate("constant:10ms", f"{LAN} checkpoint=5ms")
    with pytest.raises(RequestError, match="There is no server s1, but 'crash=s1@1s' of the faults names it"):
        simulate("constant:10ms", NETWORK, "crash=s1@1s")
    assert simulate("constant:10ms", LAN, "pause=s0@50ms+100ms").seconds > 0.25
    assert simulate("constant:10ms", "ideal", "crash=s0@100ms+100ms").reason == ""


def test_checkpoints_take_time_where_they_cost_something():
    assert run("", checkpoint_updates=1).happened > run("", checkpoint_updates=0).happened
