"""What one replica does, with the test as the server."""

import numpy as np
import pytest

from paramserver.errors import JobError
from paramserver.events import Outcome, Verdict
from paramserver.session import Pulled
from paramserver.training import REFUSALS_MAX, Pull, Push, Step, training

APPLIED = Verdict(Outcome.APPLIED, 1)
BUFFERED = Verdict(Outcome.BUFFERED, round=0)
DROPPED = Verdict(Outcome.DROPPED, reason="It holds nan.")
DROPPED_FROM_ROUND = Verdict(Outcome.DROPPED, round=0, reason="It holds nan.")


def pulled(verdict=None, value=0.0):
    return Pulled({"w": np.full(1, value, np.float32)}, (0,), 0, 0, verdict)


def gradient(values, batch):
    return 0.5, {"w": values["w"] + np.float32(batch)}, batch + 1


STEP = Step(batch_at=lambda clock: 10 * clock, gradient=gradient)


def test_each_step_is_a_pull_a_gradient_of_its_batch_and_a_push_and_then_one_more_pull():
    replica = training(STEP, steps=2)
    assert next(replica) == Pull(0)
    push = replica.send(pulled(value=3.0))
    assert (push.clock, push.samples, push.loss) == (0, 1, 0.5)
    assert push.gradients["w"].tolist() == [3.0]
    assert replica.send(APPLIED) == Pull(1)
    push = replica.send(pulled(value=4.0))
    assert (push.clock, push.samples) == (1, 11)
    assert push.gradients["w"].tolist() == [14.0]
    assert replica.send(APPLIED) == Pull(2)
    with pytest.raises(StopIteration):
        replica.send(pulled())


def test_it_begins_at_any_clock_also_at_the_end():
    replica = training(STEP, steps=5, start_clock=4)
    assert next(replica) == Pull(4)
    assert replica.send(pulled()).clock == 4
    replica = training(STEP, steps=5, start_clock=5)
    assert next(replica) == Pull(5)
    with pytest.raises(StopIteration):
        replica.send(pulled())
    assert list(training(STEP, steps=5, start_clock=6)) == []


def steps_until_it_gives_up(verdict_of_push, verdict_of_pull):
    replica = training(STEP, steps=100)
    pushes, answer = 0, None
    while True:
        try:
            wish = replica.send(answer)
        except JobError as error:
            return pushes, str(error)
        if isinstance(wish, Push):
            pushes += 1
            answer = verdict_of_push(wish.clock)
        else:
            answer = pulled(verdict_of_pull(wish.clock) if wish.clock else None)


def test_it_gives_up_after_so_many_refused_gradients_in_a_row():
    pushes, sentence = steps_until_it_gives_up(lambda clock: DROPPED, lambda clock: None)
    assert pushes == REFUSALS_MAX
    assert "5 gradients in a row were dropped" in sentence
    assert "It holds nan." in sentence


def test_in_a_round_the_next_pull_says_so():
    pushes, _ = steps_until_it_gives_up(lambda clock: BUFFERED, lambda clock: DROPPED_FROM_ROUND)
    assert pushes == REFUSALS_MAX


def test_a_repeated_push_that_learns_of_its_round_at_once_is_not_counted_twice():
    pushes, _ = steps_until_it_gives_up(lambda clock: DROPPED_FROM_ROUND, lambda clock: DROPPED_FROM_ROUND)
    assert pushes == REFUSALS_MAX


def test_one_that_is_applied_in_between_begins_the_count_anew():
    def verdict_of_push(clock):
        return APPLIED if clock == REFUSALS_MAX - 2 else DROPPED

    pushes, _ = steps_until_it_gives_up(verdict_of_push, lambda clock: None)
    assert pushes == 2 * REFUSALS_MAX - 1


def test_the_rows_of_a_batch_are_named_before_its_pull_and_none_before_the_last():
    step = Step(STEP.batch_at, gradient, rows=lambda batch: {"table": np.array([batch, batch + 1])})
    replica = training(step, steps=2)
    wish, named = next(replica), []
    for verdict in (APPLIED, APPLIED):
        named.append(wish.rows["table"].tolist())
        replica.send(pulled())
        wish = replica.send(verdict)
    assert named == [[0, 1], [10, 11]]
    assert wish.clock == 2
    assert wish.rows["table"].tolist() == []
    assert wish.rows["table"].dtype == np.int64
