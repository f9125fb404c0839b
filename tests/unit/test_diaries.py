"""What is written into a trace: one row's story at a time."""

from __future__ import annotations

import pytest

from paramserver.diaries import Gathered, ReplicaDiary, ShardDiary, push_name, replica_row, shard_row
from paramserver.events import (
    NOBODY,
    MembershipChanged,
    Outcome,
    PullGranted,
    PullReceived,
    PushAnswered,
    PushReceived,
    Replica,
    RoundClosed,
    ShardEffect,
    Snapshot,
    Verdict,
)
from paramserver.tracing import Arrow, Recorder, Span
from server.trace import ShardTrace

ROW = replica_row("worker0/1")
SHARD = shard_row(1, 2)
APPLIED = Verdict(Outcome.APPLIED, 4, 1)
BUFFERED = Verdict(Outcome.BUFFERED, 3, round=3)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(100)


def push(rank: int, sequence: int = 0) -> PushReceived:
    return PushReceived(0, Replica(rank, 1), 0, sequence, 0, 8, {})


def answer(verdict: Verdict) -> list[ShardEffect]:
    return [PushAnswered(0, verdict)]


def test_a_step_is_a_pull_with_its_wait_a_computation_and_a_push(recorder: Recorder) -> None:
    diary = ReplicaDiary(ROW, recorder)
    diary.begin("pull", 7, 10)
    diary.park(11, 3)
    diary.unpark(14)
    diary.park(15, 3)  # on the other shard
    diary.unpark(18)
    diary.pulled(20, 5, ["a/0"])
    diary.begin("compute", 7, 21)
    diary.computed(30)
    diary.begin("push", 7, 31)
    diary.pushed(40, Replica(2, 1), APPLIED, range(2))
    assert recorder.records() == (
        Span(ROW, "pull", 10, 20, {"clock": 7}),
        Span(ROW, "wait", 11, 18, {"for": 5}),
        Arrow("a/0", "arrives", ROW, 20),
        Span(ROW, "compute", 21, 30, {"clock": 7}),
        Span(ROW, "push", 31, 40, {"clock": 7, "verdict": "applied at version 4, staleness 1"}),
        Arrow("2.1.7/0", "leaves", ROW, 31),
        Arrow("2.1.7/1", "leaves", ROW, 31),
    )


def test_what_is_cut_off_is_seen_as_far_as_it_went(recorder: Recorder) -> None:
    diary = ReplicaDiary(ROW, recorder)
    diary.end(5)
    diary.begin("pull", 7, 10)
    diary.park(11, 3)
    diary.end(30)
    diary.end(31)
    assert recorder.records() == (
        Span(ROW, "pull", 10, 30, {"clock": 7, "unfinished": 1}),
        Span(ROW, "wait", 11, 30, {"for": 3, "unfinished": 1}),
    )


def test_a_shard_shows_each_push_to_one_pull(recorder: Recorder) -> None:
    diary = ShardDiary(1, 2, recorder)
    diary.applied(5, 9, [push(0), push(3)])
    names = [push_name(Replica(rank, 1), 0, 2) for rank in (0, 3)]
    assert recorder.records() == (
        Span(SHARD, "apply", 5, 9, {"gradients": 2}),
        *(Arrow(name, "passes", SHARD, 5) for name in names),
    )
    assert diary.see() == tuple(names)
    assert diary.see() == ()


def test_pushes_are_applied_at_once_or_with_their_round() -> None:
    gathered = Gathered()
    now, later, dead = push(0), push(1), push(2)
    assert gathered.applied(now, answer(APPLIED)) == (now,)
    assert gathered.applied(now, answer(Verdict(Outcome.APPLIED, 4, 1, duplicate=True))) == ()
    assert gathered.applied(now, answer(Verdict(Outcome.DROPPED, reason="NaN"))) == ()
    for each in (later, dead):
        assert gathered.applied(each, answer(BUFFERED)) == ()
    assert gathered.applied(RoundClosed(1, 3, (1,)), []) == [later]
    assert gathered.applied(RoundClosed(2, 4, (1, 2)), []) == []


def test_a_replica_is_told_what_it_sees_and_an_observer_is_not(recorder: Recorder) -> None:
    trace = ShardTrace(ShardDiary(1, 2, recorder), lambda: 8)
    granted = PullGranted(9, Snapshot(4, 4, {}))

    def read(replica: Replica | None) -> tuple[int, tuple[str, ...]]:
        [effect] = trace.note(PullReceived(9, replica), [granted], 3)
        assert isinstance(effect, PullGranted)
        return effect.released_by, effect.sees

    [_, woken] = trace.note(push(5), [*answer(APPLIED), granted], 3)
    assert isinstance(woken, PullGranted)
    assert (woken.released_by, woken.sees) == (5, ("5.1.0/2",))
    trace.note(push(6), answer(APPLIED), 3)
    assert read(None) == (NOBODY, ())
    assert read(Replica(0, 1)) == (NOBODY, ("6.1.0/2",))
    assert next(each for each in recorder.records() if isinstance(each, Span)) == Span(
        SHARD, "apply", 3, 8, {"gradients": 1}
    )


def test_a_round_is_released_by_its_last_push_and_after_a_death_by_nobody(recorder: Recorder) -> None:
    trace = ShardTrace(ShardDiary(1, 2, recorder), lambda: 8)
    granted = PullGranted(9, Snapshot(4, 4, {}))

    def close() -> tuple[int, tuple[str, ...]]:
        [effect] = trace.note(RoundClosed(1, 3, (0, 4)), [granted], 3)
        assert isinstance(effect, PullGranted)
        return effect.released_by, effect.sees

    trace.note(push(4), answer(BUFFERED), 3)
    trace.note(push(0), answer(BUFFERED), 3)
    assert close() == (0, ("4.1.0/2", "0.1.0/2"))
    trace.note(push(4, 1), answer(BUFFERED), 3)
    trace.note(MembershipChanged(2, (), True, 2), [], 3)
    assert close() == (NOBODY, ("4.1.1/2",))
