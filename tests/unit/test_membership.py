"""Who counts: ranks, incarnations, leases, and what a death means."""

from dataclasses import replace

import pytest

from paramserver.errors import Fault, RequestError
from paramserver.events import Beat, Counters, JobSpec, Phase, Replica, Standing, TensorSpec
from paramserver.membership import Membership

JOB = JobSpec((TensorSpec("w", (1,)),), replicas=2, replicas_max=3, lease_seconds=10, step_timeout_seconds=60)
DROP = replace(JOB, on_death="drop")


def members_of(job, *names):
    members = Membership(job)
    for name in names:
        members.join(name, f"{name}-1", now=0)
    return members


def beat(rank, incarnation=1, clock=0, phase=Phase.PULL):
    return Beat(Replica(rank, incarnation), clock, 0, phase, Counters())


def test_ranks_are_given_in_order_and_the_job_starts_with_the_last_expected_one():
    members = Membership(JOB)
    assert members.join("a", "1", now=0) == (Replica(0, 1), True)
    assert not members.started
    assert members.join("b", "1", now=0) == (Replica(1, 1), True)
    assert members.started
    assert not members.member(1).late
    assert members.join("c", "1", now=0) == (Replica(2, 1), True)
    assert members.member(2).late
    with pytest.raises(RequestError, match="3 replicas already, so 'd'") as refused:
        members.join("d", "1", now=0)
    assert refused.value.fault is Fault.EXHAUSTED


def test_a_retry_of_one_join_is_the_same_incarnation_and_another_attempt_the_next():
    members = members_of(JOB, "a")
    assert members.join("a", "a-1", now=1) == (Replica(0, 1), False)
    assert members.join("a", "a-2", now=1) == (Replica(0, 2), True)
    assert members.join("a", "a-2", now=1) == (Replica(0, 2), False)


def test_a_retry_that_comes_after_its_own_death_is_a_new_incarnation():
    members = members_of(JOB, "a", "b")
    assert [death.rank for death in members.expire(10)] == [0, 1]
    assert members.join("a", "a-1", now=11) == (Replica(0, 2), True)
    assert members.beat(beat(0, 2), now=12)


def test_a_process_that_was_fenced_goes_on_counting_and_its_successor_begins_anew():
    members = members_of(JOB, "a", "b")

    def applied():
        return members.statuses(now=0)[0].counters.gradients.get("applied", 0)

    def says(incarnation, count, now):
        counters = Counters(gradients={"applied": count})
        assert members.beat(Beat(Replica(0, incarnation), 1, 0, Phase.PULL, counters), now)

    says(1, 5, now=1)
    members.expire(11)
    assert applied() == 5
    assert members.join("a", "a-2", now=12, incarnation=1) == (Replica(0, 2), True)
    assert applied() == 5, "it is the same process, which says all of it again"
    says(2, 7, now=13)
    members.expire(23)
    assert members.join("a", "a-3", now=24) == (Replica(0, 3), True)
    says(3, 1, now=25)
    assert applied() == 8, "another process begins at 0"
    again = Membership(JOB)
    again.restore(members.records(), now=30)
    members = again
    assert applied() == 8
    says(3, 2, now=31)
    assert applied() == 9
    assert members.join("a", "a-4", now=32) == (Replica(0, 4), True)
    assert applied() == 9


def test_a_retry_of_a_join_is_a_sign_of_life():
    members = members_of(JOB, "a")
    members.join("a", "a-1", now=9)
    assert members.expire(18.9) == []
    assert len(members.expire(19)) == 1


def test_whoever_joins_anew_before_the_start_is_not_late():
    for on_death in ("drop", "restart"):
        members = members_of(replace(JOB, replicas=3, on_death=on_death), "a", "b")
        members.leave(Replica(1, 1), Counters())
        members.expire(10)
        members.join("a", "a-2", now=11)
        members.join("b", "b-2", now=11)
        assert not members.member(0).late
        assert not members.member(1).late


def test_whoever_comes_back_after_the_start_is_late_unless_the_others_have_waited():
    for job, late in ((DROP, True), (JOB, False)):
        members = members_of(job, "a", "b")
        members.expire(10)
        members.join("a", "a-2", now=11)
        assert members.member(0).late is late
    members.join("b", "b-2", now=11)
    members.leave(Replica(1, 2), Counters())
    members.join("b", "b-3", now=12)
    assert members.member(1).late


def test_a_takeover_of_a_living_replica_is_waited_for_as_a_restart():
    members = members_of(DROP, "a", "b")
    members.join("a", "a-2", now=1)
    assert members.member(0).incarnation == 2
    assert not members.member(0).late
    assert not members.beat(beat(0, 1), now=1)


def test_a_lease_runs_out_exactly_at_its_end_and_a_beat_moves_it():
    members = members_of(JOB, "a", "b")
    members.beat(beat(0), now=4)
    assert members.next_deadline() == 10
    assert members.expire(9.99) == []
    assert [death.rank for death in members.expire(10)] == [1]
    assert "not heard of for 10.0 s (lease 10 s)" in members_of(JOB, "a").expire(10)[0].reason
    assert members.expire(13.99) == []
    assert [death.rank for death in members.expire(14)] == [0]
    assert members.expire(1000) == []


def test_the_dead_are_fenced_and_a_beat_of_theirs_is_no_sign_of_life():
    members = members_of(JOB, "a", "b")
    members.expire(10)
    assert not members.beat(beat(0, 1), now=11)
    assert not members.beat(beat(0, 2), now=11)  # nobody has joined as that one yet
    with pytest.raises(RequestError, match="is not a member"):
        members.leave(Replica(0, 1), Counters())
    with pytest.raises(RequestError, match="is not a member"):
        members.leave(Replica(0, 2), Counters())
    assert members.statuses(11)[0].standing is Standing.DEAD


def test_waiting_is_never_death_but_a_step_may_be():
    members = members_of(JOB, "a", "b")
    for now in range(0, 200, 5):
        members.beat(beat(0, phase=Phase.WAIT), now)
        members.beat(beat(1, clock=3, phase=Phase.COMPUTE if now >= 50 else Phase.PULL), now)
        dead = members.expire(now)
        if now < 110:  # since 50 in phase compute, and 60 are allowed
            assert dead == []
        elif now == 110:
            assert [death.rank for death in dead] == [1]
            assert "in phase compute of clock 3 for 60.0 s (step timeout 60 s)" in dead[0].reason
        else:
            assert dead == []


def test_a_new_clock_or_phase_begins_the_step_time_anew():
    members = members_of(replace(JOB, lease_seconds=1000), "a", "b")
    members.beat(beat(0, clock=0, phase=Phase.COMPUTE), now=0)
    members.beat(beat(0, clock=1, phase=Phase.COMPUTE), now=50)
    assert members.expire(109) == []
    members.beat(beat(0, clock=1, phase=Phase.PUSH), now=109)
    assert members.expire(168) == []
    assert [death.rank for death in members.expire(169)] == [0]


def test_who_is_waited_for_after_a_death():
    for job, required in ((JOB, [0, 1]), (DROP, [1])):
        members = members_of(job, "a", "b")
        members.beat(beat(1), now=9)
        members.expire(10)
        assert members.required() == required
        assert members.member(0).live is (0 in required)
        members.leave(Replica(1, 1), Counters())
        assert members.finished() is (job is DROP)


def test_the_finished_are_not_waited_for():
    members = members_of(JOB, "a", "b")
    assert members.leave(Replica(0, 1), Counters(gradients={"computed": 3}))
    assert not members.leave(Replica(0, 1), Counters())
    assert members.statuses(0)[0].counters.gradients == {"computed": 3}
    assert members.required() == [1]
    assert not members.finished()
    assert members.beat(beat(0), now=1)  # it still lives, and is told nothing else
    members.leave(Replica(1, 1), Counters())
    assert members.finished()


def test_nothing_is_finished_before_the_start():
    members = members_of(JOB, "a")
    members.leave(Replica(0, 1), Counters())
    assert not members.finished()


def test_a_restart_is_waited_for_only_so_long():
    members = members_of(JOB, "a", "b")
    members.beat(beat(1), now=9)
    members.expire(10)
    assert members.next_deadline() == 19  # b's lease comes first
    members.beat(beat(1), now=39)
    assert members.next_deadline() == 40
    assert members.overdue(39.9) == ""
    assert "replica 0 (a) died and was not restarted within 30.0 s" in members.overdue(40)
    members.join("a", "a-2", now=40)
    assert members.overdue(41) == ""


def test_under_drop_nobody_is_overdue():
    members = members_of(DROP, "a", "b")
    members.expire(10)
    assert members.overdue(10_000) == ""
    assert members.next_deadline() is None


def test_a_rank_may_be_restarted_only_so_often():
    members = members_of(replace(JOB, restarts_max=2), "a", "b")
    for restart in (2, 3):
        members.join("a", f"a-{restart}", now=0)
        assert members.overdue(0) == ""
    members.join("a", "a-4", now=0)
    assert "replica 0 (a) needed more than 2 restarts" in members.overdue(0)


def test_coming_back_after_leaving_is_no_restart():
    members = members_of(replace(JOB, restarts_max=0), "a", "b")
    members.leave(Replica(0, 1), Counters())
    members.join("a", "a-2", now=0)
    assert members.overdue(0) == ""


def test_after_a_pause_all_times_begin_anew():
    members = members_of(JOB, "a", "b")
    members.beat(beat(1, phase=Phase.COMPUTE), now=9)
    members.expire(10)
    members.grant_fresh_leases(100)
    assert members.expire(109.9) == []
    assert members.overdue(129.9) == ""
    assert "not restarted" in members.overdue(130)
    assert [death.rank for death in members.expire(110)] == [1]


def test_counters_of_a_rank_are_of_all_its_incarnations():
    members = members_of(JOB, "a", "b")
    members.beat(Beat(Replica(0, 1), 1, 5, Phase.PUSH, Counters(gradients={"computed": 4}, loss=2.0)), now=1)
    assert members.statuses(3)[0].counters.gradients == {"computed": 4}
    assert members.statuses(3)[0].heard_seconds == 2
    assert (members.statuses(3)[0].clock, members.statuses(3)[0].steps) == (1, 5)
    members.join("a", "a-2", now=3)
    members.beat(Beat(Replica(0, 2), 1, 5, Phase.PUSH, Counters(gradients={"computed": 3}, loss=1.0)), now=4)
    assert members.statuses(5)[0].counters.gradients == {"computed": 7}
    assert members.statuses(5)[0].counters.loss == 1.0


def test_whoever_left_before_its_last_step_is_not_waited_for_after_a_roll_back():
    members = members_of(JOB, "a", "b", "c")
    for rank in (0, 1):
        members.beat(Beat(Replica(rank, 1), 5, 5, Phase.IDLE, Counters()), now=1)
    members.leave(Replica(0, 1), Counters(), 5)  # it has done all of its steps
    members.leave(Replica(1, 1), Counters(), 3, goes=True)
    members.revive({0: 4, 1: 2, 2: 4}, now=2, grace_seconds=0)
    assert members.required() == [0, 2]
    assert members.statuses(now=2)[1].standing is Standing.LEFT
    assert members.clocks() == {0: 4, 1: 2, 2: 4}
    assert members.join("b", "b-2", now=3) == (Replica(1, 2), True)
