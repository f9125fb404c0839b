"""Dealing out epochs: whatever happens to whom, no sample is lost in silence, and none is counted twice."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramserver.data import Batches, Dataset, steps_of_ranks
from paramserver.dealing import Dealing
from paramserver.epochs import Epochs
from paramserver.errors import RequestError
from paramserver.events import Dealt, DealtRecord, JobSpec, Part, TensorSpec, Visits
from paramserver.membership import Membership

JOB = JobSpec(
    (TensorSpec("w", (1,)),), consistency="async", replicas=2, replicas_max=9, samples=20, batch=3, epochs=3
)


def drain(epochs, ranks):
    """Let everyone present do all that is left, in turns; return what was done."""
    done = []
    clocks = dict.fromkeys(ranks, 0)
    while True:
        dealt = {rank: epochs.deal(rank, clocks[rank], ranks) for rank in ranks}
        if not any(dealt.values()):
            return done, clocks
        for rank, one in dealt.items():
            if one is not None:
                done += batches(one, clocks[rank], one.end)
                clocks[rank] = one.end


def batches(dealt, begin, end):
    epoch, place, places, first, _ = dealt.part
    return [
        (epoch, place, places, first + clock - dealt.clock)
        for clock in range(max(begin, dealt.clock), min(end, dealt.end))
    ]


def test_without_changes_everybody_does_the_same_share_of_every_epoch():
    epochs = Epochs(JOB)
    assert epochs.deal(1, 0, [0, 1]) == Dealt(0, Part(0, 1, 2, 0, 4))
    assert epochs.deal(1, 4, [0, 1]) == Dealt(4, Part(1, 1, 2, 0, 4))
    assert epochs.deal(0, 0, [0, 1]) == Dealt(0, Part(0, 0, 2, 0, 4))
    assert epochs.steps(0) == epochs.steps(1) == 12
    assert epochs.visits({}) == (Visits(0, 20, 0), Visits(1, 20, 0))
    assert epochs.visits({0: 3, 1: 5}) == (Visits(0, 20, 9 + 10), Visits(1, 20, 3))


@pytest.mark.parametrize("split", ["iid", "by-label"])
def test_the_steps_are_those_of_a_plain_loop(split):
    samples = Dataset(np.arange(20, dtype=np.float32)[:, None], np.arange(20) % 4, "points")
    steps = steps_of_ranks(samples, 3, 3, 2, seed=5, split=split)
    shares = () if split == "iid" else (6, 7, 7)
    job = JobSpec(JOB.tensors, replicas=3, samples=20, batch=3, epochs=2, shares=shares)
    epochs = Epochs(job)
    whose = {rank: Batches(samples, 3, 2, 5, rank, 3, split) for rank in range(3)}
    for rank in range(3):
        anybody = Batches(samples, 3, 2, 5, 0, 3, split)
        for clock in range(steps[rank]):
            dealt = epochs.deal(rank, clock, range(3))
            epoch, place, places, begin, _ = dealt.part
            inputs, labels = anybody.batch_of(epoch, place, places, begin + clock - dealt.clock)
            np.testing.assert_array_equal(inputs, whose[rank].batch_at(clock)[0])
            np.testing.assert_array_equal(labels, whose[rank].batch_at(clock)[1])
        assert epochs.deal(rank, steps[rank], range(3)) is None
        assert epochs.steps(rank) == steps[rank]
    assert all(one.unseen == 0 for one in epochs.visits(dict(enumerate(steps))))


def test_a_clock_from_before_ones_first_is_refused():
    epochs = Epochs(JOB)
    epochs.open([0, 1, 2])
    assert epochs.deal(2, 7, [0, 1, 2]).clock == 7
    with pytest.raises(RequestError, match="before its first"):
        epochs.deal(2, 6, [0, 1, 2])


def test_a_job_of_loops_of_ones_own_deals_nothing():
    epochs = Epochs(JobSpec(JOB.tensors))
    assert not epochs.deals
    assert epochs.visits({0: 100}) == ()
    assert epochs.record() == DealtRecord()


def test_rows_of_a_record_are_few_where_nothing_changes():
    epochs = Epochs(JobSpec(JOB.tensors, replicas=2, samples=20, batch=3, epochs=500))
    drain(epochs, [0, 1])
    assert len(epochs.record().laid) == 2


WHO = st.integers(0, 5)
ACTIONS = st.one_of(
    st.tuples(st.just("step"), WHO),
    st.tuples(st.just("step"), WHO),
    st.tuples(st.just("step"), WHO),
    st.tuples(st.sampled_from(["leave", "join", "cut", "roll back", "record"]), WHO),
)


@settings(max_examples=300, deadline=None)
@given(
    actions=st.lists(ACTIONS, max_size=120),
    samples=st.integers(6, 40),
    batch=st.integers(1, 4),
    shares=st.booleans(),
)
def test_no_sample_is_lost_and_none_is_counted_twice(actions, samples, batch, shares):
    fixed = (samples // 3, samples - samples // 3) if shares else ()
    job = JobSpec(
        JOB.tensors, replicas=2, replicas_max=6, samples=samples, batch=batch, epochs=3, shares=fixed
    )
    epochs, clocks, here = Epochs(job), {0: 0, 1: 0}, {0, 1}
    seen: Counter[tuple[int, ...]] = Counter()
    history: list[tuple[int, int, tuple[int, ...]]] = []  # rank, clock, batch
    cut: dict[int, int] = {}
    for action, rank in actions:
        if action == "step" and rank in here:
            dealt = epochs.deal(rank, clocks[rank], sorted(here))
            if dealt is None:
                continue
            [one] = batches(dealt, clocks[rank], clocks[rank] + 1)
            history.append((rank, clocks[rank], one))
            seen[one] += 1
            clocks[rank] += 1
        elif action == "leave" and rank in here and len(here) > 1:
            here.discard(rank)
            epochs.settle(rank, clocks[rank])
        elif action == "join" and rank not in here and len(here) < (2 if shares else 6):
            here.add(rank)
            clocks[rank] = max([clocks.get(rank, 0), *(clocks[other] for other in here if other in clocks)])
        elif action == "cut":
            cut = dict(clocks)
        elif action == "roll back":
            # Whoever has come since the cut was made begins with the others.
            first = min(cut.values(), default=0)
            before, clocks = clocks, {rank: cut.get(rank, first) for rank in clocks}
            epochs.roll_back(cut, before, clocks, here)
            for who, clock, one in history:
                if clock >= cut.get(who, 0):
                    seen[one] -= 1
            history = [one for one in history if one[1] < cut.get(one[0], 0)]
        elif action == "record":
            other = Epochs(job)
            other.restore(epochs.record())
            assert other.visits(clocks) == epochs.visits(clocks)
            epochs = other
        assert max(seen.values(), default=0) <= 1
    while any((dealt := epochs.deal(rank, clocks[rank], sorted(here))) for rank in here):
        for rank in here:
            dealt = epochs.deal(rank, clocks[rank], sorted(here))
            if dealt is not None:
                seen.update(batches(dealt, clocks[rank], dealt.end))
                clocks[rank] = dealt.end
    assert max(seen.values()) == 1
    missed = 0 if not shares or len(here) == 2 else None
    for visits in epochs.visits(clocks):
        done = sum(size(job, one) for one, times in seen.items() if times and one[0] == visits.epoch)
        assert visits.seen == done
        if missed is not None:
            assert visits.unseen == missed


def size(job, one):
    _, place, places, number = one
    share = (
        job.shares[place]
        if job.shares
        else job.samples * (place + 1) // places - job.samples * place // places
    )
    return min(job.batch, share - number * job.batch)


@pytest.mark.parametrize("anew", [(), (0,)])
def test_what_a_newcomer_had_before_a_roll_back_is_for_others(anew):
    members = Membership(JOB)
    dealing = Dealing(JOB, members, 2)
    for rank in (0, 1):
        members.join(f"w{rank}", "1", 0.0)
        dealing.epochs.deal(rank, 0, [0, 1])
    dealing.lose(None)
    dealing.roll_back({0: 2, 1: 2}, {0: 2, 1: 2}, anew)
    assert dealing.epochs.has_for(2) == bool(anew)
