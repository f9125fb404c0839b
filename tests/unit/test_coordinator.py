"""The coordinator by itself: who is answered when, which orders leave, and when the timer is set."""

from dataclasses import replace

import pytest

from paramserver import events as ev
from paramserver.coordinator import SCORES_MAX, Coordinator
from paramserver.errors import Fault

JOB = ev.JobSpec(
    (ev.TensorSpec("w", (4,)),),
    replicas=2,
    replicas_max=3,
    lease_seconds=10,
    step_timeout_seconds=60,
    start_timeout_seconds=100,
)


class Desk:
    """A coordinator of one server with two shards, which report at once unless told not to."""

    def __init__(self, job=JOB, prompt=True):
        self.coordinator, self.job, self.prompt = Coordinator(1, 2), job, prompt
        self.now, self.orders, self.requests = 0.0, [], 0
        self.tell(ev.ServerRegistered(0, "here:1", 2))

    def tell(self, event):
        """Return what came of it but the orders, which are kept, and the reports that followed."""
        effects = self.coordinator.handle(event, self.now)
        rest = [effect for effect in effects if not isinstance(effect, ev.Ordered)]
        for effect in effects:
            if isinstance(effect, ev.Ordered):
                self.orders.append(effect)
                if self.prompt:
                    rest += self.report(effect)
        return rest

    def report(self, ordered):
        shards = (0, 1) if ordered.shard is None else (ordered.shard,)
        order = ordered.order
        members = order.members if isinstance(order, ev.MembershipChanged) else ()
        rest = []
        if isinstance(order, ev.RoundClosed):
            return rest
        for shard in shards:
            clocks = {member.rank: 0 for member in members}
            rest += self.tell(ev.OrderHandled(shard, order.number, clocks))
        return rest

    def ask(self, kind, *what):
        self.requests += 1
        return self.tell(kind(self.requests, *what))

    def join(self, name, attempt="1", **changes):
        return self.ask(ev.JoinReceived, name, attempt, replace(self.job, **changes))

    def leave(self, rank, failure=""):
        return self.ask(ev.LeaveReceived, ev.Replica(rank, 1), ev.Counters(), failure)

    def start(self):
        for rank in range(self.job.replicas):
            self.join(f"worker{rank}")
        for shard in (0, 1):
            self.tell(ev.Staged(shard, "me"))

    def contribute(self, rank, round, refusal="", shards=(0, 1)):
        for shard in shards:
            self.tell(ev.Contributed(shard, round, rank, 1, refusal))

    def closed(self):
        return [e.order.ranks for e in self.orders if isinstance(e.order, ev.RoundClosed)]

    def ended(self):
        return [e.order.reason for e in self.orders if isinstance(e.order, ev.JobEnded)]


def only(effects, kind):
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]


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


def closed_rounds(desk):
    return [sent.order.ranks for sent in desk.orders if isinstance(sent.order, ev.RoundClosed)]


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
    assert closed_rounds(desk) == []
    desk.tell(ev.Contributed(1, 0, rank=1, samples=1))
    assert closed_rounds(desk) == [(0, 1)]


def test_a_leaver_without_a_contribution_holds_the_round_only_until_all_shards_have_said_so():
    desk = started()
    for shard in (0, 1):
        desk.tell(ev.Contributed(shard, 0, rank=0, samples=1))
    desk.prompt = False
    desk.leave(1)
    leave = desk.orders[-1].order
    desk.tell(ev.OrderHandled(0, leave.number, {1: 0}))
    assert closed_rounds(desk) == []
    desk.tell(ev.OrderHandled(1, leave.number, {1: 0}))
    assert closed_rounds(desk) == [(0,)]


def test_the_last_ones_to_leave_are_still_in_their_round():
    desk = started()
    desk.leave(1)
    for shard in (0, 1):
        desk.tell(ev.Contributed(shard, 0, rank=0, samples=1))
    assert closed_rounds(desk) == [(0,)]
    desk.prompt = False
    desk.tell(ev.Contributed(0, 1, rank=0, samples=1))
    desk.leave(0)
    desk.tell(ev.Contributed(1, 1, rank=0, samples=1))
    assert closed_rounds(desk) == [(0,), (0,)]
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


def test_what_was_dealt_is_written_down_before_a_checkpoint_becomes_whole():
    desk = Desk(replace(JOB, samples=20, batch=3, epochs=3))
    desk.coordinator = Coordinator(1, 2, recovers=True)
    desk.tell(ev.ServerRegistered(0, "here:1", 2))
    desk.start()
    for rank in (0, 1):
        for clock in (0, 4):
            desk.ask(ev.PartAsked, ev.Replica(rank, 1), 0, clock)
    record = only(desk.tell(ev.CheckpointWritten()), ev.Remember).record
    assert record.dealt.opened == 2


def test_what_goes_wrong_with_checkpoints_is_said_until_one_is_kept_again():
    desk = Desk()
    desk.coordinator = Coordinator(1, 2, recovers=True)
    desk.tell(ev.ServerRegistered(0, "here:1", 2))
    desk.start()

    def trouble():
        return only(desk.ask(ev.StatusReceived), ev.StatusAnswered).status.trouble

    assert trouble() == ""
    note = only(desk.tell(ev.CheckpointFailed(0, "No room.")), ev.Noted)
    assert note.message == "Checkpoint 0 could not be kept. No room."
    assert trouble() == f"{note.message} The training goes on, and tries again with the next one."
    assert desk.tell(ev.CheckpointFailed(0, "Another shard has no room.")) == [], "once is enough"
    desk.coordinator.handle(ev.CheckpointKept(ev.Kept(0)), 0.0)
    assert trouble() != "", "that one was given up"


def test_a_job_whose_final_weights_could_not_be_kept_has_failed():
    desk = Desk()
    desk.coordinator = Coordinator(1, 2, recovers=True)
    desk.tell(ev.ServerRegistered(0, "here:1", 2))
    desk.start()
    desk.leave(0)
    desk.leave(1)
    assert desk.ended() == [""]
    desk.tell(ev.CheckpointFailed(None, "No room."))
    status = only(desk.ask(ev.StatusReceived), ev.StatusAnswered).status
    assert (status.ended, status.reason) == (True, "No room.")
    assert only(desk.ask(ev.HeartbeatReceived, ()), ev.HeartbeatAnswered).reason == "No room."


def test_who_is_not_in_the_checkpoint_begins_at_the_furthest_clock_over_the_shards():
    desk = Desk(replace(JOB, consistency="async", on_death="drop"))
    desk.coordinator = Coordinator(1, 2, recovers=True)
    desk.tell(ev.ServerRegistered(0, "here:1", 2))
    desk.start()
    desk.tell(ev.CheckpointKept(ev.Kept(0, 0, {0: 7, 1: 9})))
    desk.join("worker2")
    desk.tell(ev.ServerLost(0, "It stopped."))
    desk.prompt = False
    desk.tell(ev.ServerRegistered(0, "here:1", 2))
    number = desk.orders[-1].order.number
    desk.tell(ev.OrderHandled(0, number, {0: 7, 1: 9, 2: 7}))
    desk.tell(ev.OrderHandled(1, number, {0: 8, 1: 9, 2: 8}))
    granted = {name: only(desk.join(name), ev.JoinGranted).clock for name in ("worker0", "worker2")}
    # Of worker0 shard 0 lacks step 7; of worker2 shard 1 would take step 7 for one that it has had.
    assert granted == {"worker0": 7, "worker2": 8}


def go_back(kept):
    """Lose a server, find it again, and learn that the newest checkpoint is torn."""
    desk = Desk()
    desk.coordinator = Coordinator(1, 2, recovers=True)
    desk.tell(ev.ServerRegistered(0, "here:1", 2))
    desk.start()
    for round in (0, 1):
        desk.contribute(0, round)
        desk.contribute(1, round)
    desk.tell(ev.CheckpointKept(ev.Kept(0, 2, {0: 2, 1: 2})))
    desk.tell(ev.ServerLost(0, "It stopped."))
    desk.prompt = False
    desk.tell(ev.ServerRegistered(0, "here:1", 2))
    effects = desk.tell(ev.CheckpointLost(0, "It is torn.", kept))
    return desk, effects


def test_where_the_newest_checkpoint_is_torn_all_go_back_to_the_one_before():
    older = ev.Kept(5, 1, {0: 1, 1: 1})
    desk, effects = go_back(older)
    notes = [effect.message for effect in effects if isinstance(effect, ev.Noted)]
    assert notes[0] == "It is torn. The checkpoint before it is used."
    assert only(effects, ev.Remember).record.kept == older
    begun = [each.order for each in desk.orders if isinstance(each.order, ev.GenerationBegun)]
    assert [(order.generation, order.checkpoint) for order in begun] == [(1, 0)] * 2 + [(2, 5)] * 2
    assert desk.tell(ev.CheckpointLost(0, "Another shard says so, too.", older)) == []
    status = only(desk.ask(ev.StatusReceived), ev.StatusAnswered).status
    assert (status.rounds, status.trouble) == (1, "It is torn. The checkpoint before it is used.")


def test_where_no_other_checkpoint_is_whole_the_job_ends_with_that_sentence():
    desk, _ = go_back(None)
    assert desk.ended() == ["It is torn."]


def test_a_job_whose_replicas_had_all_died_goes_on_with_those_that_come():
    desk = Desk(replace(JOB, consistency="async", on_death="drop"))
    desk.coordinator = Coordinator(1, 2, recovers=True)
    desk.tell(ev.ServerRegistered(0, "here:1", 2))
    desk.start()
    desk.tell(ev.CheckpointKept(ev.Kept(0, 0, {0: 3, 1: 4})))
    desk.now = 10.0
    [*_, remembered] = [each for each in desk.tell(ev.TimerFired()) if isinstance(each, ev.Remember)]
    assert desk.ended() == ["Every replica is dead."]
    again = Desk(desk.job)
    again.coordinator, again.prompt = Coordinator(1, 2, recovers=True), False
    again.coordinator.restore(remembered.record, again.now, reopens=True)
    again.tell(ev.ServerRegistered(0, "here:2", 2))
    number = again.orders[-1].order.number
    for shard in (0, 1):
        again.tell(ev.OrderHandled(shard, number, {0: 3, 1: 4}))
    assert again.ended() == []
    assert [member.live for member in again.orders[-1].order.members] == [True, True]
    again.prompt = True
    again.join("worker1", attempt="2")
    assert again.ended() == []
    while again.now < JOB.start_timeout_seconds + JOB.lease_seconds and not again.ended():
        again.now += JOB.lease_seconds / 4
        again.tell(ev.TimerFired())
    # Who never came has had as long as at the start of a job.
    assert again.now == JOB.start_timeout_seconds + JOB.lease_seconds
    assert again.ended() == ["Every replica is dead."]
