"""From what the servers say to a table of values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from jobs import job, member, parked, server, sighting

from paramserver import events as ev
from paramserver.launch.sighting import WINDOW_SECONDS, History, overview


def test_a_row_has_what_a_replica_says_of_itself() -> None:
    [row] = overview(sighting(job(member(0, clock=25)))).replicas
    assert (row.rank, row.name, row.clock, row.steps) == (0, "worker0/0", 25, 100)
    assert (row.staleness, row.samples, row.loss) == (0, 800, 0.5)
    assert (row.standing, row.does, row.heard_seconds) == ("live", "compute", 0.25)
    assert (row.waits_for, row.waits_because, row.waits_seconds) == ((), "", None)


def test_before_its_first_step_a_replica_has_no_loss_and_no_staleness() -> None:
    [row] = overview(sighting(job(member(0, counters=ev.Counters())))).replicas
    assert (row.loss, row.staleness, row.samples_per_second) == (None, None, None)


def test_without_an_earlier_sighting_speeds_are_those_since_the_start() -> None:
    found = overview(sighting(job(member(0, clock=25), member(1, clock=50))))
    assert [row.samples_per_second for row in found.replicas] == [80.0, 160.0]
    assert found.samples_per_second == 240.0
    assert found.seconds_to_go == pytest.approx(30.0)  # of the slower one


def test_speeds_are_by_the_replicas_own_seconds_between_two_sightings() -> None:
    earlier = sighting(job(member(0, clock=25, seconds=10.0)), seconds=100.0)
    found = overview(sighting(job(member(0, clock=30, seconds=12.0)), seconds=100.3), earlier)
    assert found.samples_per_second == pytest.approx(80.0)
    assert found.seconds_to_go == pytest.approx(28.0)


def test_no_news_is_no_speed() -> None:
    earlier = sighting(job(member(0, clock=25)))
    found = overview(sighting(job(member(0, clock=25)), seconds=1.0), earlier)
    assert (found.samples_per_second, found.seconds_to_go) == (None, None)


def test_a_history_looks_back_over_its_window_only() -> None:
    history = History()
    for second in range(40):
        clock = second if second < 20 else 20 + 3 * (second - 20)
        status = job(member(0, clock=clock, seconds=10.0 + second))
        found = history.see(sighting(status, seconds=float(second)))
    assert WINDOW_SECONDS == 10
    assert found.samples_per_second == pytest.approx(96.0)


def test_a_parked_pull_says_that_a_replica_waits_and_for_whom() -> None:
    status = job(*(member(rank, clock=10 - rank, phase=ev.Phase.PULL) for rank in range(4)))
    first = server(0, ((0, parked((3, 7), seconds=1.0)),), ())
    second = server(2, ((0, parked((2, 6), (3, 7), seconds=2.0, others=5, bound="because")),), ())
    rows = overview(sighting(status, first, second)).replicas
    assert [row.does for row in rows] == ["wait", "pull", "pull", "pull"]
    assert rows[0].waits_for == (2, 3)  # the slowest first, each once
    assert (rows[0].waits_for_others, rows[0].waits_because, rows[0].waits_seconds) == (5, "because", 2.0)


def test_a_wait_that_no_shard_knows_of_any_more_is_over() -> None:
    [row] = overview(sighting(job(member(0, phase=ev.Phase.WAIT)), server(0, ()))).replicas
    assert row.does == "pull"


@pytest.mark.parametrize(("standing", "does"), [(ev.Standing.LEFT, "done"), (ev.Standing.DEAD, "dead")])
def test_who_has_gone_does_nothing_and_has_no_speed(standing: ev.Standing, does: str) -> None:
    [row] = overview(sighting(job(member(0, clock=5, standing=standing)))).replicas
    assert (row.standing, row.does, row.samples_per_second) == (standing.value, does, None)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "training"),
        ({"sealed": False}, "initialising"),
        ({"sealed": False, "started": False}, "joining"),
        ({"job": None}, "waiting"),
        ({"ended": True}, "over"),
        ({"ended": True, "reason": "Replica 0 failed."}, "failed"),
    ],
)
def test_a_job_has_a_state(changes: dict[str, object], state: str) -> None:
    found = overview(sighting(replace(job(), **changes)))  # type: ignore[arg-type]
    assert (found.state, found.reason) == (state, changes.get("reason", ""))


def test_the_fraction_counts_those_who_are_still_to_join_and_not_those_who_are_gone() -> None:
    status = job(member(0, clock=50), member(1, clock=50))
    assert overview(sighting(status)).fraction == 0.5
    assert status.job is not None
    four = replace(status.job, replicas=4, versions_total=400)
    assert overview(sighting(replace(status, job=four))).fraction == 0.25
    gone = job(member(0, clock=50), member(1, clock=50, standing=ev.Standing.LEFT))
    assert overview(sighting(gone)).fraction == pytest.approx(2 / 3)


def test_in_sync_each_replica_takes_all_the_steps_of_the_schedule() -> None:
    status = job(member(0, clock=50, steps=0))
    assert status.job is not None
    spec = replace(status.job, consistency="sync", replicas=2, versions_total=100)
    assert overview(sighting(replace(status, job=spec))).fraction == 0.25


def test_the_job_has_the_mean_loss_and_the_newest_accuracy() -> None:
    nan = ev.Counters(loss=math.nan)
    found = overview(sighting(job(member(0, clock=1), member(1, counters=nan))))
    assert (found.loss, found.accuracy, found.samples) == (0.5, 0.875, 32)
    assert (found.moment.loss, found.moment.accuracy) == (0.5, 0.875)


def test_servers_that_do_not_answer_are_told_from_those_that_do() -> None:
    found = overview(sighting(job(servers=2), server(2, (), ())))
    assert [(row.address, row.received_bytes) for row in found.servers] == [("h:0", None), ("h:1", 2_000_000)]
    assert [(row.shard, row.server, row.version) for row in found.shards] == [(2, 1, 40), (3, 1, 41)]
    assert found.shards[0].staleness == {0: 30, 2: 10}
