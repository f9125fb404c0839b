"""Replicas that crash, are cut off, come back or come late: nobody waits for ever, and rounds stay whole."""

import random
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import STEPS_MAX, job, marking_gradient, seen
from world import Plan, World

from paramserver.consistency import parse_consistency


@st.composite
def faulty_plans(draw, rules):
    steps = tuple(draw(st.lists(st.integers(0, STEPS_MAX), min_size=1, max_size=4)))
    shards = draw(st.integers(1, 3))
    late = draw(st.integers(0, len(steps) - 1))
    shape = (shards, len(steps) * STEPS_MAX)
    spec = job(
        draw(st.sampled_from(rules)),
        len(steps) - late,
        shape,
        replicas_max=len(steps),
        on_death=draw(st.sampled_from(["drop", "restart"])),
        restarts_max=draw(st.integers(0, 4)),
    )
    first = np.zeros(shape, np.float32)
    return Plan(
        spec, shards, steps, marking_gradient(), first, duplicates=0.1, faults=draw(st.floats(0.005, 0.05))
    )


def check_the_end(world):
    assert world.ended is not None
    assert world.cluster.unanswered == 0
    assert {host.state for host in world.hosts if host.expected} <= {"done", "ended", "away"}
    if world.ended == "":
        assert any(host.state == "done" for host in world.hosts)
    else:
        assert world.ended.endswith("."), "a job that fails says so in a sentence"


def check_the_steady(world, here, reader, clock):
    """A read sees what the bound promises of every replica that has been there all the time."""
    bound = parse_consistency(world.plan.spec.consistency).bound
    for other in world.hosts:
        if other.replica is not None and other.rank not in world.restless:
            must_see = clock if bound is None else clock - bound
            if reader is other:
                must_see = clock
            elif world.plan.spec.consistency == "async":
                must_see = 0
            assert {(other.rank, step) for step in range(min(must_see, other.steps))} <= here


@settings(max_examples=400, deadline=None, derandomize=True)
@given(plan=faulty_plans(["async", "ssp:0", "ssp:1", "ssp:3"]), seed=st.integers(0, 2**32 - 1))
def test_without_rounds_nobody_waits_for_ever_and_nothing_is_applied_twice(plan, seed):
    bound = parse_consistency(plan.spec.consistency).bound

    def reads(host, clock, pulled):
        for row in pulled.values["w"]:
            assert set(np.unique(row)) <= {0, 1}
            check_the_steady(world, seen(row), host, clock)
        assert bound is None or pulled.clock_gap <= bound

    world = World(plan, random.Random(seed), reads)
    world.run()
    check_the_end(world)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(plan=faulty_plans(["sync"]), seed=st.integers(0, 2**32 - 1))
def test_a_round_has_a_rank_on_all_shards_or_on_none(plan, seed):
    def reads(host, clock, pulled):
        rows = [seen(row) for row in pulled.values["w"]]
        assert all(row == rows[0] for row in rows)
        assert rows[0] == {(rank, number) for number in range(clock) for rank in world.rounds[number]}
        assert pulled.rounds == clock
        check_the_steady(world, rows[0], host, clock)

    world = World(plan, random.Random(seed), reads)
    world.run()
    check_the_end(world)


def test_the_faults_above_do_happen():
    # A test of the tests: with these seeds jobs end well and badly, replicas come back and come late.
    endings, lives, late = Counter(), Counter(), 0
    spec = job("sync", 2, (2, 3 * STEPS_MAX), replicas_max=3, on_death="drop")

    for seed in range(60):
        first = np.zeros((2, 3 * STEPS_MAX), np.float32)
        world = World(
            Plan(spec, 2, (5, 4, 5), marking_gradient(), first, 0.1, 0.03), random.Random(seed)
        ).run()
        endings[world.ended] += 1
        lives[max(host.lives for host in world.hosts)] += 1
        late += world.hosts[2].replica is not None
    assert endings[""] > 10
    assert endings["Every replica is dead."] > 0
    assert max(lives) > 3
    assert late > 10
