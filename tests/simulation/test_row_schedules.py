"""Tables under random schedules: rows alone do what whole tensors do, and what the plain loop does."""

import random
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import job
from world import Plan, World

from paramserver import events as ev
from paramserver.consistency import parse_consistency
from paramserver.optim import build_optimizer
from paramserver.rows import RowGradient
from paramserver.sequential import train_sequentially
from paramserver.training import Step

SHAPE = (11, 2)
FIRST = np.linspace(-1, 1, 22, dtype=np.float32).reshape(SHAPE)


def rows_of(rank, clock):
    """Some rows, for some steps none at all."""
    chance = np.random.default_rng([rank, clock])
    return np.flatnonzero(chance.random(SHAPE[0]) < chance.choice([0, 0.2, 0.6]))


def gradient_of_rows(rank, clock, values):
    rows = rows_of(rank, clock)
    noise = np.random.default_rng([rank, clock, 1]).normal(size=(len(rows), 2)).astype(np.float32)
    samples = 1 + (7 * rank + 3 * clock) % 5
    return RowGradient(rows, np.float32(0.1) * values[rows] + noise, SHAPE), samples


def whole_gradient(rank, clock, values):
    gradient, samples = gradient_of_rows(rank, clock, values)
    return gradient.dense(), samples


def weights_on(cluster):
    """What each shard has; nothing where everybody died before there were weights."""
    effects = [effect for shard in cluster.shards for effect in shard.handle(ev.PullReceived(0, None), 0.0)]
    return [
        [values.tobytes() for values in effect.snapshot.values.values()]
        for effect in effects
        if isinstance(effect, ev.PullGranted)
    ]


def table_job(rule, replicas, **changes):
    return replace(job(rule, replicas, SHAPE, **changes), tensors=(ev.TensorSpec("w", SHAPE, table=True),))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    rule=st.sampled_from(["sync", "ssp:1", "async"]),
    steps=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    shards=st.integers(1, 4),
    faults=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_alone_give_the_bytes_of_whole_tensors_under_plain_descent(rule, steps, shards, faults, seed):
    spec = table_job(rule, len(steps), learning_rate=0.05, on_death="drop")
    worlds = []
    for gradient, rows in ((gradient_of_rows, rows_of), (whole_gradient, None)):
        plan = Plan(spec, shards, tuple(steps), gradient, FIRST, 0.2, faults, rows)
        worlds.append(World(plan, random.Random(seed)).run())
    by_rows, whole = worlds
    assert by_rows.ended == whole.ended
    assert by_rows.rounds == whole.rounds
    assert weights_on(by_rows.cluster) == weights_on(whole.cluster)
    for one, other in zip(by_rows.cluster.shards, whole.cluster.shards, strict=True):
        assert one.statistics() == other.statistics()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any),
    shards=st.integers(1, 4),
    optimizer=st.sampled_from(["sgd", "momentum:0.9", "adam", "adagrad", "adam+decay:0.1"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_synchronous_tables_are_the_bytes_of_the_plain_loop(steps, shards, optimizer, seed):
    spec = table_job("sync", len(steps), optimizer=optimizer, learning_rate=0.05)
    plan = Plan(spec, shards, tuple(steps), gradient_of_rows, FIRST, 0.2, rows=rows_of)
    world = World(plan, random.Random(seed))
    world.run()
    assert world.ended == ""

    def step_of(rank):
        def gradient(values, clock):
            found, samples = gradient_of_rows(rank, clock, values["w"])
            return 0.0, {"w": found}, samples

        return Step(batch_at=lambda clock: clock, gradient=gradient)

    steps_by_rank = [host.steps for host in sorted(world.hosts, key=lambda host: host.rank)]
    loop = train_sequentially(
        parse_consistency("sync"),
        build_optimizer(optimizer, 0.05, "constant", 1),
        {"w": FIRST},
        [step_of(rank) for rank in range(len(steps))],
        steps_by_rank,
    )
    *_, last = loop
    assert world.weights().tobytes() == last.weights["w"].tobytes()
    untouched = set(range(SHAPE[0])) - {
        int(row) for rank, count in enumerate(steps_by_rank) for clock in range(count)
        for row in rows_of(rank, clock)
    }  # fmt: skip
    for row in untouched:
        assert last.weights["w"][row].tolist() == FIRST[row].tolist()
