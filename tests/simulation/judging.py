"""Let random worlds happen and judge them; as a program, so many of them: ``judging.py FIRST LAST``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from audited import auditing
from random_worlds import BATCH, BYTES, SAMPLES, TIMES, RandomWorld, draw_world

from paramserver.accounting import SAMPLE_NAMES
from paramserver.consistency import parse_consistency
from paramserver.data import generator
from paramserver.errors import JobError, RequestError
from paramserver.events import Dealt, JobSpec, Part, TensorSpec
from paramserver.optim import build_optimizer
from paramserver.sequential import train_sequentially
from paramserver.sim import Run, Simulation, Task
from paramserver.training import Step
from paramserver.types import Tensors, tensors_sha256

NOISE = 8
"""Columns that depend on all that has come before."""

ENDINGS = (
    "needed more than",
    "did not come back within",
    "died and was not restarted within",
    "replicas joined within",
    "No replica could join within",
    "none initialised the weights within",
    "Every replica is dead.",
    "Every replica has left,",
    "The servers did not answer",
)
"""Why a job may give up, if enough goes wrong."""


def make_job(random: RandomWorld) -> tuple[JobSpec, Task]:
    """Return a job whose weights show which steps, or samples, they have seen; in rounds also in which order.

    A step, or a sample, has a column, to which its gradient adds one (in a round, its share of one).
    """
    gathers = parse_consistency(random.rule).gathers
    machines = random.machines
    columns = random.epochs * SAMPLES or random.replicas_max * random.steps
    shape = (machines.shards_in_all, columns + NOISE * gathers)
    noise = generator(random.seed, "noise").standard_normal((columns, NOISE), np.float32)

    def gradient(values: Any, batch: tuple[int, int]) -> tuple[float, dict[str, Any], int]:
        begin, end = batch
        marks = np.zeros(shape, np.float32)
        marks[:, begin:end] = -1
        if gathers:
            marks[:, -NOISE:] = np.float32(0.1) * values["w"][:, -NOISE:] + noise[begin]
        return 0.0, {"w": marks}, end - begin if random.epochs else 1 + begin % 3

    def step(rank: int) -> Step[Any]:
        return Step(lambda clock: (rank * random.steps + clock, rank * random.steps + clock + 1), gradient)

    def dealt_step(rank: int, next_part: Callable[[int], Dealt | None]) -> Step[Any]:
        def batch_at(clock: int) -> tuple[int, int] | None:
            dealt = next_part(clock)
            if dealt is None:
                return None
            epoch, place, places, begin, _ = dealt.part
            first = SAMPLES * place // places + (begin + clock - dealt.clock) * BATCH
            last = min(first + BATCH, SAMPLES * (place + 1) // places)
            return epoch * SAMPLES + first, epoch * SAMPLES + last

        return Step(batch_at, gradient)

    spec = JobSpec(
        (TensorSpec("w", shape),),
        model="marks",
        consistency=random.rule,
        learning_rate=1.0,
        replicas=machines.replicas,
        replicas_max=random.replicas_max,
        on_death=random.on_death,
        restarts_max=random.restarts_max,
        checkpoint_updates=random.checkpoint_every,
        samples=SAMPLES if random.epochs else 0,
        batch=BATCH,
        epochs=max(1, random.epochs),
        **TIMES,
    )
    first = {"w": np.zeros(shape, np.float32)}
    steps = (random.steps,) * machines.replicas
    return spec, Task(steps, step, lambda: dict(first), BYTES, dealt_step if random.epochs else None)


def let_happen(random: RandomWorld) -> Run:
    """Run a world's job under the eyes of the auditors."""
    with auditing(random.machines) as auditors:
        run = Simulation(random.world, random.machines, *make_job(random), keep_steps=False).run()
        if not run.reason:
            auditors.end()
    return run


def train_in_one_loop(random: RandomWorld) -> Tensors:
    """Return what the weights are after rounds in which nothing goes wrong."""
    spec, task = make_job(random)
    shares = [_whole_share(random, task, rank) for rank in range(spec.replicas)]
    rule, optimizer = parse_consistency(random.rule), build_optimizer("sgd", 1.0, "constant", 1)
    steps, counts = [step for step, _ in shares], [count for _, count in shares]
    *_, last = train_sequentially(rule, optimizer, task.initial(), steps, counts)
    return last.weights


def _whole_share(random: RandomWorld, task: Task, rank: int) -> tuple[Step[Any], int]:
    """Return what a rank does, and in how many steps, where nobody comes or goes."""
    if task.dealt_step is None:
        return task.step(rank), random.steps
    replicas = random.machines.replicas
    share = SAMPLES * (rank + 1) // replicas - SAMPLES * rank // replicas
    batches = -(-share // BATCH)

    def part(clock: int) -> Dealt:
        epoch = clock // batches
        return Dealt(epoch * batches, Part(epoch, rank, replicas, 0, batches))

    return task.dealt_step(rank, part), random.epochs * batches


def check_world(random: RandomWorld) -> str:
    """Run a world and judge it; return why the job failed, empty if it finished."""
    run = let_happen(random)
    assert run.status.ended
    if run.reason:
        assert run.reason.endswith("."), "a job that fails says so in a sentence"
        assert any(words in run.reason for words in ENDINGS), run.reason
        assert not random.must_finish, f"nothing went so wrong: {run.reason}"
    _check_account(run)
    if run.weights:
        _check_marks(random, run)
    if not run.reason and random.is_steady and random.rule == "sync":
        expected = tensors_sha256(train_in_one_loop(random))
        assert run.weights_sha256 == expected, "the weights are not those of one plain loop"
    return run.reason


def _check_account(run: Run) -> None:
    for member in run.status.members:
        for counts in (member.counters.gradients, member.counters.samples):
            # Whatever has no name yet was on its way when its replica ended, and is counted as lost.
            named = sum(counts.get(name, 0) for name in SAMPLE_NAMES[1:])
            assert named <= counts.get("computed", 0), counts
            assert min(counts.values(), default=0) >= 0, counts


def _check_marks(random: RandomWorld, run: Run) -> None:
    gathers = parse_consistency(random.rule).gathers
    marks = run.weights["w"][:, : -NOISE if gathers else None]
    if not gathers and (random.is_steady or not random.epochs):
        # Else what a dead replica had pushed to some shards only is done again by another, on all.
        assert set(np.unique(marks)) <= {0, 1}, "a step is in the weights more than once"
    if gathers:
        assert all(np.array_equal(row, marks[0]) for row in marks), "a round is not the same on all shards"
    if run.reason:
        return
    if random.is_steady:
        columns = random.epochs * SAMPLES or random.machines.replicas * random.steps
        assert marks[:, :columns].all(), "a step is missing"
    for visits in run.status.visits:
        seen = marks[:, visits.epoch * SAMPLES : (visits.epoch + 1) * SAMPLES].all(axis=0).sum()
        assert visits.samples - visits.unseen <= seen, f"{visits}, but the weights have seen {seen}"


def judge(seed: int, draw: Callable[[int], RandomWorld] = draw_world) -> str:
    """Judge one seed; what is wrong is said with what shows it."""
    random = draw(seed)
    try:
        return check_world(random)
    except (AssertionError, JobError, RequestError, KeyError, ValueError, IndexError) as error:
        raise AssertionError(
            f"Seed {seed}: {type(error).__name__}: {error}\n{random}\n"
            f"python tests/simulation/judging.py {seed}\n{'' if random.epochs else random.command()}"
        ) from error


def main(first: int, last: int) -> int:
    """Judge seeds, the last one included; print what fails, and how the jobs ended."""
    began, ends, failed = time.monotonic(), Counter[str](), 0
    for seed in range(first, last + 1):
        try:
            reason = judge(seed)
        except AssertionError as error:
            failed += 1
            print(error, flush=True)
        else:
            ends[next((words for words in ENDINGS if words in reason), "finished")] += 1
    print(f"Seeds {first} to {last}: {failed} failed, in {time.monotonic() - began:.0f} s. {dict(ends)}")
    return 1 if failed else 0


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(numbers[0], numbers[-1]))
