"""An auditor stays silent at what is right, and names what is not."""

from dataclasses import replace

import numpy as np
import pytest

from paramserver import audit
from paramserver import events as ev
from paramserver.audit import PROPERTIES, CoordinatorAudit, Settled, ShardAudit, Violation, audit_end
from paramserver.shard import Shard

PART = ev.Slice("w", 0, 2, 0)
A, B = ev.Replica(0, 1), ev.Replica(1, 1)


def story(rule="async"):
    """Two replicas join one shard, both read, both push, one reads again."""
    spec = ev.JobSpec((ev.TensorSpec("w", (2,)),), consistency=rule, replicas=2, replicas_max=2)
    members = tuple(ev.Member(rank, 1) for rank in (0, 1))
    gradient = {PART: np.ones(2, np.float32)}
    return [
        ev.JobAnnounced(1, spec, (PART,)),
        ev.MembershipChanged(2, members, started=True, expected=2),
        ev.InitialiseReceived(1, "a", {PART: np.zeros(2, np.float32)}),
        ev.Sealed(3, "a"),
        ev.PullReceived(2, A),
        ev.PullReceived(3, B),
        ev.PushReceived(4, A, 0, 0, 0, 1, gradient),
        ev.PullReceived(5, A, clock=1),
        ev.PushReceived(6, B, 0, 0, 0, 1, gradient),
        *([ev.RoundClosed(4, 0, (0, 1))] if rule == "sync" else []),
        ev.PushReceived(7, B, 0, 0, 0, 1, gradient),
    ]


def judged(rule, change):
    """Tell the story with the effects of one event changed; return which properties are broken by then."""
    shard, auditor = Shard(0), ShardAudit(0)
    for event in story(rule):
        effects = change(event, shard.handle(event, 0.0))
        found = auditor.observe(event, effects)
        if found:
            return {violation.property for violation in found}
    return set()


@pytest.mark.parametrize("rule", ["sync", "async", "ssp:0", "ssp:1"])
def test_a_right_shard_gives_nothing_to_say(rule):
    assert judged(rule, lambda event, effects: effects) == set()


def on(kind, **fields):
    """Change these fields of effects of one kind, deep down where a snapshot or a verdict has them."""

    def change(event, effects):
        changed = []
        for effect in effects:
            if isinstance(effect, kind):
                inner = "verdict" if kind is ev.PushAnswered else "snapshot"
                effect = replace(effect, **{inner: replace(getattr(effect, inner), **fields)})
            changed.append(effect)
        return changed

    return change


def without(kind):
    return lambda event, effects: [effect for effect in effects if not isinstance(effect, kind)]


@pytest.mark.parametrize(
    ("rule", "change", "broken"),
    [
        ("async", on(ev.PushAnswered, duplicate=False), "once"),
        ("async", on(ev.PushAnswered, staleness=7), "staleness"),
        ("async", on(ev.PushAnswered, version=9), "version"),
        ("async", on(ev.PullGranted, version=5), "version"),
        ("sync", on(ev.PullGranted, rounds=3), "version"),
        ("sync", without(ev.Reported), "order"),
        ("ssp:0", without(ev.PushAnswered), "answer"),
        (
            "ssp:0",
            lambda event, effects: effects[:1] if isinstance(event, ev.PushReceived) else effects,
            "wake",
        ),
    ],
)
def test_a_wrong_effect_breaks_its_property(rule, change, broken):
    assert broken in judged(rule, change)


def test_a_read_too_early_and_an_answer_to_nobody():
    shard, auditor = Shard(0), ShardAudit(0)
    for event in story("ssp:0")[:7]:
        assert not auditor.observe(event, shard.handle(event, 0.0))
    newest = ev.Snapshot(1, 0, {})
    early = auditor.observe(ev.PullReceived(5, A, clock=1), [ev.PullGranted(5, newest, 1)])
    assert [violation.property for violation in early] == ["read"]
    assert early[0].rank == 0
    [nobody] = auditor.observe(ev.PullCancelled(99), [ev.PullGranted(99, newest)])
    assert nobody.property == "answer"


def test_a_coordinator_that_closes_a_round_too_early():
    spec = ev.JobSpec((ev.TensorSpec("w", (2,)),), consistency="sync")
    auditor = CoordinatorAudit(1)
    joined = ev.MembershipChanged(2, (ev.Member(0, 1),), started=True, expected=1)
    announced = ev.Ordered(ev.JobAnnounced(1, spec, (PART,)), 0)
    assert not auditor.observe(ev.JoinReceived(1, "a", "1", spec), [announced, ev.Ordered(joined)])
    assert not auditor.observe(
        ev.OrderHandled(0, 2, {0: 0}), [ev.JoinGranted(1, A, 0, 0, spec, (), (), False)]
    )
    found = auditor.observe(
        ev.Staged(0, "a"), [ev.Ordered(ev.Sealed(3, "a")), ev.Ordered(ev.RoundClosed(4, 0, (0,)))]
    )
    assert {violation.property for violation in found} == {"round"}
    assert {violation.property for violation in auditor.observe(ev.OrderHandled(0, 3), [])} == set()
    left = auditor.observe(ev.LeaveReceived(2, A, ev.Counters()), [ev.Acknowledged(2)])
    assert [str(violation) for violation in left] == [
        "round: Coordinator: replica 0 has left, but still counts."
    ]


def test_what_only_the_whole_shows():
    coordinator, one, other = CoordinatorAudit(2), ShardAudit(0), ShardAudit(1)
    one.applied, other.applied = {0: {0}}, {}
    assert audit_end(coordinator, [one, other], [Settled(0, 0, "partial"), Settled(0, 1, "lost")]) == []
    [said] = audit_end(coordinator, [one, other], [Settled(0, 0, "applied")])
    assert said.property == "samples"
    assert "shards [0]" in said.message
    [unaccounted] = audit_end(
        coordinator, [one, other], [], [ev.Counters(samples={"computed": 3, "applied": 2})]
    )
    assert unaccounted.property == "samples"
    coordinator.rounds = one.rounds = other.rounds = 1
    assert "round" in {violation.property for violation in audit_end(coordinator, [one, other])}


def test_properties_have_names_that_people_can_look_up():
    for name in PROPERTIES:
        assert f"\n{name} " in audit.__doc__
    assert str(Violation("once", "A sentence.")) == "once: A sentence."


class TestGenerations:
    """A shard goes back to its checkpoint, and its auditor with it."""

    SPEC = ev.JobSpec((ev.TensorSpec("w", (2,)),), consistency="async", replicas=2, replicas_max=2)

    def story(self):
        """Two pushes, a checkpoint between them, and a generation that begins there."""
        *begin, last = story()[:7]
        second = replace(last, request=8, sequence=1, version=1)
        shard = Shard(0)
        events = [*begin, last, ev.CutOrdered(4, 0), ev.PullReceived(7, A, clock=1), second]
        told = [(event, shard.handle(event, 0.0)) for event in events]
        cut = next(effect.cut for _, effects in told for effect in effects if isinstance(effect, ev.CutMade))
        members = (ev.Member(0, 1), ev.Member(1, 1))
        back = ev.GenerationBegun(
            9, 1, self.SPEC, (PART,), members, started=True, expected=2, checkpoint=0, cut=cut
        )
        return shard, told, back, second

    def auditor(self, told):
        auditor = ShardAudit(0)
        assert [each for event, effects in told for each in auditor.observe(event, effects)] == []
        return auditor

    def test_what_was_applied_since_the_checkpoint_is_void(self):
        shard, told, back, second = self.story()
        auditor = self.auditor(told)
        assert (auditor.version, auditor.applied[0]) == (2, {0, 1})
        assert auditor.observe(back, shard.handle(back, 1.0)) == []
        assert (auditor.version, auditor.generation, auditor.rolled_back) == (1, 1, 1)
        assert auditor.applied[0] == {0}
        for event in (
            ev.PullReceived(20, A, generation=1, clock=1),
            replace(second, request=21, generation=1),
            replace(second, request=22, generation=1),  # once more: a duplicate
            replace(second, request=23, generation=0, sequence=2),  # of the old generation: fenced
        ):
            assert auditor.observe(event, shard.handle(event, 1.0)) == []
        assert auditor.applied[0] == {0, 1}

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"snapshot": ev.Snapshot(2, 0, {PART: np.ones(2, np.float32)})}, "version 1 != 2"),
            ({"clocks": {0: 2, 1: 0}}, "clock of replica 0 1 != 2"),
            ({"verdicts": {}}, "verdict on replica 0"),
        ],
    )
    def test_another_checkpoint_than_was_made_is_told(self, wrong, said):
        shard, told, back, _ = self.story()
        auditor = self.auditor(told)
        back = replace(back, cut=replace(back.cut, **wrong))
        [violation] = auditor.observe(back, shard.handle(back, 1.0))
        assert violation.property == "generation"
        assert said in violation.message

    def test_a_gradient_of_an_older_generation_that_is_applied_is_told(self):
        shard, told, back, second = self.story()
        auditor = self.auditor(told)
        auditor.observe(back, shard.handle(back, 1.0))
        late = replace(second, request=21, generation=0)
        found = auditor.observe(late, [ev.PushAnswered(21, ev.Verdict(ev.Outcome.APPLIED, 2))])
        assert "fence" in {violation.property for violation in found}

    def test_orders_may_be_skipped_where_a_generation_begins_and_nowhere_else(self):
        _, told, back, _ = self.story()
        auditor = self.auditor(told)
        [skipped] = auditor.observe(ev.JobEnded(6, ""), [ev.Reported(ev.OrderHandled(0, 6))])
        assert skipped.property == "order"
        auditor = self.auditor(told)
        [backward] = auditor.observe(replace(back, number=4), [ev.Reported(ev.OrderHandled(0, 4))])
        assert backward.property == "order"

    def test_an_auditor_can_begin_in_the_middle(self):
        shard, _, back, second = self.story()
        shard.handle(back, 1.0)
        auditor = ShardAudit(0)
        auditor.resume(shard.record())
        for event in (
            replace(second, request=21, generation=1),  # made of a read that came before
            ev.PullReceived(22, A, generation=1, clock=2),
        ):
            assert auditor.observe(event, shard.handle(event, 1.0)) == []
        assert auditor.version == 2
        again = ev.PushAnswered(23, ev.Verdict(ev.Outcome.APPLIED, 3, staleness=1))
        found = auditor.observe(replace(second, request=23, generation=1), [again])
        assert "once" in {violation.property for violation in found}


def test_a_generation_that_begins_elsewhere_than_at_the_newest_checkpoint():
    spec = TestGenerations.SPEC
    members = (ev.Member(0, 1), ev.Member(1, 1))

    def begun(**other):
        auditor = CoordinatorAudit(1, recovers=True)
        auditor.observe(ev.ServerRegistered(0, "a", 1), [])
        joined = ev.MembershipChanged(2, members, started=True, expected=2)
        announced = ev.Ordered(ev.JobAnnounced(1, spec, (PART,)), 0)
        auditor.observe(ev.JoinReceived(1, "a", "1", spec), [announced, ev.Ordered(joined)])
        auditor.observe(ev.Staged(0, "a"), [ev.Ordered(ev.Sealed(3, "a")), ev.Ordered(ev.CutOrdered(4, 0))])
        auditor.observe(ev.CheckpointKept(ev.Kept(0)), [])
        assert auditor.observe(ev.ServerLost(0, "it ended."), []) == []
        order = replace(
            ev.GenerationBegun(5, 1, spec, (PART,), members, started=True, expected=2, checkpoint=0), **other
        )
        return auditor.observe(ev.ServerRegistered(0, "a", 1), [ev.Ordered(order, 0)])

    assert begun() == []
    assert [each.property for each in begun(checkpoint=1)] == ["generation"]
    assert [each.property for each in begun(generation=2)] == ["generation"]
    assert [each.property for each in begun(number=6)] == ["order"]
