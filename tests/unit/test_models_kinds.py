"""Every kind of model against a plain NumPy twin, and what is special to each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from paramserver.autodiff import gradient_check
from paramserver.data import Dataset, generator
from paramserver.errors import RequestError
from paramserver.models import MODELS, Model, area_under_curve, build_model, probabilities, score
from paramserver.models.kinds import KINDS
from paramserver.rows import RowGradient, RowValues, dense

Values = Mapping[str, np.ndarray]

ACTIVATIONS = {
    "relu": lambda a: np.maximum(a, 0),
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
}

# For each kind at least one text, with its features and classes.
CASES = [
    ("linear", 5, 0),
    ("logistic", 5, 2),
    ("logistic:50", 4, 2),
    ("softmax", 5, 3),
    ("mlp:6,5", 4, 3),
    ("mlp:6:sigmoid", 4, 0),
    ("mlp:6,5:tanh:norm", 4, 3),
    ("cnn:3,4", 36, 3),
    ("cnn:2:tanh", 48, 0),
    ("cnn:3:4x6x2", 48, 3),
    ("embedding:20,3", 4, 2),
    ("embedding:20,3,6:norm", 4, 0),
]


def samples(model: Model, batch: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((batch, model.features), dtype=np.float32)
    if model.tables:
        rows = model.shapes[min(model.tables)][0]
        inputs = rng.integers(0, rows, (batch, model.features))
    if model.classes:
        return inputs, rng.integers(0, model.classes, batch)
    return inputs, rng.standard_normal(batch, dtype=np.float32)


def noisy(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Initial values moved a little, so that no bias is zero."""
    rng = np.random.default_rng(seed + 100)
    return {
        key: (value + 0.1 * rng.standard_normal(value.shape)).astype(np.float32)
        for key, value in model.initial(seed).items()
    }


def convolved(images: np.ndarray, filters: np.ndarray) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    value = np.empty((*images.shape[:3], len(filters)))
    for y in range(images.shape[1]):
        for x in range(images.shape[2]):
            value[:, y, x] = np.einsum("nijc,fijc->nf", padded[:, y : y + 3, x : x + 3], filters)
    return value


def twin(model: Model, values: Values, inputs: np.ndarray) -> np.ndarray:
    """The logits, written down once more in plain NumPy."""
    kind, _, rest = model.spec.partition(":")
    act = next((f for name, f in ACTIVATIONS.items() if name in rest.split(":")), ACTIVATIONS["relu"])
    if model.spec.startswith("logistic:"):
        return values["linear/weight"][inputs][:, :, 0].sum(axis=1) + values["linear/bias"][0]
    hidden = inputs
    if kind == "embedding":
        hidden = values["embedding/weight"][inputs].reshape(len(inputs), -1)
    if kind == "cnn":
        shape = {"cnn:3,4": (6, 6, 1), "cnn:2:tanh": (4, 4, 3), "cnn:3:4x6x2": (4, 6, 2)}[model.spec]
        images = inputs.reshape(len(inputs), *shape)
        layer = 1
        while f"conv{layer}/weight" in values:
            images = act(convolved(images, values[f"conv{layer}/weight"]) + values[f"conv{layer}/bias"])
            n, height, width, channels = images.shape
            images = images[:, : height // 2 * 2, : width // 2 * 2]
            images = images.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
            layer += 1
        hidden = images.reshape(len(images), -1)
    layer = 1
    while f"dense{layer}/weight" in values:
        hidden = hidden @ values[f"dense{layer}/weight"] + values[f"dense{layer}/bias"]
        if f"dense{layer}/gain" in values:
            hidden = hidden - hidden.mean(axis=1, keepdims=True)
            hidden = hidden / np.sqrt((hidden**2).mean(axis=1, keepdims=True) + 1e-5)
            hidden = hidden * values[f"dense{layer}/gain"] + values[f"dense{layer}/offset"]
        if f"dense{layer + 1}/weight" in values:
            hidden = act(hidden)
        layer += 1
    return hidden if model.task == "classification" else hidden[:, 0]


def twin_loss(model: Model, logits: np.ndarray, labels: np.ndarray) -> float:
    if model.task == "regression":
        return float(((logits - labels) ** 2).mean())
    if model.task == "binary":
        p = 1 / (1 + np.exp(-logits))
        return float(-np.log(np.where(labels == 1, p, 1 - p)).mean())
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(-np.log(p[np.arange(len(labels)), labels]).mean())


def test_every_kind_has_a_case_and_a_line():
    assert {text.partition(":")[0] for text, _, _ in CASES} == set(KINDS) == set(MODELS)
    assert all(line and "\n" not in line for line in MODELS.values())


@pytest.mark.parametrize(("text", "features", "classes"), CASES)
def test_logits_and_loss_equal_the_twin(text: str, features: int, classes: int):
    model = build_model(text, features, classes)
    for seed in range(3):
        values = noisy(model, seed)
        inputs, labels = samples(model, 7, seed)
        doubles = {key: value.astype(np.float64) for key, value in values.items()}
        expected = twin(model, doubles, inputs if model.tables else inputs.astype(np.float64))
        logits = model.logits(values, inputs)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        loss, gradients = model.gradient(values, inputs, labels)
        assert loss == pytest.approx(twin_loss(model, expected, labels), rel=1e-4)
        assert list(gradients) == list(model.shapes)
        result = score(model, values, inputs, labels, batch=3)
        assert result.loss == pytest.approx(loss, rel=1e-5)
        assert (result.auc is not None) == (model.task == "binary")


@pytest.mark.parametrize(("text", "features", "classes"), CASES)
def test_gradients_equal_numeric_differences(text: str, features: int, classes: int):
    model = build_model(text, features, classes)
    inputs, labels = samples(model, 5)
    feeds = {**noisy(model), "inputs": inputs, "labels": labels}
    differences = gradient_check(model.graph, "loss", feeds)
    assert set(differences) == set(model.shapes)
    assert max(differences.values()) < 1e-6, differences


@pytest.mark.parametrize(("text", "features", "classes"), [case for case in CASES if ":" in case[0]])
def test_plain_descent_lowers_the_loss(text: str, features: int, classes: int):
    model = build_model(text, features, classes)
    values: dict[str, np.ndarray] = model.initial(0)
    inputs, labels = samples(model, 40)
    before = model.gradient(values, inputs, labels)[0]
    for _ in range(60):
        _, gradients = model.gradient(values, inputs, labels)
        values = {key: values[key] - np.float32(0.05) * dense(gradients[key]) for key in values}
    assert model.gradient(values, inputs, labels)[0] < 0.98 * before


@pytest.mark.parametrize(
    ("text", "classes", "task", "dtype"),
    [
        ("linear", 0, "regression", "float32"),
        ("mlp:3", 0, "regression", "float32"),
        ("logistic", 2, "binary", "int64"),
        ("mlp:3", 2, "classification", "int64"),
    ],
)
def test_the_task_follows_from_model_and_classes(text: str, classes: int, task: str, dtype: str):
    model = build_model(text, 4, classes)
    assert model.task == task
    assert model.graph["labels"].dtype == dtype
    inputs, labels = samples(model, 4)
    wrong = labels.astype(np.float32) if classes else labels.astype(np.int64)
    with pytest.raises(RequestError, match=rf"takes \(4,\) {dtype}"):
        model.gradient(model.initial(0), inputs, wrong)


def test_a_model_that_cannot_predict_such_labels_is_refused():
    with pytest.raises(RequestError, match="predicts classes, but the data has numbers as labels"):
        build_model("softmax", 4, 0)
    with pytest.raises(RequestError, match=r"numbers as labels\. Choose linear"):
        build_model("logistic:9", 4, 0)
    with pytest.raises(RequestError, match="7 features are no square of pixels"):
        build_model("cnn", 7, 3)


def test_filters_are_rows_and_have_their_own_first_values():
    model = build_model("cnn", 784, 10)
    assert model.shapes["conv1/weight"] == (16, 3, 3, 1)
    assert model.shapes["conv2/weight"] == (32, 3, 3, 16)
    assert model.shapes["dense1/weight"] == (7 * 7 * 32, 10)
    values = build_model("cnn:64,64", 784, 10).initial(0)
    assert values["conv2/weight"].std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.05)
    norm = build_model("mlp:8:norm", 4, 3).initial(0)
    assert (norm["dense1/gain"] == 1).all()
    assert not norm["dense1/offset"].any()


@pytest.mark.parametrize("text", ["logistic:1000", "embedding:1000,4,8"])
def test_only_the_rows_of_a_batch_are_read_and_have_a_gradient(text: str):
    model = build_model(text, 5, 2)
    values = noisy(model)
    inputs, labels = samples(model, 16)
    rows = model.rows(inputs)
    assert list(rows) == list(model.tables)
    (key,) = model.tables
    assert np.array_equal(rows[key], np.unique(inputs))
    loss, gradients = model.gradient(values, inputs, labels)
    assert isinstance(gradients[key], RowGradient)
    assert np.array_equal(gradients[key].indices, rows[key])
    assert gradients[key].nbytes < 0.3 * values[key].nbytes
    fetched = RowValues(rows[key], values[key][rows[key]], values[key].shape)
    again, sparse = model.gradient({**values, key: fetched}, inputs, labels)
    assert again == loss
    assert all(np.array_equal(dense(sparse[name]), dense(gradients[name])) for name in values)
    assert np.array_equal(model.logits({**values, key: fetched}, inputs), model.logits(values, inputs))
    other = np.full((1, 5), next(row for row in range(1000) if row not in rows[key]))
    with pytest.raises(RequestError, match=f"Row {other[0, 0]} of a table is read"):
        model.logits({**values, key: fetched}, other)


def test_a_model_without_tables_reads_everything():
    model = build_model("mlp:4", 3, 2)
    assert model.rows(samples(model, 2)[0]) == {}


def test_a_row_that_the_model_does_not_have_is_refused_in_the_words_of_the_data():
    model = build_model("logistic:10", 2, 2)
    for index in (-1, 10):
        inputs = np.array([[0, index]])
        sentence = f"the row index {index}, but the model 'logistic:10' has the rows 0 to 9"
        with pytest.raises(RequestError, match=sentence):
            model.gradient(model.initial(0), inputs, np.array([1]))
        with pytest.raises(RequestError, match=sentence):
            model.rows(inputs)
    with pytest.raises(RequestError, match="takes categories as row indices, an array of int64"):
        model.logits(model.initial(0), np.zeros((1, 2), np.float32))
    data = Dataset(np.ones((4, 2), np.float32), np.array([0, 1, 0, 1]), "points")
    with pytest.raises(RequestError, match="array of int64"):
        model.check_data(data)


def test_dropout_is_a_function_of_the_generator_and_absent_in_prediction():
    model, plain = build_model("mlp:50:dropout=0.5", 4, 3), build_model("mlp:50", 4, 3)
    assert model.uses_chance
    assert not plain.uses_chance
    assert model.shapes == plain.shapes
    values = model.initial(0)
    inputs, labels = samples(model, 6)
    assert np.array_equal(model.logits(values, inputs), plain.logits(values, inputs))

    def loss(rank: int, step: int) -> float:
        return model.gradient(values, inputs, labels, generator(7, "dropout", rank, step))[0]

    assert loss(1, 2) == loss(1, 2)
    assert len({loss(rank, step) for rank in (0, 1) for step in (0, 1)}) == 4
    _, gradients = model.gradient(values, inputs, labels, generator(7, "dropout", 0, 0))
    assert (gradients["dense2/weight"] == 0).any()
    with pytest.raises(RequestError, match="by chance, but no generator was given"):
        model.gradient(values, inputs, labels)
    with pytest.raises(RequestError, match="takes an array of float32"):
        model.gradient(values, inputs.tolist(), labels, generator(7, "dropout", 0, 0))
    assert build_model("mlp:50:dropout=0", 4, 3).graph == plain.graph
    assert build_model("cnn:2:dropout=.25", 16, 3).graph["flatten/dropout"].attributes["rate"] == 0.25


def test_accuracy_of_a_regression_is_the_share_of_variance_explained():
    model = build_model("linear", 1, 0)
    values = {"dense1/weight": np.float32([[2]]), "dense1/bias": np.float32([1])}
    inputs = np.float32([[0], [1], [2]])
    perfect = score(model, values, inputs, np.float32([1, 3, 5]))
    assert (perfect.loss, perfect.accuracy, perfect.auc) == (0, 1, None)
    worse = score(model, values, inputs, np.float32([1, 3, 8]))
    assert (worse.loss, worse.accuracy) == (pytest.approx(3), pytest.approx(1 - 9 / 26))
    assert score(model, values, inputs, np.float32([3, 3, 3])).accuracy == 0
    assert score(model, values, inputs[:1], np.float32([1])).accuracy == 1


def test_area_under_the_curve_counts_pairs():
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(-5, 5, 200).astype(np.float32), rng.integers(0, 2, 200)
    pairs = [
        1.0 if one > zero else 0.5 if one == zero else 0.0
        for one in logits[labels == 1]
        for zero in logits[labels == 0]
    ]
    assert area_under_curve(logits, labels) == pytest.approx(np.mean(pairs))
    assert area_under_curve(logits, np.zeros(200, np.int64)) is None
    assert area_under_curve(np.float32([1, 2]), np.array([0, 1])) == 1


def test_one_logit_gives_the_probabilities_of_both_classes():
    found = probabilities(np.float32([0, 1e9, -1e9]))
    assert found.tolist() == [[0.5, 0.5], [0, 1], [1, 0]]
