"""Where pulls wait."""

from hypothesis import given
from hypothesis import strategies as st

from paramserver.events import PullReceived, Replica
from paramserver.parking import NOT_BEFORE_START, Parked, ParkingLot


def parked(request, needs):
    return Parked(PullReceived(request, Replica(0, 1)), Replica(0, 1), needs, since=0.0)


def requests(pulls):
    return [pull.pull.request for pull in pulls]


def test_waking_takes_out_those_whose_need_is_met_in_the_order_they_came():
    lot = ParkingLot()
    for request, needs in ((0, 3), (1, 1), (2, 2), (3, 1), (4, NOT_BEFORE_START)):
        lot.park(parked(request, needs))
    assert requests(lot.wake(0)) == []
    assert requests(lot.wake(2)) == [1, 2, 3]
    assert requests(lot.wake(2)) == []
    assert len(lot) == 2
    assert requests(lot) == [0, 4]
    assert lot.get(1) is None
    assert lot.get(0) == parked(0, 3)
    assert requests(lot.empty()) == [0, 4]
    assert len(lot) == 0


def test_a_cancelled_pull_is_forgotten_and_cancelling_it_again_is_nothing():
    lot = ParkingLot()
    lot.park(parked(0, 1))
    lot.park(parked(1, 1))
    lot.remove(0)
    lot.remove(0)
    assert requests(lot.wake(1)) == [1]


def test_a_need_can_change_while_a_pull_waits():
    lot = ParkingLot()
    lot.park(parked(0, NOT_BEFORE_START))
    for pull in lot:
        lot.need_again(pull, 2)
    assert requests(lot.wake(1)) == []
    assert lot.get(0) == parked(0, 2)
    assert requests(lot.wake(2)) == [0]
    assert lot.wake(NOT_BEFORE_START) == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("park"), st.integers(-3, 6)),
            st.tuples(st.just("remove"), st.integers(0, 20)),
            st.tuples(st.just("wake"), st.integers(-3, 6)),
        )
    )
)
def test_same_as_one_plain_list(steps):
    lot, plain = ParkingLot(), {}
    for request, (what, number) in enumerate(steps):
        if what == "park":
            lot.park(parked(request, number))
            plain[request] = number
        elif what == "remove":
            lot.remove(number)
            plain.pop(number, None)
        else:
            expected = [waiting for waiting, needs in plain.items() if needs <= number]
            assert requests(lot.wake(number)) == expected
            for waiting in expected:
                del plain[waiting]
        assert requests(lot) == list(plain)
        assert set(lot._by_need) == set(plain.values()), "what nobody needs any more is forgotten"
