"""Each optimizer and schedule against steps computed by hand, and clipping."""

import math

import numpy as np
import pytest

from paramserver.errors import RequestError
from paramserver.optim import (
    OPTIMIZERS,
    SCHEDULES,
    apply,
    build_optimizer,
    build_schedule,
    clip_by_global_norm,
    global_norm,
    optimizer_name,
)
from paramserver.rows import RowGradient

# One weight that begins at 1, the gradients 1, -2 and 3, a learning rate of 0.1: the weight after each
# update, worked out by hand from the published formulas.
STEPS = {
    # w - 0.1 g
    "sgd": (0.9, 1.1, 0.8),
    # directions g + 0.1 w: 1.1, -1.911, 3.10811
    "sgd+decay:0.1": (0.89, 1.0811, 0.770289),
    # velocities 1, -1.5, 2.25
    "momentum:0.5": (0.9, 1.05, 0.825),
    # the same velocities; directions g + v / 2: 1.5, -2.75, 4.125
    "nesterov:0.5": (0.85, 1.125, 0.7125),
    # sums of squares 1, 5, 14; directions 1, -0.894427, 0.801784
    "adagrad": (0.9, 0.9894427, 0.9092643),
    # means of squares 0.5, 2.25, 5.625; directions 1.414214, -1.333333, 1.264911
    "rmsprop:0.5": (0.8585786, 0.9919120, 0.8654209),
    # m 0.5, -0.75, 1.125; v 0.5, 2.25, 5.625; corrected m 1, -1, 1.285714; corrected v 1, 3, 6.428571;
    # directions 1, -0.577350, 0.507093
    "adam:0.5,0.5": (0.9, 0.9577350, 0.9070257),
    # corrected m 1, -0.578947; corrected v 1, 2.500750; m -0.11 to 0.201, corrected 0.741697; v 0.013994,
    # corrected 4.669338; directions with 0.01 w: 1.01, -0.357114, 0.352595
    "adamw": (0.899, 0.9347114, 0.8994519),
}


def run(spec, gradients, learning_rate=0.1, weights=1.0):
    optimizer = build_optimizer(spec, learning_rate, "constant", 10)
    weights = np.array([weights], np.float32)
    state = optimizer.init(weights)
    found = []
    for count, gradient in enumerate(gradients):
        out = np.empty_like(weights)
        apply(optimizer, weights, np.float32([gradient]), state, count, out)
        weights = out
        found.append(float(out[0]))
    return found


def test_every_optimizer_has_its_steps_and_a_line():
    assert {optimizer_name(spec) for spec in STEPS} == set(OPTIMIZERS)
    assert all(line and "\n" not in line for line in (*OPTIMIZERS.values(), *SCHEDULES.values()))


@pytest.mark.parametrize("spec", STEPS)
def test_steps_are_those_worked_out_by_hand(spec):
    assert run(spec, [1, -2, 3]) == pytest.approx(STEPS[spec], rel=2e-6)


def test_adamw_is_adam_with_decay():
    gradients = np.random.default_rng(0).normal(size=20)
    assert run("adamw", gradients) == run("adam+decay:0.01", gradients)
    assert run("adamw+decay:0.5", gradients) == run("adam+decay:0.5", gradients)
    assert run("adamw+decay:0", gradients) == run("adam", gradients)
    assert run("adamw", gradients) != run("adam", gradients)


def test_weight_decay_is_not_scaled_by_the_size_of_gradients():
    # Decoupled: with gradients of zero each update takes lr * decay of the weight, whatever came before.
    for spec in OPTIMIZERS:
        assert run(f"{spec}+decay:0.1", [0, 0], weights=2.0) == pytest.approx([1.98, 1.9602])


def test_all_but_sgd_like_optimizers_ignore_the_scale_of_gradients():
    for spec in ("adagrad", "rmsprop", "adam"):
        small, large = run(spec, [1e-3, -2e-3, 3e-3]), run(spec, [1e3, -2e3, 3e3])
        assert small == pytest.approx(large, rel=1e-4)


@pytest.mark.parametrize("spec", OPTIMIZERS)
def test_a_gradient_of_zero_is_survived(spec):
    assert run(f"{spec}+decay:0", [0, 0, 0]) == [1, 1, 1]


@pytest.mark.parametrize(
    ("spec", "total", "expected"),
    [
        ("step:0.5,2", 10, [1, 1, 0.5, 0.5, 0.25]),
        ("step:0.1,50%", 4, [1, 1, 0.1, 0.1, 0.01]),
        ("step:0.1,1%", 4, [1, 0.1, 0.01]),
        ("warmup:4", 10, [0.25, 0.5, 0.75, 1, 1, 1]),
        ("warmup:2+constant", 10, [0.5, 1, 1, 1]),
        ("warmup:50%+constant", 4, [0.5, 1, 1, 1]),
        ("warmup:2+cosine", 6, [0.5, 1, 1, 0.853553, 0.5, 0.146447, 0, 0]),
        ("warmup:2+step:0.5,2", 6, [0.5, 1, 1, 1, 0.5, 0.5]),
        ("warmup:2+step:0.5,50%", 6, [0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5]),
        ("warmup:100+cosine", 1, [0.01, 0.02]),
    ],
)
def test_schedules_by_name(spec, total, expected):
    schedule = build_schedule(spec, 2.0, total)
    assert [schedule(count) / 2 for count in range(len(expected))] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("cosine:3", "'cosine' takes no numbers"),
        ("step", "as in step:0.1,1000"),
        ("step:0.1", "as in step:0.1,1000"),
        ("step:0.1,5,6", "as in step:0.1,1000"),
        ("step:0,5", "above 0 and at most 1, such as 0.1, but 'step:0,5' has '0'"),
        ("step:x,5", "has 'x'"),
        ("step:0.1,0", "from 1 up, or a share"),
        ("step:0.1,101%", "from 1% to 100%"),
        ("step:0.1,2.5", "has '2.5'"),
        ("warmup", "has ''"),
        ("warmup:-1+cosine", "has '-1'"),
        ("warmup:5+", "Unknown schedule ''"),
        ("warmup:5+cosin", "Did you mean 'cosine'"),
        ("warmup:5+warmup:5", "warms up once"),
        ("cosine+warmup:5", "Only a warm-up is followed"),
        ("stepp:0.1,5", "Did you mean 'step'"),
    ],
)
def test_a_wrong_schedule_gets_a_sentence(spec, sentence):
    with pytest.raises(RequestError) as caught:
        build_schedule(spec, 0.1, 100)
    assert sentence in str(caught.value)


def test_clipping_keeps_the_direction_and_counts_all_tensors():
    sparse = RowGradient(np.array([5]), np.float32([[4.0]]), (9, 1))
    gradients = {"b": np.float32([[3.0, 0.0]]), "a": np.float32([12.0]), "c": sparse}
    assert global_norm(gradients) == 13
    clipped, norm = clip_by_global_norm(gradients, 6.5)
    assert norm == 13
    assert (clipped["a"].tolist(), clipped["b"].tolist()) == ([6], [[1.5, 0]])
    assert clipped["c"].rows.tolist() == [[2]]
    assert global_norm(clipped) == pytest.approx(6.5)
    assert all(clipped[key].dtype == np.float32 for key in clipped)
    assert gradients["a"].tolist() == [12]


def test_a_small_gradient_is_not_clipped():
    gradients = {"a": np.float32([3.0, 4.0])}
    clipped, norm = clip_by_global_norm(gradients, 5.0)
    assert clipped["a"] is gradients["a"]
    assert norm == 5


def test_a_norm_neither_overflows_nor_hides_what_is_not_finite():
    huge = {"a": np.full(100_000, 1e30, np.float32)}
    clipped, norm = clip_by_global_norm(huge, 1.0)
    assert norm == pytest.approx(1e30 * math.sqrt(100_000), rel=1e-6)
    assert global_norm(clipped) == pytest.approx(1, rel=1e-5)
    for value in (math.nan, math.inf):
        broken = {"a": np.float32([value, 1])}
        assert clip_by_global_norm(broken, 1.0)[0]["a"] is broken["a"]
    for wrong in (0, -1, math.nan):
        with pytest.raises(RequestError, match="a norm above 0"):
            clip_by_global_norm(huge, wrong)
