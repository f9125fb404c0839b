"""The event heap: order, cancelling, and simpy as its oracle."""

import random

import pytest

from paramserver.sim.heap import EventHeap


def test_one_instant_keeps_the_order_of_scheduling_and_later_wishes_for_it_come_last():
    heap, seen = EventHeap(), []

    def first(_):
        seen.append("first")
        heap.at(5, seen.append, "wished at 5 for 5")

    heap.at(5, first)
    heap.at(5, seen.append, "second")
    heap.at(3, lambda _: heap.at(5, seen.append, "wished at 3 for 5"))
    heap.run()
    assert seen == ["first", "second", "wished at 3 for 5", "wished at 5 for 5"]
    assert heap.happened == 5


def test_what_is_over_cannot_be_scheduled():
    heap = EventHeap()
    heap.at(5, lambda _: heap.at(4, print))
    with pytest.raises(AssertionError, match="At 5 ns something was scheduled for 4 ns, which is over"):
        heap.run()


def test_a_cancelled_timer_does_not_fire_and_a_fired_one_can_be_cancelled():
    heap, seen = EventHeap(), []
    late = heap.timer(9, seen.append, "late")
    early = heap.timer(3, seen.append, "early")
    heap.at(5, lambda _: (late.cancel(), early.cancel()))
    assert (early.pending, late.when) == (True, 9)
    heap.run()
    assert seen == ["early"]
    assert not late.pending


def test_a_stopped_heap_finishes_its_instant_and_can_go_on():
    heap, seen = EventHeap(), []
    heap.at(1, lambda _: heap.stop())
    heap.at(1, seen.append, "same instant")
    heap.at(2, seen.append, "later")
    heap.run()
    assert seen == ["same instant"]
    heap.run()
    assert seen == ["same instant", "later"]


def test_a_heap_that_runs_a_few_events_at_a_time_does_the_same_and_says_whether_there_is_more():
    heap, seen = EventHeap(), []
    for when in (1, 2, 2, 3):
        heap.at(when, seen.append, when)
    assert heap.run(events=2)
    assert seen == [1, 2, 2], "an instant is not cut in two"
    assert not heap.run(events=2)
    assert seen == [1, 2, 2, 3]
    heap.at(4, lambda _: heap.stop())
    heap.at(5, seen.append, 5)
    assert not heap.run(events=1), "a stopped heap is not to be gone on with"


@pytest.mark.parametrize("seed", range(20))
def test_events_come_in_the_same_order_as_in_simpy(seed):
    simpy = pytest.importorskip("simpy")
    # The same program on both: each event schedules up to two more, often for the same instant.
    plan = random.Random(seed)
    children = [[(plan.randrange(4), plan.random()) for _ in range(plan.randrange(3))] for _ in range(997)]

    def program(schedule, now, seen):
        def happen(name):
            seen.append((now(), name))
            for delay, label in children[int(name * 1e6) % 997] if len(seen) < 2000 else []:
                schedule(delay, happen, label)

        for start in range(20):
            schedule(start % 3, happen, start / 20)

    environment, in_simpy = simpy.Environment(), []

    def schedule_in_simpy(delay, action, argument):
        timeout = environment.timeout(delay, argument)
        timeout.callbacks.append(lambda event: action(event.value))

    program(schedule_in_simpy, lambda: environment.now, in_simpy)
    environment.run()
    heap, in_ours = EventHeap(), []
    program(
        lambda delay, action, argument: heap.at(heap.now + delay, action, argument), lambda: heap.now, in_ours
    )
    heap.run()
    assert in_ours == in_simpy
    assert len(in_ours) >= 20
