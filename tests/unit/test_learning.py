"""What models and optimizers learn together, in the plain loop without a server."""

from __future__ import annotations

import numpy as np
import pytest

from paramserver.consistency import parse_consistency
from paramserver.data import Batches, generator, steps_of_rank
from paramserver.datasets import load
from paramserver.models import build_model, score
from paramserver.optim import OPTIMIZERS, apply, apply_rows, build_optimizer
from paramserver.rows import RowValues
from paramserver.sequential import train_sequentially
from paramserver.training import Step

REPLICAS, BATCH = 4, 32

# Learning rates at which each optimizer trains digits to 0.95 and more, for seeds 0 to 4.
LEARNING_RATES = {
    "sgd": 0.7,
    "momentum": 0.1,
    "nesterov": 0.15,
    "adagrad": 0.05,
    "rmsprop": 0.005,
    "adam": 0.005,
    "adamw": 0.005,
}


def accuracy_on_digits(model_text: str, optimizer_text: str, lr: float, schedule: str, epochs: int) -> float:
    splits = load("digits")
    model = build_model(model_text, splits.train.features, splits.train.classes)
    steps = [steps_of_rank(len(splits.train), rank, REPLICAS, BATCH, epochs) for rank in range(REPLICAS)]

    def replica(rank: int) -> Step[int]:
        batches = Batches(splits.train, BATCH, epochs, 0, rank, REPLICAS)

        def gradient(values, clock):
            inputs, labels = batches.batch_at(clock)
            chance = generator(0, "dropout", rank, clock)
            return (*model.gradient(values, inputs, labels, chance), len(labels))

        return Step(lambda clock: clock, gradient)

    optimizer = build_optimizer(optimizer_text, lr, schedule, max(steps))
    replicas = [replica(rank) for rank in range(REPLICAS)]
    for update in train_sequentially(parse_consistency("sync"), optimizer, model.initial(0), replicas, steps):
        weights = update.weights
    return score(model, weights, splits.test.inputs, splits.test.labels).accuracy


def test_every_optimizer_has_a_learning_rate():
    assert set(LEARNING_RATES) == set(OPTIMIZERS)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains_digits(optimizer: str):
    accuracy = accuracy_on_digits("mlp:128", optimizer, LEARNING_RATES[optimizer], "cosine", epochs=50)
    assert accuracy >= 0.95


@pytest.mark.parametrize(
    ("model", "schedule"),
    [
        ("cnn:6,8", "cosine"),
        ("mlp:64:tanh", "warmup:5%+cosine"),
        ("mlp:64:norm", "step:0.3,30%"),
        ("mlp:128:dropout=0.2", "cosine"),
    ],
)
def test_models_with_options_train_digits(model: str, schedule: str):
    assert accuracy_on_digits(model, "adam", 0.02, schedule, epochs=30) >= 0.95


@pytest.mark.parametrize("optimizer_text", ["sgd", "adagrad"])
def test_clicks_are_learnt_from_rows_alone_as_from_the_whole_table(optimizer_text: str):
    rows, fields = 500, 4
    rng = np.random.default_rng(0)
    effects = rng.normal(size=rows)
    inputs = rng.zipf(1.5, (6000, fields)) * 7919 % rows
    labels = (rng.random(6000) < 1 / (1 + np.exp(-effects[inputs].sum(axis=1)))).astype(np.int64)
    model = build_model(f"logistic:{rows}", fields, 2)
    optimizer = build_optimizer(optimizer_text, 0.5, "constant", 1)
    sparse, whole = model.initial(0), model.initial(0)
    sparse_state = {key: optimizer.init(value) for key, value in sparse.items()}
    whole_state = {key: optimizer.init(value) for key, value in whole.items()}
    table, bias = "linear/weight", "linear/bias"
    for count, start in enumerate(range(0, 5000, 50)):
        batch = slice(start, start + 50)
        touched = model.rows(inputs[batch])[table]
        fetched = RowValues(touched, sparse[table][touched], sparse[table].shape)
        _, gradient = model.gradient({**sparse, table: fetched}, inputs[batch], labels[batch])
        changed = gradient[table]
        apply_rows(
            optimizer, sparse[table], changed.indices, changed.rows, sparse_state[table], count, sparse[table]
        )
        after = np.empty_like(sparse[bias])
        apply(optimizer, sparse[bias], gradient[bias], sparse_state[bias], count, after)
        sparse[bias] = after
        _, gradient = model.gradient(whole, inputs[batch], labels[batch])
        dense = {table: gradient[table].dense(), bias: gradient[bias]}
        for key in (table, bias):
            after = np.empty_like(whole[key])
            apply(optimizer, whole[key], dense[key], whole_state[key], count, after)
            whole[key] = after
    assert all(np.array_equal(sparse[key], whole[key]) for key in whole)
    found = score(model, sparse, inputs[5000:], labels[5000:])
    ideal = score(
        model,
        {table: effects[:, None].astype(np.float32), bias: sparse[bias] * 0},
        inputs[5000:],
        labels[5000:],
    )
    assert found.auc is not None
    assert ideal.auc is not None
    assert ideal.auc - 0.08 < found.auc <= 1
    assert found.auc > 0.7
