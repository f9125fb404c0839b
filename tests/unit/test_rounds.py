"""The open round: what counting alone may conclude."""

from hypothesis import given
from hypothesis import strategies as st

from paramserver.consistency import Consistency
from paramserver.events import Contributed
from paramserver.rounds import Rounds

RANKS = st.integers(0, 4)


@given(
    shards=st.integers(1, 2),
    contributions=st.lists(st.tuples(RANKS, st.integers(0, 1))),
    late=st.frozensets(RANKS),
    left=st.frozensets(RANKS),
)
def test_a_round_that_surely_lacks_somebody_is_not_closed(shards, contributions, late, left):
    rounds = Rounds(Consistency("sync"), shards)
    for rank in late:
        rounds.admit_late(rank, alone=False)
    for order, rank in enumerate(left):
        rounds.leave(rank, order)
    for rank, shard in contributions:
        if shard < shards and (rank not in late or rank in left):
            rounds.contribute(Contributed(shard, 0, rank, samples=1))
    readers = sorted(set(range(5)) - left)
    surely_lacks = rounds.surely_lacks(len(readers))
    closed = rounds.close(readers)
    assert closed is None or not surely_lacks


def test_counting_says_when_it_is_worth_looking():
    rounds = Rounds(Consistency("sync"), shards=2)
    for rank in (0, 1):
        rounds.contribute(Contributed(0, 0, rank, samples=1))
    rounds.contribute(Contributed(1, 0, 0, samples=1))
    rounds.contribute(Contributed(1, 0, 0, samples=1))
    assert rounds.surely_lacks(2)
    rounds.contribute(Contributed(1, 0, 1, samples=1))
    assert not rounds.surely_lacks(2)
    assert rounds.close([0, 1]).ranks == (0, 1)
    assert rounds.surely_lacks(2)
