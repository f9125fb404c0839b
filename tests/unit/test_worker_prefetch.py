"""Batches made ahead of time: in order, not too many, and an end to everything."""

from __future__ import annotations

import threading

import pytest

from paramserver.errors import JobError, RequestError
from worker.prefetch import DEPTH, Prefetch

SECONDS = 30.0


def test_batches_come_in_order() -> None:
    with Prefetch(lambda step: step * 10, 3, SECONDS) as batches:
        assert [batches.batch_at(step) for step in range(3, 8)] == [30, 40, 50, 60, 70]


def test_no_more_are_made_than_there_is_room_for() -> None:
    made: list[int] = []
    enough, too_many = threading.Event(), threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if len(made) == DEPTH + 1:
            enough.set()
        if len(made) > DEPTH + 2:
            too_many.set()
        return step

    with Prefetch(make, 0, SECONDS) as batches:
        assert enough.wait(SECONDS)
        assert batches.batch_at(0) == 0
    assert not too_many.is_set()
    assert made == list(range(len(made)))


def test_an_error_comes_at_its_step_as_a_sentence() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ZeroDivisionError("division by zero")
        return step

    with Prefetch(make, 0, SECONDS) as batches:
        assert [batches.batch_at(0), batches.batch_at(1)] == [0, 1]
        with pytest.raises(JobError, match="step 2 cannot be made: ZeroDivisionError: division by zero"):
            batches.batch_at(2)


def test_an_error_of_the_data_comes_as_it_is() -> None:
    def make(step: int) -> int:
        raise RequestError("The file ends at sample 7.")

    with Prefetch(make, 0, SECONDS) as batches, pytest.raises(RequestError, match="ends at sample 7"):
        batches.batch_at(0)


def test_a_batch_that_does_not_come_in_time_is_named() -> None:
    never = threading.Event()
    with Prefetch(lambda step: never.wait(SECONDS), 0, 0.01) as batches:
        with pytest.raises(JobError, match=r"batch of step 0 was not ready within 0\.01 s"):
            batches.batch_at(0)
        never.set()


def test_stop_wakes_who_waits_for_a_batch() -> None:
    never = threading.Event()
    caught: list[str] = []
    with Prefetch(lambda step: never.wait(SECONDS), 0, SECONDS) as batches:

        def take() -> None:
            try:
                batches.batch_at(0)
            except JobError as error:
                caught.append(str(error))

        taker = threading.Thread(target=take)
        taker.start()
        batches.stop("Enough.")
        taker.join(SECONDS)
        never.set()
    assert caught == ["Enough."]


def test_leaving_ends_the_thread() -> None:
    before = set(threading.enumerate())
    with Prefetch(lambda step: step, 0, SECONDS) as batches:
        batches.batch_at(0)
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before
