"""Random schedules of the rules, judged by models that share nothing with the shard."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import STEPS_MAX, job, marking_gradient, seen
from world import Plan, World

from paramserver.accounting import staleness_bound
from paramserver.consistency import parse_consistency


@st.composite
def marking_plans(draw, rules, duplicates=0.2):
    """Plans whose gradients mark their step; some gradients are refused."""
    steps = tuple(draw(st.lists(st.integers(0, STEPS_MAX), min_size=1, max_size=4)))
    shards = draw(st.integers(1, 3))
    pairs = st.tuples(st.integers(0, len(steps) - 1), st.integers(0, STEPS_MAX - 1))
    refused = draw(st.frozensets(pairs, max_size=2))
    shape = (shards + 1, len(steps) * STEPS_MAX)
    spec = job(draw(st.sampled_from(rules)), len(steps), shape)
    plan = Plan(spec, shards, steps, marking_gradient(refused), np.zeros(shape, np.float32), duplicates)
    return plan, refused


def all_steps(world, refused):
    steps = {(host.rank, clock) for host in world.hosts for clock in range(host.steps)}
    return steps - refused


def check_the_end(world, refused):
    assert world.ended == ""
    assert [host.state for host in world.hosts] == ["done"] * len(world.hosts)
    assert world.cluster.unanswered == 0
    for host in world.hosts:
        # Nothing is lost: every sample computed was applied or dropped, and the replica knows which.
        dropped = sum(n for clock, n in host.samples.items() if (host.rank, clock) in refused)
        assert sorted(host.samples) == list(range(host.steps))
        assert host.became["dropped"] == dropped
        assert host.became["applied"] == sum(host.samples.values()) - dropped
        assert set(host.became) <= {"applied", "dropped"}
    for row in world.weights():
        assert seen(row) == all_steps(world, refused)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(case=marking_plans(["ssp:0", "ssp:1", "ssp:3", "async"]), seed=st.integers(0, 2**32 - 1))
def test_no_read_breaks_the_bound_and_every_schedule_ends(case, seed):
    plan, refused = case
    bound = parse_consistency(plan.spec.consistency).bound

    def reads(host, clock, pulled):
        for row in pulled.values["w"]:
            assert set(np.unique(row)) <= {0, 1}, "applied at most once, and whole"
            here = seen(row)
            for other in world.hosts:
                must_see = clock if other is host else 0 if bound is None else clock - bound
                expected = {(other.rank, step) for step in range(min(must_see, other.steps))}
                assert expected <= here | refused
            assert here <= {(other.rank, step) for other in world.hosts for step in other.samples}
        assert bound is None or 0 <= pulled.clock_gap <= bound

    world = World(plan, random.Random(seed), reads)
    world.run()
    check_the_end(world, refused)
    for shard, state in enumerate(world.cluster.shards):
        applied = [
            said[1]
            for _, sender, said in world.log
            if sender == shard and said[0] == "pushed" and said[1].outcome.value == "applied"
        ]
        versions = [verdict.version for verdict in applied if not verdict.duplicate]
        assert len(set(versions)) == len(versions)
        assert {verdict.version for verdict in applied} == set(range(1, state.statistics().version + 1))
        assert all(0 <= verdict.staleness < verdict.version for verdict in applied)
        limit = staleness_bound(plan.spec.consistency, plan.spec.replicas)
        assert limit is None or all(verdict.staleness <= limit for verdict in applied)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(case=marking_plans(["sync"]), seed=st.integers(0, 2**32 - 1))
def test_a_synchronous_read_sees_exactly_the_rounds_before_it(case, seed):
    plan, refused = case

    def reads(host, clock, pulled):
        before = {(other.rank, step) for other in world.hosts for step in range(min(clock, other.steps))}
        for row in pulled.values["w"]:
            assert seen(row) == before - refused
        assert pulled.rounds == clock

    world = World(plan, random.Random(seed), reads)
    world.run()
    check_the_end(world, refused)
    for number, ranks in enumerate(world.rounds):
        expected = {host.rank for host in world.hosts if number < host.steps}
        assert set(ranks) == {rank for rank in expected if (rank, number) not in refused}
    assert len(world.rounds) == max(plan.steps)
    for row in world.weights():
        # Each round moved the weights by a mean: its marks share one whole, by samples.
        by_round = row.reshape(-1, STEPS_MAX).sum(axis=0)
        expected = [float(bool(ranks)) for ranks in world.rounds]
        assert by_round[: len(expected)] == pytest.approx(expected)


# --------------------------------------------------------------------------------------------- the twin


def noisy_gradient(shape):
    def gradient(rank, clock, weights):
        noise = np.random.default_rng([rank, clock]).normal(size=shape).astype(np.float32)
        return np.float32(0.1) * weights + noise, 1 + (7 * rank + 3 * clock) % 5

    return gradient


def naive_sum(leaves):
    """Sum in the order of ranks: halves at the largest power of two below their number."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = naive_sum(leaves[:half]), naive_sum(leaves[half:])
    if left is None or right is None:
        return right if left is None else left
    return left + right


def sequential_twin(steps, shape, first):
    """Synchronous training in one plain loop: momentum 0.9, learning rate 0.05."""
    gradient, weights, velocity = noisy_gradient(shape), first, np.zeros(shape, np.float32)
    for number in range(max(steps)):
        leaves = [
            gradient(rank, number, weights) if number < steps[rank] else None for rank in range(len(steps))
        ]
        total = naive_sum([leaf and np.float32(leaf[1]) * leaf[0] for leaf in leaves])
        mean = total / np.float32(sum(leaf[1] for leaf in leaves if leaf))
        velocity = np.float32(0.9) * velocity + mean
        weights = weights + np.float32(-0.05) * velocity
    return weights


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(any),
    shards=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_synchronous_weights_are_the_same_bytes_for_every_schedule(steps, shards, seed):
    shape = (5, 2)
    first = np.linspace(-1, 1, 10, dtype=np.float32).reshape(shape)
    spec = job("sync", len(steps), shape, optimizer="momentum:0.9", learning_rate=0.05)
    world = World(
        Plan(spec, shards, tuple(steps), noisy_gradient(shape), first, duplicates=0.2), random.Random(seed)
    )
    world.run()
    assert world.ended == ""
    # Ranks go by joining, so the twin has to know who became which.
    steps_by_rank = [host.steps for host in sorted(world.hosts, key=lambda host: host.rank)]
    assert world.weights().tobytes() == sequential_twin(steps_by_rank, shape, first).tobytes()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    shards=st.integers(1, 3),
    faults=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_huge_bound_is_asynchronous(steps, shards, faults, seed):
    shape, worlds = (3, 2), []
    for rule in ("async", "ssp:1000000"):
        spec = job(rule, len(steps), shape, on_death="drop")
        plan = Plan(
            spec, shards, tuple(steps), noisy_gradient(shape), np.zeros(shape, np.float32), 0.2, faults
        )
        worlds.append(World(plan, random.Random(seed)).run())
    one, other = worlds
    assert one.log == other.log
    assert one.ended == other.ended
