"""The audit of journals that one process has written: rules that are broken, stories that are short."""

from dataclasses import replace

import numpy as np
import pytest
import test_audit
from test_audit import PART, A, story
from test_journal_replay import Noted, Run

from paramserver import events as ev
from paramserver import rounds
from paramserver.audit import Account, Ledger, OrdersAudit, ShardAudit, join_ledgers, overlapping
from paramserver.check import check_run
from paramserver.check.story import Place, tell
from paramserver.consistency import Consistency
from paramserver.roll import Roll
from paramserver.shard import Shard
from paramserver.storage.journal import Record, light

MEMBERS = (ev.Member(0, 1), ev.Member(1, 1))


@pytest.mark.parametrize("full", [False, True], ids=["light", "full"])
@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:1"])
def test_a_sound_journal(tmp_path, consistency, full):
    run = Run(tmp_path, consistency, full)
    report = check_run(tmp_path)
    assert report.violations == []
    assert report.state == "interrupted"  # nobody has said that it is over
    versions = [shard.record().version for shard in run.cluster.shards]
    assert [coverage.version for coverage in report.coverage] == versions
    assert report.counts["duplicate"] == 2
    assert report.counts["rounds"] == (7 if consistency == "sync" else 0)


def applies_twice(patch):
    def forgets(roll, push):
        roll.clocks.advance(push.replica.rank, push.sequence)  # as if it had not come yet

    patch.setattr(Roll, "applied", lambda roll, push: None)
    patch.setattr(Roll, "repeated", forgets)


def leaves_out(patch):
    def only_the_first(required, there, shards):
        complete = {rank for rank, where in there.items() if len(where) == shards}
        return (0,) if complete.issuperset(required) else None

    patch.setattr(rounds, "round_members", only_the_first)


@pytest.mark.parametrize(
    ("consistency", "broken_rule", "broken"),
    [
        ("async", applies_twice, "once"),
        ("sync", leaves_out, "round"),
    ],
)
def test_a_server_with_a_broken_rule(tmp_path, monkeypatch, consistency, broken_rule, broken):
    with monkeypatch.context() as patch:
        broken_rule(patch)
        Run(tmp_path, consistency, full=False)
    report = check_run(tmp_path)
    assert report.violations[0].property == broken


@pytest.mark.parametrize("consistency", ["sync", "ssp:0"])
def test_a_server_that_lets_read_too_early(tmp_path, monkeypatch, consistency):
    shard = Noted(0, tmp_path, full=False)
    with monkeypatch.context() as patch:
        patch.setattr(Consistency, "needs", lambda rule, clock: 0)
        for event in story(consistency):
            shard.handle(event, 0.0)
    shard.close()
    report = check_run(tmp_path)
    assert report.violations[0].property == "read"
    assert "replica 0 at clock 1 reads too early" in report.violations[0].message
    assert report.story is not None
    assert "replica 0 pulls at clock 1" in report.story.events[-1]


def test_a_shard_whose_journal_was_lost_joins_the_others_with_its_checkpoint(tmp_path):
    known, lost = Noted(0, tmp_path, full=True), Noted(1, tmp_path, full=True)
    _, told, back, second = test_audit.TestGenerations().story()
    for event, _ in told:
        known.handle(event, 0.0)
    again = ev.PullReceived(20, A, generation=1, clock=1), replace(second, request=21, generation=1)
    part = replace(PART, shard=1)
    snapshot = replace(back.cut.snapshot, values={part: back.cut.snapshot.values[PART]})
    cut = replace(back.cut, shard=1, snapshot=snapshot, state={part: {}})
    for event in (back, *again):
        known.handle(event, 1.0)
    for event in (
        replace(back, slices=(part,), cut=cut),
        again[0],
        replace(again[1], gradients={part: np.ones(2, np.float32)}),
    ):
        lost.handle(event, 1.0)
    known.close()
    lost.close()
    report = check_run(tmp_path)
    assert report.violations == []
    assert [each.spans for each in report.coverage] == [[(0, 2)], [(1, 2)]]
    assert not any(each.is_gone for each in report.coverage)
    assert report.pushes == {"applied": 2, "received": 2}
    assert report.counts["rolled back"] == 1


# --------------------------------------------------------------------------------------------------- stories


def places(events, change=lambda event, effects: effects):
    """Return the records of a shard that is told these events, with some effects changed."""
    shard, found = Shard(0), []
    for number, event in enumerate(events):
        effects = change(event, [light(effect) for effect in shard.handle(event, 0.0)])
        effects = tuple(effect for effect in effects if effect is not None)
        found.append(Place(0, number, Record(0.0, event, effects)))
    return found


def first_violation(found):
    auditor = ShardAudit(0, reports=False)
    for number, place in enumerate(found):
        if violations := auditor.observe(place.record.event, place.record.effects):
            return number, violations[0]
    raise AssertionError("nothing is wrong")


def told_of(found):
    """Return the story of the first violation, and how many records it was chosen from."""
    number, violation = first_violation(found)
    return tell(violation, found[: number + 1], lambda: ShardAudit(0, reports=False)), number + 1


def long_story():
    """Add a hundred reads and pushes of the other replica."""
    *begin, last = story("async")[:7]
    gradient = {PART: np.ones(2, np.float32)}
    events = [*begin, last]
    for clock in range(50):
        request = 100 + 2 * clock
        events.append(ev.PullReceived(request, ev.Replica(1, 1), clock=clock))
        events.append(ev.PushReceived(request + 1, ev.Replica(1, 1), 0, clock, clock + 1, 1, gradient))
    return events, last


def test_what_has_nothing_to_do_with_it_is_left_out():
    events, last = long_story()
    again = replace(last, request=999)
    found = places([*events, again])
    [answer] = found[-1].record.effects
    verdict = replace(answer.verdict, duplicate=False, version=52, staleness=51)
    record = replace(found[-1].record, effects=(replace(answer, verdict=verdict),))
    found[-1] = replace(found[-1], record=record)
    short, among = told_of(found)
    assert among == 108
    assert [event.partition(": ")[2].partition(" (")[0] for event in short.events] == [
        "replica 0 pushes step 0",
        "replica 0 pushes step 0",
    ]
    assert short.before == "version 0; replica 0 at clock 0, replica 1 at clock 0"


def test_a_version_that_is_left_out_needs_one_event():
    events, _ = long_story()

    def skip(event, effects):
        if isinstance(event, ev.PushReceived) and event.sequence == 30:
            [answer] = effects
            return [replace(answer, verdict=replace(answer.verdict, version=answer.verdict.version + 1))]
        return effects

    short, _ = told_of(places(events, skip))
    assert "pushes step 30" in short.events[-1]
    assert "applied at version 33" in short.events[-1]
    assert len(short.events) <= 2
    assert "version 31" in short.before


def test_what_is_needed_is_not_left_out():
    # That a gradient was made of a version that was not read needs the read, too.
    *begin, last = story("async")[:7]
    wrong = replace(last, version=1)
    found = places(begin)
    answer = ev.PushAnswered(wrong.request, ev.Verdict(ev.Outcome.APPLIED, 1, staleness=-1))
    found.append(Place(0, 6, Record(0.0, wrong, (answer,))))
    short, _ = told_of(found)
    assert "pushes step 0 (made of version 1" in short.events[-1]


# ------------------------------------------------------------------------------------------- all together


def pushed(ledger, rank, sequence, samples=8, outcome=ev.Outcome.APPLIED, incarnation=1):
    push = ev.PushReceived(1, ev.Replica(rank, incarnation), 0, sequence, 0, samples, {})
    ledger.observe(push, [ev.PushAnswered(1, ev.Verdict(outcome, 1))], {rank: sequence + 1})


def test_samples_are_joined_over_the_shards():
    one, other = Ledger(), Ledger()
    for sequence in range(3):
        pushed(one, 0, sequence)
    for sequence in range(2):
        pushed(other, 0, sequence)
    pushed(one, 1, 0, 0, ev.Outcome.DROPPED)
    pushed(other, 1, 0, 0, ev.Outcome.DROPPED)
    account = Account()
    assert join_ledgers({0: one, 1: other}, account, gathers=False, over=True) == []
    assert account.pushes == {"applied": 2, "partial": 1, "dropped": 1, "received": 4}
    assert account.samples["received"] == 24
    assert account.samples["partial"] == 8
    going_on = Account()
    join_ledgers({0: one, 1: other}, going_on, gathers=False, over=False)
    assert going_on.pushes["under way"] == 1


def test_a_push_that_is_missing_before_a_later_one():
    one, other = Ledger(), Ledger()
    for sequence in range(3):
        pushed(one, 0, sequence)
    pushed(other, 0, 0)
    pushed(other, 0, 2)
    [found] = join_ledgers({0: one, 1: other}, Account(), gathers=False, over=True)
    assert "Push 1 of replica 0 never came to shard 1, but a later one did." in found.message


def test_what_was_rolled_back_is_counted_apart():
    ledger = Ledger()
    for sequence in range(4):
        pushed(ledger, 0, sequence)
    slices = (PART,)
    back = ev.GenerationBegun(9, 1, ev.JobSpec(()), slices, MEMBERS, True, 2, 0)
    ledger.observe(back, [], {0: 1, 1: 0})
    assert ledger.rolled_back == (3, 24)
    assert list(ledger.pushes()) == [(0, 0)]


def test_ledgers_of_other_shards_are_joined_apart():
    before, after = Ledger(), Ledger(2, 0, {0: 5})
    gone = Ledger()
    groups = overlapping({0: [before, after], 1: [gone]})
    assert groups == [{0: before, 1: gone}, {0: after}]


def test_orders_are_compared_over_the_shards():
    orders = OrdersAudit()
    joined = ev.MembershipChanged(2, MEMBERS, started=True, expected=2)
    announced = ev.JobAnnounced(1, ev.JobSpec(()), (PART,))
    everyone = {0: False, 1: False}
    for shard in (0, 1):
        assert orders.observe(shard, replace(announced, slices=()), 0, {}) == []
        assert orders.observe(shard, joined, 0, {}) == []
        assert orders.observe(shard, ev.RoundClosed(3, 0, (0, 1)), 1, everyone) == []
    assert orders.judge_rounds() == []
    [differs] = orders.observe(0, ev.RoundClosed(4, 1, (0, 1)), 2, everyone) + orders.observe(
        1, ev.RoundClosed(4, 1, (0,)), 2, everyone
    )
    assert (differs.property, differs.shard, differs.round) == ("round", 1, 1)
    orders.observe(0, ev.RoundClosed(5, 2, (0,)), 3, {0: False})
    orders.observe(0, ev.RoundClosed(6, 3, (0,)), 4, everyone)
    orders.observe(0, ev.RoundClosed(7, 4, (0,)), 5, {0: False, 1: True})  # refused, so it is right
    assert [violation.message for violation in orders.judge_rounds()] == [
        "Round 2 was closed before shard 0 had the gradient of replica 1.",
        "Round 3 was closed without replica 1, whose gradient every shard had.",
    ]
    [decided] = orders.decided(ev.RoundClosed(7, 4, (0, 1)))
    assert decided.property == "order"
    assert orders.newest == 7
