"""One shard by itself: what it refuses, what it parks, and that refusing changes nothing."""

from dataclasses import replace

import numpy as np
import pytest

from paramserver import events as ev
from paramserver.errors import Fault
from paramserver.rows import RowGradient
from paramserver.shard import Shard

PART = ev.Slice("w", 0, 2, 0)
JOB = ev.JobSpec((ev.TensorSpec("w", (2, 3)),), optimizer="momentum:0.5", learning_rate=1.0, replicas=2,
                 replicas_max=3)  # fmt: skip


def array(value, shape=(2, 3), dtype=np.float32):
    return np.full(shape, value, dtype)


class Desk:
    """A shard with two replicas, and the orders that brought it there."""

    def __init__(self, rule="async", initialised=True, ranks=2):
        self.shard, self.orders, self.requests = Shard(0), 0, 0
        self.order(ev.JobAnnounced, replace(JOB, consistency=rule), (PART,))
        for rank in range(ranks):
            self.member(rank, started=rank == 1)
        if initialised:
            self.ask(ev.InitialiseReceived, "me", {PART: array(0)})
            self.order(ev.Sealed, "me")

    def order(self, kind, *what):
        self.orders += 1
        return self.shard.handle(kind(self.orders, *what), 0.0)

    def member(self, rank, incarnation=1, live=True, late=False, started=True):
        members = (ev.Member(rank, incarnation, live, late),)
        return self.order(ev.MembershipChanged, members, started, 2)

    def ask(self, kind, *what, now=0.0, **more):
        self.requests += 1
        return self.shard.handle(kind(self.requests, *what, **more), now)

    def pull(self, rank, clock, now=0.0, incarnation=1):
        return self.ask(ev.PullReceived, ev.Replica(rank, incarnation), 0, clock, now=now)

    def push(self, rank, sequence, value=1.0, incarnation=1, **changes):
        self.requests += 1
        push = ev.PushReceived(
            self.requests, ev.Replica(rank, incarnation), 0, sequence, 0, 1, {PART: array(value)}
        )
        return self.shard.handle(replace(push, **changes), 0.0)

    def observe(self, round=None):
        [effect] = self.ask(ev.PullReceived, None, round=round)
        return effect

    @property
    def weights(self):
        return self.observe().snapshot.values[PART]


def only(effects, kind):
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]


REFUSED = [
    ({"replica": ev.Replica(7, 1)}, Fault.UNKNOWN, "no replica 7, incarnation 1: 2 have joined"),
    ({"replica": ev.Replica(0, 2)}, Fault.UNKNOWN, "no replica 0, incarnation 2"),
    ({"replica": ev.Replica(0, 0)}, Fault.UNKNOWN, "no replica 0, incarnation 0"),
    ({"generation": 1}, Fault.OUT_OF_RANGE, "no generation 1; the newest is 0"),
    ({"sequence": 1}, Fault.PRECONDITION, "pushes sequence 1, but shard 0 expects 0"),
    ({"sequence": -1}, Fault.PRECONDITION, "pushes sequence -1"),
    ({"version": -1}, Fault.INVALID, "says version -1; a version is 0 or more"),
    ({"version": 1}, Fault.OUT_OF_RANGE, "computed at version 1, but shard 0 is at version 0"),
    ({"samples": 0}, Fault.INVALID, "says 0 samples"),
    ({"samples": -3}, Fault.INVALID, "says -3 samples"),
    ({"gradients": {}}, Fault.INVALID, "gradient of replica 0 lacks 'w' rows 0 to 2"),
    ({"gradients": {PART: array(1, (3, 2))}}, Fault.INVALID, "(3, 2) float32, expected (2, 3) float32"),
    ({"gradients": {PART: array(1, (1, 3))}}, Fault.INVALID, "(1, 3) float32, expected (2, 3) float32"),
    ({"gradients": {PART: array(1, (3,))}}, Fault.INVALID, "(3,) float32, expected (2, 3) float32"),
    ({"gradients": {PART: array(1, dtype=np.float64)}}, Fault.INVALID, "float64, expected"),
    ({"gradients": {PART: array(1, (3, 2)).T}}, Fault.INVALID, "not in C order"),
    ({"gradients": {PART: array(1), ev.Slice("v", 0, 1, 0): array(1)}}, Fault.UNKNOWN, "'v' rows 0 to 1"),
]


@pytest.mark.parametrize("rule", ["async", "sync", "ssp:1"])
@pytest.mark.parametrize(("changes", "fault", "sentence"), REFUSED)
def test_a_wrong_push_is_refused_by_name_and_has_changed_nothing(rule, changes, fault, sentence):
    desk, twin = Desk(rule), Desk(rule)
    refused = only(desk.push(0, **({"sequence": 0} | changes)), ev.Refused)
    assert sentence in refused.message
    assert refused.fault is fault
    # The twin has never had that push; from here on both say the same.
    twin.requests += 1
    assert desk.shard.statistics() == twin.shard.statistics()
    for sequence in (0, 1):
        for rank in (0, 1):
            assert desk.push(rank, sequence) == twin.push(rank, sequence)
        if rule == "sync":
            desk.order(ev.RoundClosed, sequence, (0, 1))
            twin.order(ev.RoundClosed, sequence, (0, 1))
    assert desk.weights.tobytes() == twin.weights.tobytes()


@pytest.fixture
def table(monkeypatch):
    """Let the tensor of the job be a table."""
    monkeypatch.setattr(f"{__name__}.JOB", replace(JOB, tensors=(ev.TensorSpec("w", (2, 3), table=True),)))


def row(index, value=1.0):
    return RowGradient(np.array([index]), np.full((1, 3), value, np.float32), (2, 3))


@pytest.mark.parametrize("rule", ["async", "sync"])
def test_a_read_of_rows_gets_these_rows_now_or_after_its_wait(table, rule):
    desk, wanted = Desk(rule), {PART: np.array([1])}
    granted = only(desk.ask(ev.PullReceived, ev.Replica(0, 1), 0, 0, rows=wanted), ev.PullGranted)
    assert granted.values()[PART].shape == (1, 3)
    desk.push(0, 0, gradients={PART: row(1)})
    desk.push(1, 0, gradients={PART: RowGradient(np.empty(0, np.int64), array(0, (0, 3)), (2, 3))})
    effects = desk.ask(ev.PullReceived, ev.Replica(0, 1), 0, 1, rows=wanted)
    if rule == "sync":
        only(effects, ev.PullParked)
        effects = desk.order(ev.RoundClosed, 0, (0, 1))
    moved = -0.5 if rule == "sync" else -1
    assert only(effects, ev.PullGranted).values()[PART].tolist() == [[moved] * 3]
    newest = desk.observe(1 if rule == "sync" else None).snapshot
    assert newest.values[PART].tolist() == [[0] * 3, [moved] * 3]
    assert newest.version == (1 if rule == "sync" else 2), "a push of no row is one all the same"
    [observed] = desk.ask(ev.PullReceived, None, rows=wanted)
    assert observed.values()[PART].shape == (1, 3)


@pytest.mark.parametrize("replica", [ev.Replica(0, 1), None])
def test_a_read_of_rows_that_are_not_here_is_refused(table, replica):
    desk = Desk()
    refused = only(desk.ask(ev.PullReceived, replica, rows={PART: np.array([2])}), ev.Refused)
    assert "'w' rows 0 to 2: expected indices from 0 to 1, found 2" in refused.message


def test_rows_of_what_is_no_table_are_refused_in_both_directions():
    desk = Desk()
    refused = only(desk.ask(ev.PullReceived, ev.Replica(0, 1), rows={PART: np.array([1])}), ev.Refused)
    assert "'w', which is no table" in refused.message
    refused = only(desk.push(0, 0, gradients={PART: row(1)}), ev.Refused)
    assert "gradient of replica 0 has only some rows of 'w', which is no table" in refused.message


def test_before_there_is_a_job_everything_is_told_to_join_first():
    shard = Shard(0)
    requests = [
        ev.PullReceived(1, ev.Replica(0, 1)),
        ev.PushReceived(1, ev.Replica(0, 1), 0, 0, 0, 1, {}),
        ev.InitialiseReceived(1, "me", {}),
        ev.CutAsked(1),
    ]
    for request in requests:
        refused = only(shard.handle(request, 0.0), ev.Refused)
        assert "Join first" in refused.message
        assert refused.fault is Fault.PRECONDITION
    assert isinstance(shard.handle(ev.PullReceived(1, None), 0.0)[0], ev.Unavailable)
    assert shard.statistics().version == 0


def test_a_push_before_the_weights_or_before_the_start_is_refused():
    refused = only(Desk(initialised=False).push(0, 0), ev.Refused)
    assert refused.message == "The job has no weights yet. Initialise every shard first."
    refused = only(Desk(ranks=1).push(0, 0), ev.Refused)
    assert "before all replicas have joined" in refused.message
    assert refused.fault is Fault.PRECONDITION


def test_pulls_that_came_early_are_answered_by_whatever_comes_last_of_start_and_seal():
    desk = Desk(initialised=False, ranks=1)
    parked = only(desk.pull(0, 0, now=3.0), ev.PullParked)
    assert parked.bound == "the job begins when 2 replicas have joined; so far it is 1"
    assert parked.since == 3.0
    assert desk.member(1)[:-1] == []
    [asked] = desk.shard.handle(ev.WaitAsked(parked.request), 9.0)
    assert asked.bound == "the job begins when a replica has initialised the weights"
    assert asked.since == 3.0
    desk.ask(ev.InitialiseReceived, "me", {PART: array(0)})
    assert only(desk.order(ev.Sealed, "me"), ev.PullGranted).request == parked.request

    desk = Desk(ranks=1)  # sealed before the start
    parked = only(desk.pull(0, 0), ev.PullParked)
    assert only(desk.member(1), ev.PullGranted).request == parked.request


def test_a_cancelled_pull_is_not_answered_and_no_wait_of_it_is_told():
    desk = Desk("ssp:0")
    desk.push(0, 0)
    parked = only(desk.pull(0, 1), ev.PullParked)
    assert parked.waits_for == ((1, 0),)
    assert desk.shard.statistics().parked == ((0, parked),)
    assert desk.shard.handle(ev.PullCancelled(parked.request), 1.0) == []
    assert desk.shard.handle(ev.WaitAsked(parked.request), 1.0) == []
    assert not [effect for effect in desk.push(1, 0) if isinstance(effect, ev.PullGranted)]
    assert desk.shard.handle(ev.PullCancelled(parked.request), 2.0) == []


@pytest.mark.parametrize("rule", ["sync", "ssp:0"])
def test_whoever_waits_is_woken_when_the_one_it_waits_for_dies_or_leaves(rule):
    desk = Desk(rule)
    desk.push(0, 0)
    parked = only(desk.pull(0, 1), ev.PullParked)
    effects = desk.member(1, incarnation=2, live=False)
    if rule == "sync":
        effects += desk.order(ev.RoundClosed, 0, (0,))
    granted = only(effects, ev.PullGranted)
    assert (granted.request, granted.clock_gap) == (parked.request, 0)


def test_whoever_waits_and_is_believed_dead_is_told_to_begin_anew():
    desk = Desk("ssp:0")
    desk.push(0, 0)
    parked = only(desk.pull(0, 1), ev.PullParked)
    fenced = only(desk.member(0, incarnation=2), ev.PullFenced)
    assert (fenced.request, fenced.generation, fenced.clock) == (parked.request, 0, 1)
    assert fenced.reason.startswith("Replica 0, incarnation 1, counts no more")
    assert not [effect for effect in desk.push(1, 0) if isinstance(effect, ev.PullGranted)]


def test_whoever_has_left_is_refused_and_its_waiting_pull_too():
    desk = Desk("ssp:0")
    desk.push(0, 0)
    parked = only(desk.pull(0, 1), ev.PullParked)
    assert only(desk.member(0, live=False), ev.Refused).request == parked.request
    for effects in (desk.pull(0, 1), desk.push(0, 1)):
        refused = only(effects, ev.Refused)
        assert "has left the job. Join again." in refused.message
        assert refused.fault is Fault.PRECONDITION


def test_the_end_of_the_job_answers_everyone():
    desk = Desk("ssp:0")
    desk.push(0, 0)
    parked = only(desk.pull(0, 1), ev.PullParked)
    assert only(desk.order(ev.JobEnded, "It failed."), ev.Ended) == ev.Ended(parked.request, "It failed.")
    for effects in (desk.pull(1, 0), desk.push(1, 0)):
        assert only(effects, ev.Ended).reason == "It failed."
    assert desk.weights.tolist() == array(-1).tolist(), "an observer still reads"


def test_a_pull_ahead_of_its_own_pushes_is_refused():
    desk = Desk()
    for clock in (1, -1):
        refused = only(desk.pull(0, clock), ev.Refused)
        assert f"pulls at clock {clock}, but shard 0 has had 0 of its pushes" in refused.message
        assert refused.fault is Fault.PRECONDITION
    desk.member(2, late=True)
    desk.pull(2, 5)
    assert only(desk.pull(2, 6), ev.Refused).fault is Fault.PRECONDITION, "only its first one"


def test_a_newcomer_advances_to_its_clock_and_a_restart_keeps_what_is_there():
    desk = Desk("ssp:0")
    desk.push(0, 0)
    desk.push(1, 0)
    desk.member(2, late=True)
    assert only(desk.pull(2, 2), ev.PullParked).waits_for == ((0, 1), (1, 1))
    assert only(desk.push(2, 2), ev.PushAnswered).verdict.version == 3
    desk.member(0, incarnation=2)
    granted = only(desk.pull(0, 0, incarnation=2), ev.PullGranted)
    assert granted.clock_gap <= 0
    answered = only(desk.push(0, 0, incarnation=2), ev.PushAnswered)
    assert answered.verdict == ev.Verdict(ev.Outcome.APPLIED, 1, duplicate=True)


def test_whoever_does_not_count_learns_that_its_push_was_applied_and_nothing_else():
    desk = Desk()
    desk.push(0, 0)
    desk.member(0, incarnation=2)
    again = only(desk.push(0, 0, incarnation=1), ev.PushAnswered).verdict
    assert again == ev.Verdict(ev.Outcome.APPLIED, 1, duplicate=True)
    fenced = only(desk.push(0, 1, incarnation=1), ev.PushAnswered).verdict
    assert (fenced.outcome, fenced.duplicate, fenced.clock) == (ev.Outcome.FENCED, False, 1)
    assert only(desk.push(0, 0, incarnation=3), ev.Refused).fault is Fault.UNKNOWN
    assert only(desk.push(0, 0, incarnation=2), ev.PushAnswered).verdict.duplicate


def test_staleness_is_measured_from_the_version_just_before():
    desk = Desk()
    desk.push(0, 0)
    desk.push(0, 1, version=1)
    verdict = only(desk.push(1, 0, version=0), ev.PushAnswered).verdict
    assert (verdict.version, verdict.staleness) == (3, 2)
    desk = Desk("sync")
    desk.push(0, 0)
    desk.push(1, 0)
    desk.order(ev.RoundClosed, 0, (0, 1))
    for rank in (0, 1):
        verdict = only(desk.pull(rank, 1), ev.PullGranted).verdict
        assert verdict == ev.Verdict(ev.Outcome.APPLIED, 1, 0, round=0)


def test_an_observer_reads_what_every_shard_has_and_a_round_by_number():
    desk = Desk("sync")
    for number in range(3):
        desk.push(0, number)
        desk.push(1, number)
        desk.order(ev.RoundClosed, number, (0, 1))
    assert desk.observe().snapshot.rounds == 2, "another shard may not have closed round 2 yet"
    assert desk.observe(round=3).snapshot.rounds == 3
    for round in (1, 4):
        refused = desk.observe(round)
        assert "keeps the weights after round 2 and 3" in refused.message
        assert refused.fault is Fault.OUT_OF_RANGE
    desk.order(ev.JobEnded)
    assert desk.observe().snapshot.rounds == 3


def test_a_gradient_is_not_looked_at_again_after_its_update():
    desk, gradient = Desk(), array(1)
    desk.push(0, 0, gradients={PART: gradient})
    before = desk.weights.copy()
    gradient[...] = 99
    assert desk.weights.tolist() == before.tolist()
    read = desk.weights
    desk.push(0, 1)
    assert read.tolist() == before.tolist(), "a read keeps its version"


def test_a_cut_is_all_of_one_version_and_does_not_change_afterwards():
    desk = Desk()
    desk.push(0, 0)
    desk.push(0, 1, gradients={}, samples=0, refusal="It holds nan.")
    cut = only(desk.ask(ev.CutAsked), ev.CutTaken).cut
    desk.push(1, 0)
    assert cut.snapshot.version == 1
    assert cut.snapshot.values[PART].tolist() == array(-1).tolist()
    [velocity] = cut.state[PART].values()
    assert velocity.tolist() == array(1).tolist()
    assert cut.clocks == {0: 2, 1: 0}
    dropped = ev.Verdict(ev.Outcome.DROPPED, reason="It holds nan.")
    assert cut.verdicts == {0: (1, dropped)}


def test_each_push_is_counted_once_by_its_last_verdict_and_a_repetition_beside():
    desk = Desk("sync")
    desk.push(0, 0)
    desk.push(0, 0)
    desk.push(1, 0, gradients={}, samples=0, refusal="It holds nan.")
    desk.order(ev.RoundClosed, 0, (0,))
    desk.member(1, incarnation=2)
    desk.push(1, 1)
    counts = {name: count for name, count in desk.shard.statistics().pushes.items() if count}
    assert counts == {"applied": 1, "duplicate": 1, "dropped": 1, "fenced": 1}
    assert desk.shard.statistics().staleness == {0: 1}


def test_applied_pushes_are_counted_by_their_staleness():
    desk = Desk("async")
    desk.push(0, 0)
    desk.push(1, 0)
    desk.push(1, 0)  # a repetition is not applied again
    assert desk.shard.statistics().staleness == {0: 1, 1: 1}


def test_buffered_says_how_many_the_round_still_waits_for():
    desk = Desk("sync")
    desk.member(2, late=True)  # begins with round 1
    verdict = only(desk.push(1, 0), ev.PushAnswered).verdict
    assert (verdict.round, verdict.contributed, verdict.expected) == (0, 1, 2)
    desk.member(1, live=False)
    verdict = only(desk.push(0, 0), ev.PushAnswered).verdict
    assert (verdict.contributed, verdict.expected) == (2, 2), "that of one who has left still counts"


def test_a_push_for_a_round_that_is_not_open_is_refused():
    desk = Desk("sync")
    desk.member(2, late=True)
    desk.pull(2, 1)
    assert "expects 0" in only(desk.push(2, 1), ev.Refused).message
    assert "too old" in only(desk.push(2, 0), ev.PushAnswered).verdict.reason


def test_orders_come_in_order():
    desk = Desk()
    with pytest.raises(AssertionError, match="Order 9 came to shard 0 after 4"):
        desk.shard.handle(ev.JobEnded(9), 0.0)


def test_an_order_is_reported_with_the_clocks_that_a_join_needs():
    desk = Desk("ssp:0")
    desk.push(0, 0)
    desk.push(1, 0)
    report = only(desk.member(2, late=True), ev.Reported).report
    assert report == ev.OrderHandled(0, desk.orders, {2: 1})
    report = only(desk.member(0, incarnation=2), ev.Reported).report
    assert report.clocks == {0: 1}
