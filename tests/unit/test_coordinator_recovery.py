"""The coordinator by itself: checkpoints, lost servers, and going on."""

from dataclasses import replace

from desk import JOB, Desk, only

from paramserver import events as ev
from paramserver.coordinator import Coordinator


def test_what_was_dealt_is_written_down_before_a_checkpoint_becomes_whole():
    desk = Desk(replace(JOB, samples=20, batch=3, epochs=3), recovers=True)
    desk.start()
    for rank in (0, 1):
        for clock in (0, 4):
            desk.ask(ev.PartAsked, ev.Replica(rank, 1), 0, clock)
    record = only(desk.tell(ev.CheckpointWritten()), ev.Remember).record
    assert record.dealt.opened == 2


def test_what_goes_wrong_with_checkpoints_is_said_until_one_is_kept_again():
    desk = Desk(recovers=True)
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
    desk = Desk(recovers=True)
    desk.start()
    desk.leave(0)
    desk.leave(1)
    assert desk.ended() == [""]
    desk.tell(ev.CheckpointFailed(None, "No room."))
    status = only(desk.ask(ev.StatusReceived), ev.StatusAnswered).status
    assert (status.ended, status.reason) == (True, "No room.")
    assert only(desk.ask(ev.HeartbeatReceived, ()), ev.HeartbeatAnswered).reason == "No room."


def test_who_is_not_in_the_checkpoint_begins_at_the_furthest_clock_over_the_shards():
    desk = Desk(replace(JOB, consistency="async", on_death="drop"), recovers=True)
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
    desk = Desk(recovers=True)
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
    desk = Desk(replace(JOB, consistency="async", on_death="drop"), recovers=True)
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
