"""A replica's loop against a client that only pretends: where it begins anew, and when it is done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from paramserver.client import FencedError
from paramserver.events import Dealt, JobSpec, Outcome, Part, PartGiven, Replica, TensorSpec, Verdict
from paramserver.session import Pulled
from paramserver.training import Step
from worker.replica import ReplicaLoop, Task

STEPS = 3


class PretendedClient:
    """The coordinator gives what is in `script`: errors to raise before it answers. It deals `STEPS` steps.

    They begin at clock `first`.
    """

    def __init__(self, script: list[Exception | None], clock: int = 0) -> None:
        self.script, self.first = script, 0
        self.rank, self.clock, self.sealed = 0, clock, True
        self.replica = Replica(0, 1)
        self.job = JobSpec((TensorSpec("w", (1,)),))
        self.granted = SimpleNamespace(generation=0)
        self.session = SimpleNamespace(shards=1)
        self.pushed: list[int] = []

    def next_part(self, clock: int) -> PartGiven:
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error
        end = self.first + STEPS
        part = None if clock >= end else Dealt(clock, Part(0, 0, 1, clock - self.first, STEPS))
        return PartGiven(0, part, end)

    def rejoin(self, generation: int) -> None:
        self.replica = Replica(0, self.replica.incarnation + (generation == self.granted.generation))
        self.granted.generation = generation

    def pull(self, clock: int, note: Any, rows: Any) -> Pulled:
        return Pulled({"w": np.zeros(1, np.float32)}, (clock,), 0, 0, None)

    def push(self, clock: int, gradients: Any, samples: int) -> Verdict:
        self.pushed.append(clock)
        return Verdict(Outcome.APPLIED, clock + 1)


def run(client: PretendedClient) -> ReplicaLoop:
    def step(rank: int, next_part: Any) -> Step[Any]:
        dealt = None

        def batch_at(clock: int) -> int | None:
            nonlocal dealt
            if dealt is None or clock >= dealt.end:
                dealt = next_part(clock)
            return None if dealt is None else clock

        return Step(batch_at, lambda values, clock: (0.0, {"w": np.ones(1, np.float32)}, 1))

    loop = ReplicaLoop(client, Task(step, dict))  # type: ignore[arg-type]  # it pretends
    loop.run()
    return loop


def test_a_replica_that_is_fenced_before_it_knows_what_to_do_does_it_afterwards() -> None:
    # Its worker was started again, and a server was lost before it was told for the first time.
    client = PretendedClient([FencedError("The weights were recovered.", 1, 0)])
    run(client)
    assert client.pushed == [0, 1, 2]


def test_a_replica_that_is_believed_dead_before_it_knows_what_to_do_does_it_afterwards() -> None:
    client = PretendedClient([FencedError("It was not heard of.", 0, 0)])
    run(client)
    assert client.pushed == [0, 1, 2]
    assert client.replica.incarnation == 2


def test_a_replica_that_had_finished_has_nothing_to_do_in_weights_that_have_it_all() -> None:
    client = PretendedClient([])
    loop = run(client)
    assert client.pushed == [0, 1, 2]
    client.clock = STEPS
    loop.rejoin(1, "The weights were recovered after it had finished.")
    loop.run()
    assert client.pushed == [0, 1, 2]


def test_a_replica_that_had_finished_does_again_what_is_void() -> None:
    client = PretendedClient([])
    loop = run(client)
    client.clock = 1
    loop.rejoin(1, "The weights were recovered after it had finished.")
    loop.run()
    assert client.pushed == [0, 1, 2, 1, 2]


def test_a_newcomer_does_all_of_it_again_where_it_begins_with_the_others() -> None:
    # It had joined after the checkpoint in which they were at clock 10, and had finished at its own clock 3.
    client = PretendedClient([])
    loop = run(client)
    client.clock = client.first = 10
    loop.rejoin(1, "The weights were recovered after it had finished.")
    loop.run()
    assert client.pushed == [0, 1, 2, 10, 11, 12]
