"""Servers that end and come back, at any moment: nothing is applied twice, and the end is the same."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import STEPS_MAX, job, marking_gradient
from recovering import RecoveringWorld
from world import Plan, World


@st.composite
def plans(draw, rules):
    steps = tuple(draw(st.lists(st.integers(1, STEPS_MAX), min_size=1, max_size=3)))
    if rules == ["sync"]:  # which rank a replica gets is chance, and what a rank does must not be
        steps = steps[:1] * len(steps)
    shards = draw(st.integers(1, 3))
    shape = (shards, len(steps) * STEPS_MAX)
    spec = job(
        draw(st.sampled_from(rules)),
        len(steps),
        shape,
        on_death="restart",
        restarts_max=100,
        checkpoint_updates=draw(st.sampled_from([0, 1, 2])),
        lease_seconds=1e6,
        step_timeout_seconds=1e6,
        start_timeout_seconds=1e6,
        restart_timeout_seconds=1e6,
    )
    first = np.zeros(shape, np.float32)
    return Plan(spec, shards, steps, marking_gradient(), first, duplicates=0.1, faults=0.03)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(plan=plans(["sync"]), seed=st.integers(0, 2**32 - 1))
def test_rounds_end_as_if_nothing_had_happened(plan, seed):
    world = RecoveringWorld(plan, random.Random(seed)).run()
    calm = World(replace(plan, faults=0.0), random.Random(seed)).run()
    assert world.weights().tobytes() == calm.weights().tobytes()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(plan=plans(["async", "ssp:0", "ssp:2"]), seed=st.integers(0, 2**32 - 1))
def test_without_rounds_every_step_is_in_the_weights_once(plan, seed):
    world = RecoveringWorld(plan, random.Random(seed)).run()
    for row in world.weights():
        marks = row.reshape(len(plan.steps), STEPS_MAX)
        for rank in range(len(plan.steps)):
            steps = next(host.steps for host in world.hosts if host.rank == rank)
            assert marks[rank].tolist() == [1.0] * steps + [0.0] * (STEPS_MAX - steps)


@pytest.mark.parametrize("rule", ["sync", "async"])
def test_the_crashes_above_do_happen(rule):
    # A test of the tests: with these seeds there are generations, and coordinators that come back.
    shape = (2, 3 * STEPS_MAX)
    spec = job(rule, 3, shape, restarts_max=100, checkpoint_updates=2, lease_seconds=1e6)
    plan = Plan(spec, 2, (5, 4, 5), marking_gradient(), np.zeros(shape, np.float32), 0.1, 0.05)
    worlds = [RecoveringWorld(plan, random.Random(seed)).run() for seed in range(40)]
    assert sum(world.generations > 1 for world in worlds) > 10
    assert sum(world.coordinators > 0 for world in worlds) > 10
    assert sum(world.began_anew > 0 for world in worlds) > 10
