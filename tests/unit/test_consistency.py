"""The rules as one comparison, and the clocks that they compare."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.consistency import NAMED_MAX, Clocks, Consistency, parse_consistency, round_members
from paramserver.errors import RequestError


@pytest.mark.parametrize("text", ["sync", "async", "ssp:0", "ssp:3", "ssp:1000000"])
def test_the_name_of_a_rule_reads_back(text):
    assert str(parse_consistency(text)) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("snyc", "Did you mean 'sync'"),
        ("ssp", "Give the bound, as in ssp:3"),
        ("ssp:", "Give the bound"),
        ("ssp:-1", "N = 0, 1, 2"),
        ("ssp:²", "N = 0, 1, 2"),
        ("ssp:1.5", "N = 0, 1, 2"),
        ("sync:", "expected sync"),
        ("async:1", "expected sync"),
        ("", "expected sync"),
        ("SYNC", "expected sync"),
    ],
)
def test_anything_else_is_refused_with_a_hint(text, hint):
    with pytest.raises(RequestError, match=hint):
        parse_consistency(text)


@given(clock=st.integers(0, 50), slowest=st.integers(0, 50), bound=st.integers(0, 60))
def test_ssp_grants_a_read_exactly_when_it_sees_what_the_paper_asks(clock, slowest, bound):
    # Everyone at `slowest` or further has finished every step of clock < slowest; the reader must see every
    # update of clock <= clock - bound - 1.
    rule = Consistency("ssp", bound)
    seen, must_see = range(slowest), range(clock - bound)
    assert (rule.needs(clock) <= rule.frontier(0, slowest)) is (set(must_see) <= set(seen))


def test_sync_compares_rounds_and_async_nothing():
    sync, asynchronous = Consistency("sync"), Consistency("async")
    assert sync.gathers
    assert not asynchronous.gathers
    assert [sync.needs(clock) <= sync.frontier(3, 99) for clock in (2, 3, 4)] == [True, True, False]
    assert asynchronous.needs(10**6) <= asynchronous.frontier(0, 0)
    assert Consistency("ssp", 0).frontier(5, None) == sys.maxsize


def test_where_a_newcomer_begins():
    assert Consistency("sync").begins(4, 4) == 5
    assert Consistency("sync").begins(4, None) == 4
    assert Consistency("ssp", 2).begins(0, 7) == 7
    assert Consistency("async").begins(0, None) == 0


def test_the_phrase_of_a_wait_names_the_bound():
    assert Consistency("sync").because(3) == "sync lets a reader at clock 3 read once round 2 is closed"
    assert "once everyone is at clock 2" in Consistency("ssp", 3).because(5)


def test_a_round_has_whoever_reached_all_shards_and_waits_for_whoever_is_required():
    assert round_members([0, 1], {0: {0, 1}, 1: {0, 1}}, 2) == (0, 1)
    assert round_members([0, 1], {0: {0, 1}, 1: {1}}, 2) is None
    assert round_members([0, 1], {1: {0, 1}}, 2) is None
    assert round_members([1], {2: {0, 1}, 1: {0, 1}, 0: {0}}, 2) == (1, 2)
    assert round_members([], {0: {0}}, 2) == ()


def test_clocks_keep_the_clock_of_whoever_leaves():
    clocks = Clocks()
    clocks.enter(0, 0)
    clocks.enter(1, 0)
    clocks.advance(0, 4)
    clocks.leave(0)
    assert clocks[0] == 4
    assert not clocks.is_live(0)
    assert clocks.slowest() == 0
    clocks.advance(0, 5)
    assert clocks.live_count() == 1
    clocks.enter(0, 2)  # it does not go back
    assert clocks[0] == 5
    assert clocks.is_live(0)
    clocks.leave(1)
    assert clocks.slowest() == 5
    clocks.leave(0)
    assert clocks.slowest() is None
    assert clocks[77] == 0
    assert clocks.as_dict() == {0: 5, 1: 0}


def test_only_a_few_laggards_are_named_slowest_first():
    clocks = Clocks()
    for rank in range(12):
        clocks.enter(rank, 12 - rank)
    named, others = clocks.laggards(needs=11)
    assert named == tuple((rank, 12 - rank) for rank in range(11, 11 - NAMED_MAX, -1))
    assert others == 2
    assert clocks.laggards(needs=1) == ((), 0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "advance"]), st.integers(0, 4), st.integers(0, 6)),
        max_size=40,
    ),
    st.integers(0, 7),
)
def test_same_as_one_plain_dictionary(steps, needs):
    clocks, plain, live = Clocks(), {}, set()
    for what, rank, clock in steps:
        if what == "enter":
            clocks.enter(rank, clock)
            plain[rank] = max(clock, plain.get(rank, 0))
            live.add(rank)
        elif what == "leave":
            clocks.leave(rank)
            live.discard(rank)
        else:
            clocks.advance(rank, clock)
            plain[rank] = clock
        assert clocks.as_dict() == plain
        assert {rank for rank in range(5) if clocks.is_live(rank)} == live
        assert clocks.live_count() == len(live)
        assert clocks.slowest() == min((plain[rank] for rank in live), default=None)
        below = sorted((plain[rank], rank) for rank in live if plain[rank] < needs)
        assert clocks.laggards(needs) == (tuple((rank, clock) for clock, rank in below), 0)


def test_a_misspelt_rule_is_answered_with_the_near_one():
    with pytest.raises(RequestError, match=r"Did you mean 'ssp'\?"):
        parse_consistency("spp:2")
