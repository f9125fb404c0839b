"""Models against a plain NumPy twin, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramserver.autodiff import gradient_check
from paramserver.data import Dataset
from paramserver.errors import RequestError
from paramserver.models import Model, build_model, probabilities, score
from paramserver.types import tensors_sha256


def twin(values: Mapping[str, np.ndarray], inputs: np.ndarray, labels: np.ndarray):
    """The same network by hand, in the dtype of its arguments: loss, gradients and logits."""
    layers = len(values) // 2
    activations, grads = [inputs], {}
    for layer in range(1, layers + 1):
        z = activations[-1] @ values[f"dense{layer}/weight"] + values[f"dense{layer}/bias"]
        activations.append(np.maximum(z, 0) if layer < layers else z)
    logits, rows = activations[-1], np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    g = exponentials / exponentials.sum(axis=1, keepdims=True)
    loss = -np.log(g[rows, labels]).mean()
    g[rows, labels] -= 1
    g /= len(labels)
    for layer in range(layers, 0, -1):
        grads[f"dense{layer}/weight"] = activations[layer - 1].T @ g
        grads[f"dense{layer}/bias"] = g.sum(axis=0)
        g = (g @ values[f"dense{layer}/weight"].T) * (activations[layer - 1] > 0)
    return loss, grads, logits


def samples(model: Model, batch: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((batch, model.features), dtype=np.float32)
    return inputs, rng.integers(0, model.classes, batch)


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), max_size=4),
    features=st.integers(1, 8),
    classes=st.integers(2, 6),
    batch=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_model_equals_its_twin(widths: list[int], features: int, classes: int, batch: int, seed: int):
    spec = "mlp:" + ",".join(map(str, widths)) if widths else "softmax"
    model = build_model(spec, features, classes)
    values = model.initial(seed)
    inputs, labels = samples(model, batch, seed)
    loss, gradients = model.gradient(values, inputs, labels)
    expected_loss, expected, logits = twin(values, inputs, labels)
    assert isinstance(loss, float)
    assert loss == pytest.approx(float(expected_loss), rel=1e-5, abs=1e-6)
    assert list(gradients) == sorted(expected) == list(model.shapes)
    for key, gradient in gradients.items():
        assert gradient.dtype == np.float32
        assert gradient.flags.c_contiguous
        assert gradient.shape == model.shapes[key]
        np.testing.assert_allclose(gradient, expected[key], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.logits(values, inputs), logits, rtol=1e-5, atol=1e-6)


def test_gradients_equal_numeric_differences():
    model = build_model("mlp:6,5", 4, 3)
    inputs, labels = samples(model, 7)
    feeds = {**model.initial(0), "inputs": inputs, "labels": labels}
    differences = gradient_check(model.graph, "loss", feeds)
    assert set(differences) == set(model.shapes)
    assert max(differences.values()) < 1e-7


def test_shapes_and_layers():
    model = build_model(" MLP: 256, 128 ", 784, 10)
    assert model.spec == "mlp:256,128"
    assert dict(model.shapes) == {
        "dense1/bias": (256,),
        "dense1/weight": (784, 256),
        "dense2/bias": (128,),
        "dense2/weight": (256, 128),
        "dense3/bias": (10,),
        "dense3/weight": (128, 10),
    }
    assert dict(build_model("softmax", 64, 10).shapes) == {"dense1/bias": (10,), "dense1/weight": (64, 10)}
    assert model.graph["logits"].shape == ("batch", 10)


def test_initial_values_follow_seed_and_scale():
    model = build_model("mlp:300,200", 400, 10)
    values = model.initial(3)
    assert list(values) == list(model.shapes)
    assert all(values[key].dtype == np.float32 for key in values)
    assert all(values[key].shape == model.shapes[key] for key in values)
    assert tensors_sha256(values) == tensors_sha256(model.initial(3)) != tensors_sha256(model.initial(4))
    for key, scale in {
        "dense1/weight": np.sqrt(2 / 400),
        "dense2/weight": np.sqrt(2 / 300),
        "dense3/weight": np.sqrt(2 / 210),
    }.items():
        assert values[key].std() == pytest.approx(scale, rel=0.05)
        assert abs(values[key].mean()) < 0.05 * scale
    assert not any(values[f"dense{layer}/bias"].any() for layer in (1, 2, 3))
    square = build_model("mlp:50,50", 50, 50).initial(0)
    assert not np.array_equal(square["dense1/weight"], square["dense2/weight"]), "keys share a stream"
    with pytest.raises(RequestError, match="found -1"):
        model.initial(-1)


def test_many_threads_compute_the_same_bytes():
    model = build_model("mlp:32,16", 20, 5)
    values = model.initial(0)
    batches = [samples(model, 16, seed) for seed in range(8)]

    def work(index: int) -> tuple[float, str]:
        loss, gradients = model.gradient(values, *batches[index % 8])
        return loss, tensors_sha256(gradients)

    alone = [work(index) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, range(200), timeout=60))
    assert together == [alone[index % 8] for index in range(200)]
    assert len({digest for _, digest in alone}) == 8


def test_values_are_only_read():
    model = build_model("mlp:8", 4, 3)
    values = model.initial(0)
    for array in values.values():
        array.flags.writeable = False
    inputs, labels = samples(model, 5)
    inputs.flags.writeable = labels.flags.writeable = False
    _, gradients = model.gradient(values, inputs, labels)
    for key, gradient in gradients.items():
        assert gradient.flags.writeable
        assert not any(np.shares_memory(gradient, array) for array in (*values.values(), inputs)), key


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("sofmax", "Did you mean 'softmax'"),
        ("mpl:128", "Did you mean 'mlp'"),
        ("", "is unknown"),
        ("mlp", "does not say its sizes"),
        ("mlp:", "does not say its sizes"),
        ("mlp:0", "does not say"),
        ("mlp:12,,3", "does not say"),
        ("mlp:-3", "does not say"),
        ("mlp:1.5", "does not say"),
        ("mlp:١٢", "does not say"),
        ("softmax:10", "softmax takes none. Leave them out, or choose mlp"),
        ("mlp:4:tanhh", "has the option 'tanhh'.* Did you mean 'tanh'"),
        ("mlp:4:dropout=1", "has the option 'dropout=1'"),
        ("mlp:4:dropout=-0.5", "has the option"),
        ("mlp:4:tanh:relu", "states its activation twice"),
        ("mlp:4:28x28", "has the option '28x28'"),
        ("softmax:tanh", "the options of softmax are: none"),
        ("embedding:100", "expected 2 or more whole numbers"),
        ("linear", "'linear' predicts a number, but the data has 3 classes"),
        ("logistic", "one of two classes, but the data has 3 classes. Choose softmax"),
        ("cnn:2,2", "before conv2 they are 1 x 1"),
        ("cnn:2:3x1", "takes images of 3 values, but the data has 4 features"),
        ("mlp:" + ",".join(["2"] * 65), "states 65 numbers, but mlp takes at most 64"),
        ("mlp:999999999,999999999", "at most 2147483648 are allowed"),
    ],
)
def test_a_wrong_spec_is_refused(spec: str, sentence: str):
    with pytest.raises(RequestError, match=sentence):
        build_model(spec, 4, 3)


@pytest.mark.parametrize(("features", "classes"), [(0, 3), (4, 1), (-1, 2)])
def test_a_model_needs_features_and_classes(features: int, classes: int):
    with pytest.raises(RequestError, match=f"found {features} and {classes}"):
        build_model("softmax", features, classes)


def test_data_that_does_not_fit_names_both():
    model = build_model("mlp:8", 4, 3)
    values = model.initial(0)
    inputs, labels = samples(model, 5)
    with pytest.raises(RequestError, match=r"data has 6 features, but the model 'mlp:8' takes \(batch, 4\)"):
        model.gradient(values, np.zeros((5, 6), np.float32), labels)
    with pytest.raises(RequestError, match="label 3, but the model 'mlp:8' was built for 3 classes"):
        model.gradient(values, inputs, np.array([0, 1, 2, 3, 0]))
    with pytest.raises(RequestError, match="label -1, but"):
        score(model, values, inputs, np.array([0, 1, 2, -1, 0]))
    with pytest.raises(RequestError, match=r"labels are \(4,\) int64, but for 5 samples"):
        model.gradient(values, inputs, labels[:4])
    with pytest.raises(RequestError, match=r"labels are \(5,\) float64"):
        score(model, values, inputs, labels.astype(np.float64))
    with pytest.raises(RequestError, match=r"inputs are \(5, 4\) float64"):
        model.logits(values, inputs.astype(np.float64))
    with pytest.raises(RequestError, match="inputs are a list"):
        model.logits(values, inputs.tolist())
    with pytest.raises(RequestError, match="labels are a list"):
        model.gradient(values, inputs, labels.tolist())
    with pytest.raises(RequestError, match="no samples"):
        score(model, values, inputs[:0], labels[:0])
    with pytest.raises(RequestError, match="'dense1/bias' in layer 'dense1'"):
        model.gradient(values | {"dense1/bias": np.zeros((1, 8), np.float32)}, inputs, labels)
    data = Dataset(np.ones((4, 6), np.float32), np.arange(4), "shapes")
    with pytest.raises(RequestError, match=r"'shapes' has 6 features and 4 classes, but the model 'mlp:8'"):
        model.check_data(data)
    with pytest.raises(RequestError, match="'shapes'"):
        build_model("softmax", 6, 3).check_data(data)
    build_model("softmax", 6, 4).check_data(data)


def test_score_counts_every_sample_once():
    model = build_model("softmax", 4, 3)
    values = model.initial(1)
    inputs, labels = samples(model, 1007)
    loss, _, logits = twin({k: v.astype(np.float64) for k, v in values.items()}, inputs, labels)
    for batch in (1, 100, 1000, 5000):
        result = score(model, values, inputs, labels, batch)
        assert result.samples == 1007
        assert result.accuracy == np.mean(logits.argmax(axis=1) == labels)
        assert result.loss == pytest.approx(float(loss), rel=1e-6)
    with pytest.raises(RequestError, match="at least 1 sample"):
        score(model, values, inputs, labels, batch=0)


def test_huge_logits_overflow_into_nothing():
    model = build_model("softmax", 2, 2)
    values = model.initial(0) | {"dense1/weight": np.array([[1e37, -1e37], [0, 0]], np.float32)}
    inputs, labels = np.array([[1, 0], [1, 0]], np.float32), np.array([0, 1])
    loss, gradients = model.gradient(values, inputs, labels)
    assert loss == pytest.approx(1e37)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    result = score(model, values, inputs, labels)
    assert (result.loss, result.accuracy) == (pytest.approx(1e37), 0.5)
    assert np.array_equal(probabilities(model.logits(values, inputs)), [[1, 0], [1, 0]])


def test_diverged_weights_give_no_warning():
    model = build_model("mlp:3", 2, 2)
    values = {key: np.full(shape, 3e38, np.float32) for key, shape in model.shapes.items()}
    inputs, labels = np.full((2, 2), 9, np.float32), np.array([0, 1])
    assert not np.isfinite(model.gradient(values, inputs, labels)[0])
    assert not np.isfinite(score(model, values, inputs, labels).loss)
    assert not np.isfinite(probabilities(model.logits(values, inputs))).any()


def test_plain_descent_learns():
    model = build_model("mlp:16", 2, 2)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 2), dtype=np.float32)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).astype(np.int64)  # not linearly separable
    values = model.initial(0)
    for _ in range(400):
        _, gradients = model.gradient(values, inputs, labels)
        values = {key: values[key] - np.float32(0.5) * gradients[key] for key in values}
    assert score(model, values, inputs, labels).accuracy > 0.95
