"""What a replica counts: every gradient once, every second somewhere."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.events import PHASES, Outcome, Phase, Verdict
from paramserver.tally import RECENT_STEPS, Tally

APPLIED = Verdict(Outcome.APPLIED, version=1, staleness=2)
BUFFERED = Verdict(Outcome.BUFFERED)


def test_seconds_go_to_the_phase_they_were_spent_in() -> None:
    tally = Tally(now=10.0)
    for phase, now in [
        (Phase.PULL, 11.0),
        (Phase.WAIT, 11.5),
        (Phase.PULL, 13.5),
        (Phase.COMPUTE, 13.75),
        (Phase.PUSH, 17.75),
        (Phase.IDLE, 18.0),
    ]:
        tally.enter(phase, now)
    seconds = tally.counters(now=20.0).seconds
    assert seconds == {"rest": 3.0, "pull": 0.75, "wait": 2.0, "compute": 4.0, "push": 0.25}
    assert set(seconds) == set(PHASES)
    assert sum(tally.counters(now=21.5).seconds.values()) == 11.5


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.BUFFERED])
def test_each_outcome_has_its_count(outcome: Outcome) -> None:
    tally = Tally(now=0.0)
    tally.computed(samples=32, loss=1.0)
    tally.decided(Verdict(outcome, staleness=4))
    counters = tally.counters(now=0.0)
    assert counters.gradients == {"computed": 1, outcome.value: 1}
    assert counters.samples == {"computed": 32, outcome.value: 32}
    assert counters.staleness == ({4: 1} if outcome is Outcome.APPLIED else {})
    assert counters.latest_staleness == (4 if outcome is Outcome.APPLIED else None)


def test_a_buffered_push_is_decided_by_the_next_pull() -> None:
    tally = Tally(now=0.0)
    tally.computed(samples=8, loss=1.0)
    tally.decided(BUFFERED)
    assert tally.counters(now=0.0).gradients == {"computed": 1}
    tally.pulled(0, Verdict(Outcome.DROPPED, reason="It came too late."))
    assert tally.counters(now=0.0).gradients == {"computed": 1, "dropped": 1}


def test_a_pull_without_a_verdict_means_that_the_buffered_push_is_lost() -> None:
    tally = Tally(now=0.0)
    tally.pulled(3, None)
    tally.computed(samples=8, loss=1.0)
    tally.decided(BUFFERED)
    tally.pulled(-1, None)
    counters = tally.counters(now=0.0)
    assert counters.samples == {"computed": 8, "lost": 8}
    assert counters.clock_gap == {3: 1, -1: 1}


def test_a_duplicate_is_counted_beside_the_sum() -> None:
    tally = Tally(now=0.0)
    tally.computed(samples=8, loss=1.0)
    tally.decided(Verdict(Outcome.APPLIED, duplicate=True))
    assert tally.counters(now=0.0).gradients == {"computed": 1, "applied": 1, "duplicate": 1}
    assert tally.counters(now=0.0).samples == {"computed": 8, "applied": 8}


def test_the_loss_is_the_mean_of_recent_steps() -> None:
    tally = Tally(now=0.0)
    assert math.isnan(tally.counters(now=0.0).loss)
    for step in range(RECENT_STEPS + 2):
        tally.computed(samples=1, loss=100.0 if step < 2 else float(step % 2))
        tally.decided(APPLIED)
    assert tally.counters(now=0.0).loss == 0.5
    tally.computed(samples=1, loss=math.inf)
    tally.decided(APPLIED)
    assert tally.counters(now=0.0).loss == math.inf


def tally_of(*samples: int) -> Tally:
    """Return a tally of so many steps, from clock 0, that were all applied."""
    tally = Tally(now=0.0)
    for clock, each in enumerate(samples):
        tally.computed(each, 1.0, clock)
        tally.decided(APPLIED)
    return tally


def test_what_is_applied_after_a_checkpoint_is_rolled_back_with_it() -> None:
    tally = tally_of(8, 8, 8, 4, 8, 8)
    tally.begin_anew(2, rolled_back=True)
    assert tally.counters(0.0).gradients == {"computed": 6, "applied": 2, "rolled_back": 4}
    assert tally.counters(0.0).samples == {"computed": 44, "applied": 16, "rolled_back": 28}
    tally.computed(8, 1.0, 2)
    tally.decided(APPLIED)
    tally.begin_anew(1, rolled_back=True)
    assert tally.counters(0.0).gradients == {"computed": 7, "applied": 1, "rolled_back": 6}
    tally.begin_anew(1, rolled_back=True)
    assert tally.counters(0.0).samples == {"computed": 52, "applied": 8, "rolled_back": 44}


def test_a_death_rolls_nothing_back() -> None:
    tally = tally_of(8, 8)
    tally.begin_anew(1, rolled_back=False)
    assert tally.counters(0.0).gradients == {"computed": 2, "applied": 2}


@pytest.mark.parametrize(("clock", "name"), [(2, "lost"), (3, "applied")])
def test_a_buffered_push_is_lost_unless_the_checkpoint_has_it(clock: int, name: str) -> None:
    tally = tally_of(8, 8)
    tally.computed(8, 1.0, 2)
    tally.decided(BUFFERED)
    tally.begin_anew(clock, rolled_back=True)
    tally.pulled(0, Verdict(Outcome.APPLIED) if clock == 3 else None)
    gradients = tally.counters(0.0).gradients
    expected = {"applied": 3} if name == "applied" else {"applied": 2, "lost": 1}
    assert gradients == {"computed": 3, **expected}


@given(st.lists(st.tuples(st.sampled_from([*Outcome, None]), st.integers(1, 64)), max_size=40))
def test_every_sample_ends_up_as_one_thing(pushes: list[tuple[Outcome | None, int]]) -> None:
    tally = Tally(now=0.0)
    for outcome, samples in pushes:
        tally.computed(samples, loss=1.0)
        if outcome is not None:
            tally.decided(Verdict(outcome))
        tally.lost()
    counters = tally.counters(now=0.0)
    for counts in (counters.gradients, counters.samples):
        ends = [
            counts.get(name, 0) for name in ("applied", "dropped", "fenced", "partial", "lost", "rolled_back")
        ]
        assert counts.get("computed", 0) == sum(ends)
    assert counters.samples.get("computed", 0) == sum(samples for _, samples in pushes)
