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
        ("async", on(ev.PushAnswered, version=9), "answer"),
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
