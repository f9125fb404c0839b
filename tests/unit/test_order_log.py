"""What a shard has to hear again, and when that is not known any more."""

from paramserver.events import CutOrdered, JobAnnounced, JobSpec, Ordered, RoundClosed
from paramserver.order_log import OrderLog

ORDERS = (
    Ordered(JobAnnounced(1, JobSpec(()), ()), 0),
    Ordered(JobAnnounced(1, JobSpec(()), ()), 1),
    Ordered(RoundClosed(2, 0, (0,))),
    Ordered(CutOrdered(3, 0)),
    Ordered(RoundClosed(4, 1, (0,))),
)


def log():
    kept = OrderLog()
    for order in ORDERS:
        kept.add(order)
    return kept


def test_a_shard_hears_what_it_lacks_and_only_its_own():
    found = log().missing({1: 0})
    assert [(each.order.number, each.shard, each.again) for each in found] == [
        (1, 1, True), (2, 1, True), (3, 1, True), (4, 1, True),
    ]  # fmt: skip
    assert log().missing({0: 4, 1: 4}) == []
    assert [(each.order.number, each.shard) for each in log().missing({0: 3, 1: 4})] == [(4, 0)]


def test_what_came_before_a_kept_checkpoint_is_forgotten():
    kept = log()
    kept.trim(0)
    assert [each.order.number for each in kept.all()] == [4]
    assert kept.missing({0: 2}) is None
    assert [each.order.number for each in kept.missing({0: 3})] == [4]


def test_a_checkpoint_that_was_made_before_trims_nothing():
    kept = log()
    kept.trim(7)
    assert kept.all() == ORDERS


def test_orders_that_were_never_given_are_not_believed():
    assert log().missing({0: 5}) is None
    assert OrderLog((), 4).missing({0: 4}) == []
    assert OrderLog((), 4).missing({0: 3}) is None


def test_a_round_is_not_reported():
    assert log().last_reported() == 3
    assert OrderLog((), 4).last_reported() == 0
