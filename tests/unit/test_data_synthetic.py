"""Made data: its shapes, its truth, its seed, and a sentence for a text that describes none."""

import inspect

import numpy as np
import pytest

from paramserver.data import synthetic_data
from paramserver.data.synthetic import clicks, linear, spirals, teacher
from paramserver.data.synthetic_spec import KINDS, LIMITS, LINES
from paramserver.datasets import load
from paramserver.errors import Fault, RequestError


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_everything(kind):
    texts = [f"synthetic:{kind},n=200,seed={seed}" for seed in (3, 3, 4)]
    first, same, other = map(synthetic_data, texts)
    assert first.inputs.tobytes() == same.inputs.tobytes()
    assert first.labels.tobytes() == same.labels.tobytes()
    assert first.inputs.tobytes() != other.inputs.tobytes()
    assert first.name == texts[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_has_a_limit_that_its_default_keeps(kind):
    for name, parameter in inspect.signature(KINDS[kind]).parameters.items():
        least, most = LIMITS[name]
        assert least <= parameter.default <= most
    assert LINES.keys() == KINDS.keys()


def test_spirals_wind_inside_the_disk():
    data = spirals(n=900, classes=3, noise=0.0)
    assert np.bincount(data.labels).tolist() == [300, 300, 300]
    x, y = data.inputs.astype(np.float64).T
    radius = np.hypot(x, y)
    assert radius.max() <= 1.0
    wound = np.arctan2(y, x) - 1.5 * np.pi * radius - 2 * np.pi * data.labels / 3
    np.testing.assert_allclose(np.cos(wound), 1.0, atol=1e-5)


def test_linear_is_linear_up_to_its_noise():
    data = linear(n=2000, features=5, noise=0.1)
    assert (data.task, data.labels.dtype) == ("regression", np.float32)
    matrix = np.column_stack([data.inputs, np.ones(len(data))])
    truth, residual, _, _ = np.linalg.lstsq(matrix, data.labels, rcond=None)
    assert residual[0] / len(data) == pytest.approx(0.01, rel=0.1)
    assert np.linalg.norm(truth[:5]) == pytest.approx(1.0, abs=0.02)


def test_a_teacher_calls_each_class_about_as_often():
    data = teacher(n=4000, classes=4)
    assert np.bincount(data.labels) / len(data) == pytest.approx([0.25] * 4, abs=0.08)
    noisy = teacher(n=4000, classes=4, noise=0.4)
    assert np.mean(noisy.labels != data.labels) == pytest.approx(0.4 * 3 / 4, abs=0.03)
    assert noisy.inputs.tobytes() == data.inputs.tobytes()


def test_clicks_follow_zipf_in_each_field():
    data = clicks(n=50_000, fields=3, values=1000, zipf=1.0)
    assert (data.task, data.rows, data.inputs.dtype) == ("binary", 3000, np.int64)
    harmonic = (1 / np.arange(1, 1001)).sum()
    for field in range(3):
        column = data.inputs[:, field]
        assert column.min() >= field * 1000
        assert column.max() < (field + 1) * 1000
        counts = np.sort(np.bincount(column))[::-1]
        assert counts[:3] / len(data) == pytest.approx(1 / np.array([1, 2, 3]) / harmonic, rel=0.05)
    assert 0.15 < data.labels.mean() < 0.45


def test_without_skew_all_values_are_equally_frequent():
    counts = np.bincount(clicks(n=50_000, fields=1, values=10, zipf=0.0).inputs[:, 0])
    assert counts / 50_000 == pytest.approx([0.1] * 10, rel=0.05)


def test_a_synthetic_set_is_loaded_and_cut():
    splits = load("synthetic:spirals,n=1000,classes=2")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [720, 80, 200]
    assert splits.train.classes == 2
    assert load("synthetic:linear").test.task == "regression"
    assert load("synthetic:clicks,n=100").train.rows == 8 * 32_768


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("synthetic:", "Unknown synthetic data ''"),
        ("synthetic:spiral", "Did you mean 'spirals'?"),
        ("synthetic:spirals,3000", "'3000' is no option of synthetic:spirals"),
        ("synthetic:spirals,", "'' is no option"),
        ("synthetic:spirals,nois=1", "names n, classes, noise, seed. Did you mean 'noise'?"),
        ("synthetic:spirals,n=20,n=30", "gives 'n' twice"),
        ("synthetic:spirals,n=3", "'n' of synthetic:spirals is a whole number from 10 to 10000000"),
        ("synthetic:spirals,n=1e4", "but it is '1e4'"),
        ("synthetic:spirals,n=many", "but it is 'many'"),
        ("synthetic:spirals,classes=1", "from 2 to 1000"),
        ("synthetic:teacher,noise=2", "a number from 0 to 1, but it is '2'"),
        ("synthetic:linear,noise=nan", "but it is 'nan'"),
        ("synthetic:clicks,seed=-1", "from 0 to 9223372036854775807"),
        ("synthetic:linear,n=10000000,features=100", "asks for more than 268435456 numbers"),
        ("synthetic:clicks,fields=1000,values=1000000", "asks for more than 268435456 numbers"),
    ],
)
def test_a_text_that_describes_no_data_gets_a_sentence(text, sentence):
    with pytest.raises(RequestError) as caught:
        load(text)
    assert sentence in str(caught.value)


def test_an_unknown_kind_is_unknown():
    with pytest.raises(RequestError) as caught:
        load("synthetic:moons")
    assert caught.value.fault is Fault.UNKNOWN
