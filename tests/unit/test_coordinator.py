"""The coordinator by itself: who is answered when, which orders leave, and when the timer is set."""

from dataclasses import replace

import pytest
from desk import JOB, Desk, only

from paramserver import events as ev
from paramserver.coordinator import SCORES_MAX, Coordinator
from paramserver.errors import Fault


def test_nobody_joins_before_all_servers_are_up():
    coordinator = Coordinator(servers=2, shards_per_server=1)
    coordinator.handle(ev.ServerRegistered(1, "there:1", 1), 0)
    [effect] = coordinator.handle(ev.JoinReceived(1, "a", "1", JOB), 0)
    assert effect == ev.Unavailable(1, "1 of 2 servers are up; waiting for server 0.")
    coordinator.handle(ev.ServerRegistered(0, "here:1", 1), 0)
    effects = coordinator.handle(ev.JoinReceived(2, "a", "1", JOB), 0)
    assert not [effect for effect in effects if isinstance(effect, ev.Unavailable)]


def test_a_join_is_answered_when_every_shard_knows_of_it_and_its_retries_with_it():
    desk = Desk(prompt=False)
    desk.join("a")
    desk.join("a")
    announced = desk.orders[-1].order
    assert isinstance(announced, ev.MembershipChanged)
    assert desk.tell(ev.OrderHandled(0, announced.number, {0: 0})) == []
    granted = desk.tell(ev.OrderHandled(1, announced.number, {0: 0}))
    assert [effect.request for effect in granted] == [1, 2]
    assert {effect.replica for effect in granted} == {ev.Replica(0, 1)}
    assert granted[0].addresses == ("here:1", "here:1")
    assert {part.shard for part in granted[0].placement} == {0, 1}
    assert only(desk.join("a"), ev.JoinGranted).replica == ev.Replica(0, 1)


def test_orders_are_numbered_without_gaps_on_every_shard():
    desk = Desk()
    desk.start()
    desk.contribute(0, 0)
    desk.contribute(1, 0)
    desk.leave(0)
    desk.leave(1)
    for shard in (0, 1):
        numbers = [e.order.number for e in desk.orders if e.shard in (None, shard)]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_restart_begins_at_its_nearest_clock_and_a_newcomer_at_the_furthest():
    for on_death, clock in (("restart", 3), ("drop", 5)):
        desk = Desk(replace(JOB, on_death=on_death, consistency="async"))
        desk.start()
        desk.now = 10.0
        desk.ask(ev.HeartbeatReceived, (ev.Beat(ev.Replica(1, 1), 0, 0, ev.Phase.PULL, ev.Counters()),))
        desk.tell(ev.TimerFired())
        desk.prompt = False
        desk.join("worker0", "2")
        number = desk.orders[-1].order.number
        desk.tell(ev.OrderHandled(1, number, {0: 5}))
        granted = only(desk.tell(ev.OrderHandled(0, number, {0: 3})), ev.JoinGranted)
        assert (granted.replica, granted.clock) == (ev.Replica(0, 2), clock)


def test_the_first_complete_initialiser_is_sealed_once():
    desk = Desk()
    desk.join("a")
    for shard, who in ((0, "a"), (1, "b"), (1, "b"), (0, "b"), (1, "a"), (0, "c"), (1, "c")):
        desk.tell(ev.Staged(shard, who))
    sealed = [e.order.initialiser for e in desk.orders if isinstance(e.order, ev.Sealed)]
    assert sealed == ["b"]


def test_a_round_needs_every_counting_rank_on_every_shard_and_closes_once():
    desk = Desk()
    desk.start()
    desk.contribute(0, 0)
    desk.contribute(1, 0, shards=(1, 1))
    assert desk.closed() == []
    desk.contribute(1, 0, shards=(0,))
    assert desk.closed() == [(0, 1)]
    desk.contribute(1, 0)  # reports that come too late, or again
    desk.contribute(0, 0)
    assert desk.closed() == [(0, 1)]


def test_a_round_is_not_closed_before_the_start_or_the_weights():
    desk = Desk()
    desk.join("worker0")
    desk.contribute(0, 0)
    desk.join("worker1")
    desk.leave(0)
    desk.join("late")
    assert desk.closed() == []
    desk.tell(ev.Staged(0, "me"))
    desk.tell(ev.Staged(1, "me"))
    assert desk.closed() == []
    desk.leave(1)  # nobody is left in round 0, and the newcomer begins with round 1
    assert desk.closed() == [(0,)]


def test_who_leaves_before_the_weights_does_not_close_a_round_that_could_not_be_applied():
    desk = Desk(replace(JOB, replicas=1, replicas_max=2))
    desk.join("worker0")
    desk.join("late")
    desk.leave(0)
    assert desk.closed() == []
    desk.tell(ev.Staged(0, "me"))
    desk.tell(ev.Staged(1, "me"))
    assert [type(e.order).__name__ for e in desk.orders[-2:]] == ["Sealed", "RoundClosed"]
    assert desk.closed() == [()]


def test_a_refused_gradient_is_left_out_and_a_round_of_only_those_says_so():
    desk = Desk()
    desk.start()
    desk.contribute(0, 0, refusal="It holds nan.", shards=(1,))
    desk.contribute(0, 0, shards=(0,))
    desk.contribute(1, 0)
    assert desk.closed() == [(1,)]
    desk.contribute(1, 1, refusal="The second.")
    desk.contribute(0, 1, refusal="The first.", shards=(0,))
    [note] = [
        e for e in desk.coordinator.handle(ev.Contributed(1, 1, 0, 0, "The first."), 0)
        if isinstance(e, ev.Noted)
    ]  # fmt: skip
    assert note.message == "Round 1 changed nothing: every gradient was refused. The first."
    desk.contribute(0, 2)
    desk.contribute(1, 2)
    assert desk.closed()[-1] == (0, 1), "a refusal is of its round only"


def test_the_job_ends_with_the_last_who_leaves_and_only_once():
    desk = Desk()
    desk.start()
    desk.leave(0)
    assert desk.ended() == []
    desk.leave(1)
    desk.leave(1)
    desk.tell(ev.ServerLost(0, "It stopped."))
    assert desk.ended() == [""]
    assert only(desk.join("worker0", "2"), ev.Ended).reason == ""
    status = only(desk.ask(ev.StatusReceived), ev.StatusAnswered).status
    assert (status.ended, status.reason) == (True, "")


def test_a_validation_score_that_reaches_the_target_ends_the_job_well():
    desk = Desk(replace(JOB, target_accuracy=0.75))
    desk.start()
    for split, accuracy in (("validation", 0.74), ("test", 0.9)):
        desk.ask(ev.ScoreReceived, ev.Score(split, 3, -1, 0.5, accuracy, 8))
    assert desk.ended() == []
    effects = desk.ask(ev.ScoreReceived, ev.Score("validation", 4, -1, 0.5, 0.75, 8))
    only(effects, ev.Acknowledged)
    assert "At version 4 the validation accuracy is 0.7500" in only(effects, ev.Noted).message
    assert desk.ended() == [""]
    desk.contribute(0, 0)
    desk.contribute(1, 0)
    assert desk.closed() == [], "no round is closed after the end"
    orders = len(desk.orders)
    for rank in (0, 1):  # they learn of it, and leave with what they have counted
        only(desk.leave(rank), ev.Acknowledged)
    assert len(desk.orders) == orders
    status = only(desk.ask(ev.StatusReceived), ev.StatusAnswered).status
    assert {member.standing for member in status.members} == {ev.Standing.LEFT}
    desk = Desk()
    desk.start()
    desk.ask(ev.ScoreReceived, ev.Score("validation", 4, -1, 0.0, 1.0, 8))
    assert desk.ended() == [], "without a target no score ends a job"


def test_a_lost_server_or_a_failed_replica_ends_the_job_with_its_sentence():
    desk = Desk()
    desk.start()
    desk.tell(ev.ServerLost(0, "It stopped."))
    assert desk.ended() == ["Server 0 was lost: It stopped."]
    [answer] = desk.ask(ev.HeartbeatReceived, ())
    assert (answer.ended, answer.reason) == (True, "Server 0 was lost: It stopped.")
    desk = Desk()
    desk.start()
    desk.leave(1, failure="Out of memory.")
    assert desk.ended() == ["Replica 1 failed: Out of memory."]


def test_whoever_waits_for_its_join_is_told_of_the_end():
    desk = Desk()
    desk.start()
    desk.prompt = False
    desk.join("late")
    assert only(desk.tell(ev.ServerLost(0, "It stopped.")), ev.Ended).request == desk.requests


def test_the_timer_is_set_for_the_next_deadline_and_set_again():
    desk = Desk(replace(JOB, lease_seconds=40, step_timeout_seconds=1000))
    assert only(desk.join("worker0"), ev.WakeAt).when == 40
    desk.now = 30.0
    assert not [e for e in desk.join("worker1") if isinstance(e, ev.WakeAt)], "an earlier one is set"
    desk.ask(ev.HeartbeatReceived, (ev.Beat(ev.Replica(0, 1), 0, 0, ev.Phase.PULL, ev.Counters()),))
    desk.now = 40.0
    assert only(desk.tell(ev.TimerFired()), ev.WakeAt).when == 70
    desk.now = 70.0
    # Both died; the job began at 0 and has until 100 to get weights, and a restart is due by then, too.
    assert only(desk.tell(ev.TimerFired()), ev.WakeAt).when == 100


def test_a_step_that_begins_after_the_timer_was_set_is_not_overlooked():
    desk = Desk(replace(JOB, lease_seconds=1000, step_timeout_seconds=60))
    assert only(desk.join("worker0"), ev.WakeAt).when == 60


def test_a_pause_moves_every_time_also_that_of_the_start():
    desk = Desk()
    desk.join("worker0")
    desk.now = 500.0
    effects = desk.tell(ev.TimerFired())
    assert only(effects, ev.Noted).message.startswith("This server was paused for 490.0 s")
    assert only(effects, ev.WakeAt).when == 510
    assert desk.ended() == []
    assert only(desk.join("worker1"), ev.JoinGranted).replica == ev.Replica(1, 1)


def test_a_timer_that_fires_a_little_late_is_no_pause():
    desk = Desk()
    desk.join("worker0")
    desk.now = 15.0
    assert "not heard of for 15.0 s" in only(desk.tell(ev.TimerFired()), ev.Noted).message


def test_unbalanced_shards_are_said():
    desk = Desk(replace(JOB, tensors=(ev.TensorSpec("w", (3, 100)),)))
    assert "the largest holds 1.33 times the mean" in only(desk.join("a"), ev.Noted).message


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"consistency": "snyc"}, "Did you mean 'sync'"),
        ({"optimizer": "adm"}, "Did you mean 'adam'"),
        ({"learning_rate": 0.0}, "learning rate must be"),
        ({"versions_total": 0}, "at least 1 update"),
        ({"tensors": ()}, "at least one tensor"),
        ({"tensors": (ev.TensorSpec("w", (1,), "float64"),)}, "'w' is float64; only float32"),
        ({"tensors": (ev.TensorSpec("w", (1,)), ev.TensorSpec("a", (1,)))}, "in key order"),
        ({"tensors": (ev.TensorSpec("a", (1,)), ev.TensorSpec("a", (1,)))}, "each key once"),
        ({"tensors": (ev.TensorSpec("a", (0,)),)}, "holds no elements"),
        ({"replicas": 0}, "1 <= replicas"),
        ({"replicas": 4}, "replicas <= replicas_max, but has 4 and 3"),
        ({"on_death": "ignore"}, "'restart' or 'drop', not 'ignore'"),
        ({"lease_seconds": 0.0}, "lease_seconds must be"),
        ({"step_timeout_seconds": float("nan")}, "step_timeout_seconds must be"),
        ({"start_timeout_seconds": float("inf")}, "start_timeout_seconds must be"),
        ({"restart_timeout_seconds": float("nan")}, "restart_timeout_seconds must be"),
        ({"restarts_max": -1}, "restarts_max must be"),
        ({"target_accuracy": 1.5}, "target_accuracy must be from 0 to 1"),
    ],
)
def test_a_job_that_could_not_run_is_refused_and_another_can_come(changes, sentence):
    desk = Desk()
    assert sentence in only(desk.join("a", **changes), ev.Refused).message
    assert only(desk.join("a"), ev.JoinGranted).replica == ev.Replica(0, 1)


def test_another_job_is_refused_and_takes_no_rank():
    desk = Desk()
    desk.join("a")
    refused = only(desk.join("b", seed=1), ev.Refused)
    assert refused.fault is Fault.PRECONDITION
    assert "seed: 0 != 1" in refused.message
    assert only(desk.join("c"), ev.JoinGranted).replica == ev.Replica(1, 1)


def test_observers_are_counted_nowhere():
    desk = Desk()
    assert "no job yet" in only(desk.ask(ev.JoinReceived, "eye", "1", None), ev.Unavailable).message
    desk.join("a")
    granted = only(desk.ask(ev.JoinReceived, "eye", "1", None), ev.JoinGranted)
    assert (granted.replica, granted.job, granted.sealed) == (None, JOB, False)
    assert len(only(desk.ask(ev.StatusReceived), ev.StatusAnswered).status.members) == 1


def test_leaving_and_beating_before_there_is_a_job():
    desk = Desk()
    assert only(desk.leave(0), ev.Refused).fault is Fault.PRECONDITION
    stranger = ev.Beat(ev.Replica(0, 1), 0, 0, ev.Phase.PULL, ev.Counters())
    assert only(desk.ask(ev.HeartbeatReceived, (stranger,)), ev.HeartbeatAnswered).fenced == (
        stranger.replica,
    )
    desk.tell(ev.TimerFired())
    assert desk.ended() == []


def test_only_the_newest_scores_are_kept():
    desk = Desk()
    for version in range(SCORES_MAX + 5):
        only(desk.ask(ev.ScoreReceived, ev.Score("validation", version, -1, 0.5, 0.9, 10)), ev.Acknowledged)
    scores = only(desk.ask(ev.StatusReceived), ev.StatusAnswered).status.scores
    assert [score.version for score in scores] == list(range(5, SCORES_MAX + 5))


def test_everyone_dead_ends_a_job_that_goes_on_without_the_dead():
    desk = Desk(replace(JOB, on_death="drop"))
    desk.start()
    desk.now = 10.0
    desk.tell(ev.TimerFired())
    assert desk.ended() == ["Every replica is dead."]


def started(**changes):
    desk = Desk(replace(JOB, **changes))
    for name in "ab"[: desk.job.replicas]:
        desk.join(name)
    for shard in (0, 1):
        desk.tell(ev.Staged(shard, "i"))
    return desk


def test_a_leave_that_overtakes_a_contribution_does_not_shut_it_out():
    desk = started()
    for shard in (0, 1):
        desk.tell(ev.Contributed(shard, 0, rank=0, samples=1))
    desk.tell(ev.Contributed(0, 0, rank=1, samples=1))
    desk.prompt = False
    desk.leave(1)  # shard 1 has buffered its push, too, but that report is still on its way
    assert desk.closed() == []
    desk.tell(ev.Contributed(1, 0, rank=1, samples=1))
    assert desk.closed() == [(0, 1)]


def test_a_leaver_without_a_contribution_holds_the_round_only_until_all_shards_have_said_so():
    desk = started()
    for shard in (0, 1):
        desk.tell(ev.Contributed(shard, 0, rank=0, samples=1))
    desk.prompt = False
    desk.leave(1)
    leave = desk.orders[-1].order
    desk.tell(ev.OrderHandled(0, leave.number, {1: 0}))
    assert desk.closed() == []
    desk.tell(ev.OrderHandled(1, leave.number, {1: 0}))
    assert desk.closed() == [(0,)]


def test_the_last_ones_to_leave_are_still_in_their_round():
    desk = started()
    desk.leave(1)
    for shard in (0, 1):
        desk.tell(ev.Contributed(shard, 0, rank=0, samples=1))
    assert desk.closed() == [(0,)]
    desk.prompt = False
    desk.tell(ev.Contributed(0, 1, rank=0, samples=1))
    desk.leave(0)
    desk.tell(ev.Contributed(1, 1, rank=0, samples=1))
    assert desk.closed() == [(0,), (0,)]
    assert not any(isinstance(sent.order, ev.JobEnded) for sent in desk.orders)
    leave = next(sent.order for sent in reversed(desk.orders) if isinstance(sent.order, ev.MembershipChanged))
    for shard in (0, 1):
        desk.tell(ev.OrderHandled(shard, leave.number, {0: 2}))
    assert isinstance(desk.orders[-1].order, ev.JobEnded)


def test_a_job_that_is_asked_to_end_ends_once_with_that_reason():
    desk = started()
    desk.tell(ev.EndAsked("Enough."))
    desk.tell(ev.EndAsked("More than enough."))
    ends = [sent.order.reason for sent in desk.orders if isinstance(sent.order, ev.JobEnded)]
    assert ends == ["Enough."]
    [answer] = desk.join("another")
    assert (type(answer), answer.reason) == (ev.Ended, "Enough.")


def test_an_observer_may_look_at_what_a_job_has_come_to_but_nobody_joins_it_any_more():
    desk = started()
    for rank in (0, 1):
        desk.leave(rank)
    assert isinstance(desk.orders[-1].order, ev.JobEnded)
    [granted] = desk.ask(ev.JoinReceived, "evaluator", "1", None)
    assert isinstance(granted, ev.JoinGranted)
    assert isinstance(desk.join("late")[0], ev.Ended)
