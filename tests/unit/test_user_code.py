"""A user's own file: what it may define, what it is asked for, and whose line an error shows."""

import sys

import numpy as np
import pytest

from paramserver.data import Dataset
from paramserver.errors import RequestError
from paramserver.job import Job
from paramserver.models import Network, build_model
from paramserver.user_code import MODULE, load_code
from paramserver.workload import load_data, load_model, load_workload

OWN = """
import numpy as np

JOB = {"epochs": 2}


class Line:
    def initial(self, seed):
        return {"w": np.zeros((2, 3))}

    def logits(self, values, inputs):
        return inputs @ values["w"]

    def gradient(self, values, inputs, labels):
        return 0.5, {"w": np.ones((2, 3))}


def model():
    return Line()


def data():
    return np.arange(60.0).reshape(30, 2), np.arange(30) % 3
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    yield write
    sys.modules.pop(MODULE, None)


def refusal(call, *arguments):
    with pytest.raises(RequestError) as raised:
        call(*arguments)
    sentence = str(raised.value)
    assert "\n" not in sentence
    return sentence


def points(classes=3):
    return Dataset(np.eye(6, 2, dtype=np.float32), np.arange(6) % classes, "points", classes)


def test_what_a_file_defines_is_taken_and_its_folder_comes_last(write):
    code = load_code(write(OWN))
    assert (code.defines("model"), code.defines("data"), code.defines("JOB")) == (True, True, False)
    assert code.options == {"epochs": 2}
    assert code.spec == "code:mine.py"
    assert sys.path[-1] == str(code.path.parent)
    assert load_code(code.path, code.sha256).sha256 == code.sha256


def test_a_file_that_has_changed_is_refused_before_it_runs(write, tmp_path):
    code = load_code(write(OWN))
    path = write(f"open({str(tmp_path / 'ran')!r}, 'w')\n{OWN}")
    assert "is not the file that this job was made with" in refusal(load_code, path, code.sha256)
    assert not (tmp_path / "ran").exists()


def test_a_file_may_have_the_name_of_any_module_and_define_dataclasses(write):
    text = "from dataclasses import dataclass\n@dataclass\nclass A:\n  b: int\ndef model(): return 'softmax'"
    assert load_code(write(text, "numpy.py")).call("model") == "softmax"
    assert np.float32(1) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n", "defines neither a function 'model' nor a function 'data'"),
        ("model = 3\n", "'model' should be a function, but it is a int."),
        ("def model(): pass\nJOB = ['epochs']\n", "'JOB' should be a dictionary of options"),
        ("import nothing_of_that_name\n", "mine.py, line 1: ModuleNotFoundError: No module named"),
        ("def model(:\n", "mine.py, line 1: SyntaxError: invalid syntax. The line: def model(:"),
        (
            "import sys\nsys.exit('enough')\n",
            "mine.py, line 2: SystemExit: enough. The line: sys.exit('enough')",
        ),
        (
            "def f():\n    1 / 0\n\nf()\n",
            "mine.py, line 2, in f: ZeroDivisionError: division by zero. The line: 1 / 0",
        ),
    ],
)
def test_a_file_that_is_not_in_order_is_one_sentence_with_the_users_line(write, text, sentence):
    assert sentence in refusal(load_code, write(text))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    assert "cannot be read: No such file" in refusal(load_code, tmp_path / "none.py")


def test_an_error_deep_inside_numpy_or_this_library_shows_the_users_last_line(write):
    text = (
        "import numpy as np\n"
        "from paramserver.models import Network\n"
        "def data():\n"
        "    return np.zeros(3) @ np.zeros(4)\n"
        "def model(features, classes):\n"
        "    net = Network(features, classes)\n"
        "    return net.model(net.dense(net.inputs, 7))\n"
    )
    code = load_code(write(text))
    assert "mine.py, line 4, in data: ValueError: matmul" in refusal(code.call, "data")
    sentence = refusal(code.call, "model", 2, 3)
    assert sentence == (
        "mine.py, line 7, in model: The last layer should be (batch, 3), but 'dense1/add' is (batch, 7) "
        "float32. The line: return net.model(net.dense(net.inputs, 7))"
    )


def test_the_line_is_that_of_the_file_that_ran_even_if_it_has_changed_since(write):
    code = load_code(write("def data():\n    raise KeyError('old')\n"))
    write("# new\n")
    assert "The line: raise KeyError('old')" in refusal(code.call, "data")


@pytest.mark.parametrize(
    ("given", "name", "classes", "task"),
    [
        ("'digits'", "digits", 10, "classification"),
        ("(np.zeros((20, 2, 2)), np.arange(20) % 2)", "mine.py", 2, "classification"),
        ("([[1.5, 2]] * 20, [0.5] * 20)", "mine.py", 0, "regression"),
        (
            "((np.ones((20, 3)), np.arange(20) % 4), (np.ones((5, 3)), [0] * 5))",
            "mine.py",
            4,
            "classification",
        ),
        (
            "Dataset(np.ones((20, 2), np.float32), np.arange(20) % 2, 'set', task='binary')",
            "set",
            2,
            "binary",
        ),
        ("load('digits')", "digits", 10, "classification"),
    ],
)
def test_data_may_be_a_name_arrays_or_a_data_set(write, given, name, classes, task):
    text = "import numpy as np\nfrom paramserver.data import Dataset\nfrom paramserver.datasets import load\n"
    splits = load_data("code", "", load_code(write(f"{text}def data():\n    return {given}\n")))
    assert (splits.train.name, splits.train.classes, splits.train.task) == (name, classes, task)
    assert splits.test.classes == classes


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("None", "data() of mine.py should give (inputs, labels), ((inputs, labels), (test inputs"),
        ("([[1], [1, 2]], [0, 1])", "should give arrays of numbers"),
        ("(['a'], [0])", "should give arrays of numbers"),
        ("([[1.0]] * 9, [-1] * 9)", "needs labels from 0"),
        ("([[float('nan')]] * 9, [0, 1, 2] * 3)", "needs finite inputs"),
    ],
)
def test_data_of_another_form_is_a_sentence(write, given, sentence):
    code = load_code(write(f"def data():\n    return {given}\n"))
    assert sentence in refusal(load_data, "code", "", code)


def test_a_model_may_be_a_text_a_network_or_an_object(write):
    text = "def model(features, classes):\n    return 'mlp:7'\n"
    assert load_model("code", points(), load_code(write(text))).spec == "mlp:7"
    text = (
        "from paramserver.models import Network\n"
        "def model(features, classes):\n"
        "    net = Network(features, classes)\n"
        "    return net.model(net.dense(net.inputs, classes))\n"
    )
    model = load_model("code", points(), load_code(write(text)))
    assert (model.spec, dict(model.shapes)) == (
        "code:mine.py",
        {"dense1/bias": (3,), "dense1/weight": (2, 3)},
    )
    model = load_model("code", points(), load_code(write(OWN)))
    assert (model.spec, dict(model.shapes), model.task) == ("code:mine.py", {"w": (2, 3)}, "classification")


def test_what_the_users_object_gives_is_made_float32_and_weights_cannot_be_changed(write):
    model = load_model("code", points(), load_code(write(OWN)))
    values = model.initial(0)
    loss, gradients = model.gradient(values, points().inputs, points().labels)
    assert loss == 0.5
    assert gradients["w"].dtype == values["w"].dtype == np.float32
    text = OWN.replace("return 0.5,", "values['w'] -= 1; return 0.5,")
    sentence = refusal(load_model, "code", points(), load_code(write(text)))
    assert "in gradient: ValueError: output array is read-only. The line: values['w'] -= 1" in sentence


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("def logits", "def outputs", "is a Line without 'logits': a model has the methods"),
        ('return {"w": np.zeros((2, 3))}', "return [0]", "should give arrays by key"),
        ('return {"w": np.zeros((2, 3))}', 'return {"w": "x"}', "should give numbers for 'w'"),
        ('return {"w": np.zeros((2, 3))}', "return {1: np.zeros(3)}", "has the key 1, but keys are texts"),
        ('return 0.5, {"w"', 'return 0.5, {"v"', "should give arrays by the keys w, but it gives v."),
        ('return 0.5, {"w": np.ones((2, 3))}', "return 0.5", "should give (loss, gradients by key)"),
        ("return 0.5,", "return 'low',", "should give the loss as a number"),
        ("np.ones((2, 3))", "np.ones((3, 2))", "should give 'w' as (2, 3), but it gives (3, 2) float64."),
        (
            'return inputs @ values["w"]',
            "return inputs",
            "should give (6, 3) for 6 samples, but they are (6, 2)",
        ),
        ("return Line()", "return None", "is a NoneType without 'initial'"),
    ],
)
def test_a_model_that_breaks_its_promise_is_a_sentence_before_anything_starts(write, old, new, sentence):
    assert old in OWN
    code = load_code(write(OWN.replace(old, new)))
    assert sentence in refusal(load_model, "code", points(), code)


def test_one_logit_for_two_classes_is_binary_and_none_for_numbers(write):
    text = OWN.replace('inputs @ values["w"]', '(inputs @ values["w"])[:, 0]')
    assert load_model("code", points(2), load_code(write(text))).task == "binary"
    numbers = Dataset(np.eye(6, 2, dtype=np.float32), np.ones(6, np.float32), "n", task="regression")
    assert load_model("code", numbers, load_code(write(text))).task == "regression"


def test_a_job_file_never_runs_code_by_itself(write):
    path = write(OWN)
    job = Job(data="code", model="code", code=str(path)).resolved()
    assert f"--code {path}" in refusal(load_workload, job)
    workload = load_workload(job, load_code(path))
    assert workload.spec.model == "code:mine.py"
    assert "defines no 'data'" in refusal(load_workload, job, load_code(write("def model(): pass")))
    assert "defines no 'model'" in refusal(
        load_workload, job, load_code(write("def data(): return 'digits'"))
    )


def test_a_network_is_the_model_that_its_layers_make():
    net = Network(4, 3)
    hidden = net.dense(net.inputs, 5, "relu")
    model, named = net.model(net.dense(hidden, 3)), build_model("mlp:5", 4, 3)
    assert dict(model.shapes) == dict(named.shapes)
    values = named.initial(3)
    inputs, labels = np.ones((2, 4), np.float32), np.array([0, 2])
    np.testing.assert_array_equal(model.logits(values, inputs), named.logits(values, inputs))
    assert model.gradient(values, inputs, labels)[0] == named.gradient(values, inputs, labels)[0]


def test_a_network_of_images_categories_or_numbers():
    net = Network(16, 2)
    images = net.apply("reshape", net.inputs, shape=(4, 4, 1))
    pooled = net.apply("max_pool", net.conv(images, 3), size=2)
    flat = net.norm(net.dropout(net.apply("flatten", pooled), 0.5))
    assert net.model(net.dense(flat, 1)).task == "binary"
    net = Network(3, rows=50)
    model = net.model(net.dense(net.apply("flatten", net.embedding(2)), 1))
    assert (model.task, set(model.tables)) == ("regression", {"embedding1/weight"})


def test_a_network_that_does_not_fit_is_a_sentence():
    assert "at least 1 feature, and 2 classes or 0" in refusal(Network, 0)
    net = Network(4, 3)
    assert "Reshape it first" in refusal(net.conv, net.inputs, 3)
    assert "Say how many there are" in refusal(net.embedding, 3)
    assert "The last layer should be (batch, 3)" in refusal(net.model, net.inputs)
