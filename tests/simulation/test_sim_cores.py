"""Cores that all share, and what requests and gradients cost those who make them."""

import pytest
from virtual import LAN, simulate

from paramserver.sim import EventHeap
from paramserver.sim.cores import Cores

MS = 1_000_000
ENDS = " client=2ms client-per-request=1ms client-per-byte=0s rpc-per-byte=0s"


def ends_of(count, *work):
    """Return when pieces of work end that begin at some time each and take so long alone."""
    heap, ends = EventHeap(), {}
    cores = Cores(heap, count)
    for name, (begin, duration) in enumerate(work):
        heap.at(
            begin,
            lambda it: cores.begin(it[1], lambda n: ends.update({n: heap.now}), it[0]),
            (name, duration),
        )
    heap.run()
    return [ends[name] for name in range(len(work))]


def test_while_there_are_cores_enough_everyone_goes_at_full_speed():
    assert ends_of(2, (0, 10), (3, 20)) == ends_of(None, (0, 10), (3, 20)) == [10, 23]


def test_beyond_that_all_go_equally_slower():
    # Three on two cores: two thirds of the speed until the short one ends, at 15; then full speed.
    assert ends_of(2, (0, 10), (0, 20), (0, 40)) == [15, 25, 45]


def test_a_part_of_a_core_is_enough_for_one_and_slows_two():
    assert ends_of(1.5, (0, 30)) == [30]
    assert ends_of(1.5, (0, 30), (0, 30)) == [40, 40]


def test_who_comes_later_slows_the_others_from_then_on():
    assert ends_of(1, (0, 100), (50, 100)) == [150, 200]


def test_what_is_cancelled_leaves_its_share_to_the_others_and_says_what_was_left():
    heap, ends, left = EventHeap(), [], []
    cores = Cores(heap, 1)
    gone = cores.begin(100, ends.append, "gone")
    cores.begin(100, lambda _: ends.append(heap.now))
    heap.at(100, lambda _: left.append(cores.cancel(gone)))
    heap.run()
    assert (ends, left) == ([150], [50])


def test_rounding_loses_nothing():
    count = 7
    ends = ends_of(2, *[(0, 1_000_000_007)] * count)
    assert all(0 <= end - 1_000_000_007 * count / 2 < 2 for end in ends)


def test_a_pull_and_a_push_take_the_time_of_their_replica():
    network = "latency=1ms bandwidth=unlimited server=unlimited rpc=0s lock=0s lock-per-byte=0s"
    plain = simulate("10ms", network, steps=10, workers=1, shards=2, consistency="async")
    costly = simulate("10ms", network + ENDS, steps=10, workers=1, shards=2, consistency="async")
    # Each of 10 pushes and 11 pulls: 2 ms, and 1 ms for each of two requests.
    assert costly.ended_ns - plain.ended_ns == 21 * 4 * MS
    budget = costly.status.members[0].counters.seconds
    assert budget["compute"] == pytest.approx(0.1)
    assert budget["push"] == pytest.approx(10 * 0.006)


def test_each_byte_takes_the_time_of_both_ends():
    network = "latency=0s bandwidth=unlimited server=unlimited rpc=0s lock=0s lock-per-byte=0s"
    ends = " client=0s client-per-request=0s client-per-byte=2ns rpc-per-byte=3ns"
    run = simulate("10ms", network + ends, steps=10, workers=1, consistency="async", size=MS)
    # 10 pushes, 11 pulls and the first weights; those are sent before the run begins, and received in it.
    assert run.seconds == pytest.approx(10 * 0.010 + 21 * 0.005)
    assert run.servers[0].handlers_ns == 22 * 3 * MS


def test_replicas_that_share_cores_slow_each_other():
    free = "latency=0s bandwidth=unlimited server=unlimited rpc=0s lock=0s lock-per-byte=0s"
    ends = " client=0s client-per-request=0s client-per-byte=0s rpc-per-byte=0s"
    runs = {
        cores: simulate("10ms", f"{free}{ends} cores={cores}", steps=10, workers=4).seconds
        for cores in (1, 2, 4, 8)
    }
    assert runs == {1: 0.4, 2: 0.2, 4: 0.1, 8: 0.1}


def test_what_an_accelerator_computes_needs_no_core():
    free = "latency=0s bandwidth=unlimited server=unlimited rpc=0s lock=0s lock-per-byte=0s"
    ends = " client=0s client-per-request=0s client-per-byte=0s rpc-per-byte=0s cores=1"
    assert simulate("10ms cpu=0%", free + ends, steps=10, workers=4).seconds == 0.1
    assert simulate("10ms cpu=20%", free + ends, steps=10, workers=4).seconds == 10 * (0.008 + 4 * 0.002)


def test_a_pause_and_a_crash_find_whoever_computes():
    free = "latency=0s bandwidth=unlimited server=unlimited rpc=0s lock=0s lock-per-byte=0s"
    ends = " client=0s client-per-request=0s client-per-byte=0s rpc-per-byte=0s cores=2"
    for cpu in ("0%", "50%", "100%"):
        run = simulate(
            f"10ms cpu={cpu}", free + ends, "pause=w0@12ms+5ms pause=w0@14ms+5ms", steps=10, workers=2
        )
        assert run.seconds == pytest.approx(0.110, abs=1e-6)
        run = simulate(f"10ms cpu={cpu}", free + ends, "crash=w0@12ms+20ms", steps=10, workers=2)
        assert run.reason == ""
        assert run.versions == (10,)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (
            LAN + " cores=2",
            "not what client and client-per-request and client-per-byte and rpc-per-byte cost",
        ),
        (LAN + " cores=0" + ENDS, "at least 0.1 of a core"),
        (LAN + " cores=two" + ENDS, "Expected a number as cores"),
        (LAN + " client=-1ms", "must be 0 or more"),
        (LAN + " core=2", "Did you mean 'cores'"),
    ],
)
def test_impossible_cores_are_refused(network, sentence):
    with pytest.raises(ValueError, match=sentence):
        simulate("10ms", network)
