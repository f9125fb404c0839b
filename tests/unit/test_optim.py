"""Steps against published formulas and hand-made figures, and the same bytes for any cut of a tensor."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.errors import RequestError
from paramserver.optim import apply, build_optimizer, chain, scale_by_adam, scale_by_learning_rate
from paramserver.optim.schedules import constant, cosine

SPECS = [
    *("sgd", "momentum", "momentum:0.5", "nesterov", "adagrad", "rmsprop", "adam", "adam:0.8,0.99", "adamw"),
    *("sgd+decay:0.1", "nesterov:0.8+decay:0.01"),
]


def build(spec, learning_rate=0.1, schedule="constant", versions_total=10):
    return build_optimizer(spec, learning_rate, schedule, versions_total)


def run(optimizer, weights, gradients, **options):
    """The weights and state after one update per gradient."""
    state = optimizer.init(weights)
    for count, gradient in enumerate(gradients):
        out = np.full_like(weights, np.nan)
        apply(optimizer, weights, gradient, state, count, out, **options)
        weights = out
    return weights, state


def test_sgd_steps_against_the_gradient():
    weights, _ = run(build("sgd"), np.float32([1.0, -2.0]), [np.float32([10.0, 0.5])])
    np.testing.assert_array_equal(weights, np.float32([0.0, -2.05]))


def test_momentum_accumulates_then_scales():
    # By hand: velocities 1, 1.5, 1.75; each step is 0.1 of it.
    weights, state = run(build("momentum:0.5"), np.zeros(1, np.float32), [np.ones(1, np.float32)] * 3)
    np.testing.assert_allclose(weights, [-0.425], rtol=1e-6)
    np.testing.assert_allclose(state["0.momentum/velocity"], [1.75])


def test_first_adam_step_has_the_size_of_the_learning_rate():
    # Kingma and Ba, 2015, section 2.1: with bias correction the first step is lr * sign(gradient).
    weights, _ = run(build("adam"), np.zeros(3, np.float32), [np.float32([1e-3, -5.0, 700.0])])
    np.testing.assert_allclose(weights, [-0.1, 0.1, -0.1], rtol=2e-5)


def test_adam_follows_the_published_algorithm():
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(20, 7)).astype(np.float32)
    theta, m, v = np.zeros(7), np.zeros(7), np.zeros(7)
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        theta = theta - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    weights, state = run(build("adam", 0.01), np.zeros(7, np.float32), gradients)
    np.testing.assert_allclose(weights, theta, rtol=1e-4, atol=1e-6)
    assert sorted(state) == ["0.adam/m", "0.adam/v"]
    np.testing.assert_allclose(state["0.adam/m"], m, rtol=1e-4, atol=1e-7)


def test_adam_survives_a_gradient_of_zero():
    weights, _ = run(build("adam"), np.ones(2, np.float32), [np.zeros(2, np.float32)] * 3)
    np.testing.assert_array_equal(weights, np.ones(2, np.float32))


def test_count_drives_bias_correction_and_schedule():
    gradient, weights, out = np.ones(1, np.float32), np.zeros(1, np.float32), np.empty(1, np.float32)
    optimizer = build("sgd", 1.0, "cosine", versions_total=4)
    rates = []
    for count in range(6):
        apply(optimizer, weights, gradient, {}, count, out)
        rates.append(-float(out[0]))
    expected = [0.5 * (1 + math.cos(math.pi * count / 4)) for count in range(5)] + [0.0]
    np.testing.assert_allclose(rates, expected, atol=1e-7)


def test_schedules():
    assert constant(0.3)(10**9) == 0.3
    falling = cosine(0.2, 100)
    assert falling(0) == 0.2
    assert falling(50) == pytest.approx(0.1)
    assert falling(100) == falling(10**6) == 0.0
    assert all(falling(count) > falling(count + 1) for count in range(100))


def test_parts_of_a_chain_keep_their_states_apart():
    twice = chain(scale_by_adam(0.5, 0.5), chain(scale_by_adam(), scale_by_learning_rate(constant(0.1))))
    weights, state = run(twice, np.zeros(3, np.float32), [np.float32([1.0, 2.0, 3.0])] * 2)
    assert sorted(state) == ["0.adam/m", "0.adam/v", "1.0.adam/m", "1.0.adam/v"]
    assert not np.array_equal(state["0.adam/m"], state["1.0.adam/m"])
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("spec", SPECS)
def test_only_out_and_state_change_and_buffers_stay_apart(spec):
    weights = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    gradient = np.cos(weights)
    weights_before, gradient_before = weights.copy(), gradient.copy()
    weights.flags.writeable = gradient.flags.writeable = False
    optimizer = build(spec)
    state = optimizer.init(weights)
    out = np.full_like(weights, np.nan)
    apply(optimizer, weights, gradient, state, 0, out)
    np.testing.assert_array_equal(weights, weights_before)
    np.testing.assert_array_equal(gradient, gradient_before)
    assert not np.array_equal(out, weights)
    for array in state.values():
        assert array.shape == weights.shape
        assert array.dtype == np.float32
        assert not np.may_share_memory(array, out)
        assert not np.may_share_memory(array, gradient)


@given(
    spec=st.sampled_from(SPECS),
    rows=st.integers(0, 40),
    cut=st.integers(0, 40),
    block_elements=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_same_bytes_for_any_block_size_and_split(spec, rows, cut, block_elements, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(rows, 3)).astype(np.float32)
    gradients = rng.normal(size=(4, rows, 3)).astype(np.float32)
    optimizer = build(spec, 0.05, "cosine", 5)
    whole, whole_state = run(optimizer, weights, gradients)
    cut = min(cut, rows)
    parts = [
        run(optimizer, weights[part], gradients[:, part], block_elements=block_elements)
        for part in (slice(0, cut), slice(cut, rows))
    ]
    assert np.concatenate([part for part, _ in parts]).tobytes() == whole.tobytes()
    for name, array in whole_state.items():
        assert np.concatenate([state[name] for _, state in parts]).tobytes() == array.tobytes()


def test_a_scalar_parameter_has_a_block_too():
    weights, _ = run(build("momentum"), np.float32(2.0) * np.ones((), np.float32), [np.ones((), np.float32)])
    np.testing.assert_allclose(weights, 1.9, rtol=1e-6)


@pytest.mark.parametrize(
    "gradient",
    [
        np.zeros((3, 2), np.float32),
        np.zeros((1, 3), np.float32),
        np.zeros((2, 3)),
        np.zeros((3, 2), np.float32).T,
    ],
    ids=["transposed", "broadcastable", "float64", "not in C order"],
)
def test_apply_refuses_what_does_not_fit(gradient):
    weights = np.zeros((2, 3), np.float32)
    with pytest.raises(RequestError, match=r"expects gradient as \(2, 3\) float32 in C order"):
        apply(build("sgd"), weights, gradient, {}, 0, np.empty_like(weights))


def test_apply_refuses_an_out_that_readers_may_hold():
    weights = np.zeros(4, np.float32)
    with pytest.raises(RequestError, match="overlaps parameters"):
        apply(build("sgd"), weights, np.ones(4, np.float32), {}, 0, weights)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            "adm",
            "Unknown optimizer 'adm': expected one of sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw."
            " Did you mean 'adam'?",
        ),
        ("Adam", "Did you mean 'adam'?"),
        ("", "Unknown optimizer ''"),
        ("sgd:0.9", "takes at most 0 numbers"),
        ("momentum:0.9,0.1", "at most 1 numbers"),
        ("momentum:1", "has '1'"),
        ("momentum:-0.1", "has '-0.1'"),
        ("momentum:", "has ''"),
        ("adam:0.9,nan", "has 'nan'"),
        ("adam:0.9,x", "has 'x'"),
        ("adagrad:0.9", "takes at most 0 numbers"),
        ("nesterov:1", "has '1'"),
        ("sgd+", "as in sgd+decay:0.0001, but 'sgd+' has ''"),
        ("sgd+decay", "has 'decay'"),
        ("sgd+decay:-1", "has 'decay:-1'"),
        ("sgd+decay:inf", "has 'decay:inf'"),
        ("sgd+dcay:0.1", "has 'dcay:0.1'"),
        ("+decay:0.1", "Unknown optimizer ''"),
    ],
)
def test_a_wrong_spec_gets_a_sentence(spec, sentence):
    with pytest.raises(RequestError) as caught:
        build(spec)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("learning_rate", [0.0, -1.0, math.inf, math.nan])
def test_a_learning_rate_must_be_above_zero(learning_rate):
    with pytest.raises(RequestError, match="above 0"):
        build("sgd", learning_rate)


def test_a_wrong_schedule_gets_a_sentence():
    with pytest.raises(
        RequestError, match=r"expected one of constant, cosine, step, warmup\. Did you mean 'cosine'\?"
    ):
        build("sgd", schedule="cosin")
    with pytest.raises(RequestError, match="at least 1 update"):
        build("sgd", schedule="cosine", versions_total=0)
