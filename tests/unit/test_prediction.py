"""Predicting: a model is known by its tensors, threads change nothing, what does not fit is a sentence."""

import csv
import json

import numpy as np
import pytest

from paramserver.cli.keys import Keys
from paramserver.cli.predicting import predict_and_show
from paramserver.datasets.samples import Samples, read_samples
from paramserver.errors import JobError, RequestError
from paramserver.events import Slice, TensorSpec
from paramserver.job import Job
from paramserver.launch.confusion import confusion_counts, confusion_lines
from paramserver.models import build_model, score
from paramserver.placement import rows_of
from paramserver.prediction import Trained, fit_model, predict, read_trained
from paramserver.storage import SliceValues, write_json, write_manifest, write_shard


def trained(model="mlp:5", features=4, classes=3, **more):
    built = build_model(model, features, classes)
    return Trained("a run", model, built.initial(1), 7, **more)


def samples(features=4, count=1234, labels=None):
    rng = np.random.default_rng(0)
    return Samples(rng.standard_normal((count, features), dtype=np.float32), labels, "points")


def refusal(call, *arguments):
    with pytest.raises(RequestError) as raised:
        call(*arguments)
    return str(raised.value)


def checkpoint(folder, model, values):
    """Write a checkpoint as a server with one shard does, and return the hash of its weights."""
    slices = [SliceValues(Slice(key, 0, rows_of(value.shape), 0), value, {}) for key, value in values.items()]
    file = write_shard(folder, 0, 1, slices, 7, 0)
    tensors = [TensorSpec(key, value.shape) for key, value in values.items()]
    return write_manifest(folder, tensors, [file], 0, "sgd", {"model": model}).weights_sha256


def run_folder(path, model="mlp:5", features=4, classes=3, **summary):
    """Write what a finished run leaves behind."""
    built = build_model(model, features, classes)
    sha256 = checkpoint(path / "checkpoint", model, built.initial(1))
    found = {"weights_sha256": sha256, "features": features, "classes": classes, **summary}
    write_json(path / "summary.json", found)
    (path / "job.toml").write_text(Job(model=model).to_toml())
    return built


def test_threads_change_nothing():
    weights, given = trained(), samples()
    model = fit_model(weights, given)
    one, many = (predict(model, weights.weights, given.inputs, threads) for threads in (1, 8))
    assert one.logits.tobytes() == many.logits.tobytes()
    np.testing.assert_array_equal(one.classes, many.classes)
    whole = model.logits(weights.weights, given.inputs)
    np.testing.assert_allclose(one.logits, whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_the_score_is_that_of_training():
    weights = trained()
    labels = np.arange(300) % 3
    given = samples(count=300, labels=labels)
    model = fit_model(weights, given)
    assert predict(model, weights.weights, given.inputs, 3).score(labels) == score(
        model, weights.weights, given.inputs, labels
    )


def test_threads_are_bounded():
    weights, given = trained(), samples()
    model = fit_model(weights, given)
    for threads in (0, 257):
        assert "Threads are from 1 to 256" in refusal(predict, model, weights.weights, given.inputs, threads)


@pytest.mark.parametrize(
    ("model", "features", "classes", "other"),
    [("softmax", 4, 3, 5), ("mlp:3,2", 4, 0, 3), ("cnn:2", 16, 5, 36), ("linear", 4, 0, 5),
     ("logistic", 4, 2, 3), ("mlp:3", 4, 2, 8)],
)  # fmt: skip
def test_a_model_knows_what_it_takes_by_its_tensors(model, features, classes, other):
    found = trained(model, features, classes)
    assert found.known_classes() == classes
    assert found.fits(features)
    assert not found.fits(other)
    assert "of another model than" in refusal(fit_model, found, samples(other))


def test_weights_of_another_model_are_refused_by_name():
    found = Trained("runs/1", "mlp:6", trained("mlp:5").weights, 7)
    assert refusal(fit_model, found, samples()) == (
        "The weights in runs/1 are of another model than 'mlp:6' with 4 features: "
        "'dense1/bias' is (5,) there, and (6,) in the model."
    )


def test_labels_out_of_range_are_refused():
    assert "label 3" in refusal(fit_model, trained(), samples(count=4, labels=np.arange(4)))
    assert "3 labels" in refusal(Samples, np.zeros((2, 2)), np.arange(3), "points")


def test_a_model_of_ones_own_needs_its_file():
    found = Trained("runs/1", "code:mine.py", {"w": np.zeros(3, np.float32)}, 7)
    assert "of a model of your own, mine.py. Name that file with --code" in refusal(
        fit_model, found, samples()
    )


def test_a_run_and_its_checkpoint_are_read_and_a_strangers_summary_is_not(tmp_path):
    run_folder(tmp_path / "run", class_names=["a", "b", "c"])
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoint"):
        found = read_trained(path)
        assert (found.model, found.version, found.features, found.classes) == ("mlp:5", 7, 4, 3)
        assert found.class_names == ("a", "b", "c")
        assert found.job == Job(model="mlp:5")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    write_json(tmp_path / "run" / "summary.json", {**summary, "weights_sha256": "other"})
    found = read_trained(tmp_path / "run")
    assert (found.features, found.classes, found.class_names, found.job) == (0, -1, (), None)
    assert found.known_classes() == 3


def test_what_is_no_run_is_a_sentence(tmp_path):
    assert "does not exist" in refusal(read_trained, tmp_path / "none")
    assert "its run did not come to an end" in refusal(read_trained, tmp_path)
    (tmp_path / "checkpoint").mkdir()
    assert "is no finished checkpoint" in refusal(read_trained, tmp_path)
    checkpoint(tmp_path / "nameless", "", {"w": np.zeros(3, np.float32)})
    assert "does not say which model" in refusal(read_trained, tmp_path / "nameless")


def read(path, text, classes=3, names=(), takes=2):
    path.write_text(text)
    return read_samples(str(path), None, lambda features: features == takes, classes, names, takes)


def test_a_csv_has_labels_where_it_has_one_column_more_or_names_it(tmp_path):
    path = tmp_path / "a.csv"
    assert read(path, "a,b\n1,2\n3,4\n").labels is None
    assert read(path, "a,b,c\n1,2,0\n3,4,2\n").labels.tolist() == [0, 2]
    found = read(path, "label,a,b\n1,2,0\n0,4,2\n")
    assert (found.labels.tolist(), found.inputs.tolist()) == ([1, 0], [[2, 0], [4, 2]])
    assert read(path, "a,b,c\n1,2,0\n3,4,2.5\n", classes=0).labels.tolist() == [0, 2.5]
    assert read(path, "a,b,c\n1,2,yes\n3,4,no\n", 2, ("no", "yes")).labels.tolist() == [1, 0]
    assert read(path, "a\n1\n", takes=1).inputs.tolist() == [[1]]
    assert read(path, "a,b,c\n1,2,1\n3,4,1\n").labels.tolist() == [1, 1], "one class alone is enough here"


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("a,b\n1,2\n3,x\n", {}, "a.csv, line 3, column 2 ('b'): expected a number, but found 'x'."),
        ("a,b,c\n1,2,0\n3,4,3\n", {}, "line 3, column 3 ('c'): expected a class from 0 to 2, but found '3'."),
        ("a,b,c\n1,2,0\n3,4,0.5\n", {}, "expected a class from 0 to 2, but found '0.5'."),
        ("a,b,c\n1,2,ja\n", {"classes": 2, "names": ("no", "yes")}, "expected one of the classes no, yes"),
        ("a,b,c\n1,2,yes\n3,4,no\n", {}, "which class of the model each one is cannot be told"),
        ("a,b,c\n1,2,high\n", {"classes": 0}, "column 3 ('c'): expected a finite number, but found 'high'."),
        ("a,b,c,d\n1,2,3,4\n", {}, "a.csv has 4 columns, but the model was trained on 2 features."),
        ("a,label\n1,2\n", {}, "has 2 columns, one of them with labels, but the model was trained on 2"),
        ("a,b\n1,2,3\n", {}, "line 2: expected 2 cells as in the header, but found 3."),
        ("a,b\n", {}, "has a header row, but no samples below it."),
        ("", {}, "is empty"),
    ],
)  # fmt: skip
def test_a_csv_that_does_not_fit_names_line_and_column(tmp_path, text, options, sentence):
    assert sentence in refusal(lambda: read(tmp_path / "a.csv", text, **options))


def test_an_archive_gives_its_test_part_or_all_it_has(tmp_path):
    x, y = np.zeros((4, 2)), np.arange(4) % 2
    for arrays, count, labelled in (
        ({"x_train": x, "y_train": y, "x_test": x[:3], "y_test": y[:3]}, 3, True),
        ({"x": x, "y": y}, 4, True),
        ({"x": x[:1]}, 1, False),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        found = read_samples(str(tmp_path / "a.npz"), None, lambda features: features == 2, 2)
        assert (len(found.inputs), found.labels is not None) == (count, labelled)
    np.savez(tmp_path / "a.npz", z=x)
    load = lambda: read_samples(str(tmp_path / "a.npz"), None, lambda features: True, 2)  # noqa: E731
    assert "should hold the array x or x_test" in refusal(load)
    assert "There is no file" in refusal(lambda: read_samples("none.npz", None, bool, 2))


def test_named_data_gives_its_test_part_and_must_fit():
    assert len(read_samples("digits", None, lambda features: features == 64, 10).inputs) == 359
    sentence = refusal(lambda: read_samples("digits", None, lambda features: False, 10, (), 784))
    assert "'digits test' has 64 features, but the model was trained on 784." in sentence


def show(capsys, source, **options):
    arguments = {"data": None, "data_dir": None, "threads": 1, "out": None, "code": None, "as_json": False}
    assert predict_and_show(source, None, Keys(), **{**arguments, **options}) == 0
    return capsys.readouterr().out


def rows_of_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_has_what_the_model_says(capsys, tmp_path):
    model = run_folder(tmp_path / "run", class_names=["a", "b, c", "d"])
    lines = "".join(f"{n / 7},{n},1,{-n},{name}\n" for n, name in enumerate(["a", "d", '"b, c"', "a"]))
    (tmp_path / "in.csv").write_text(f"s,t,u,v,kind\n{lines}")
    out = show(capsys, tmp_path / "run", data=str(tmp_path / "in.csv"), out=tmp_path / "out.csv")
    rows = rows_of_csv(tmp_path / "out.csv")
    assert list(rows[0]) == ["sample", "label", "predicted", "probability", "p_a", "p_b, c", "p_d"]
    assert [row["label"] for row in rows] == ["a", "d", "b, c", "a"]
    inputs = np.array([[n / 7, n, 1, -n] for n in range(4)], np.float32)
    chosen = model.logits(model.initial(1), inputs).argmax(axis=1)
    assert [row["predicted"] for row in rows] == [("a", "b, c", "d")[number] for number in chosen]
    for row in rows:
        chances = [float(row[f"p_{name}"]) for name in ("a", "b, c", "d")]
        assert sum(chances) == pytest.approx(1, abs=1e-5)
        assert max(chances) == float(row["probability"])
    assert "Accuracy" in out
    assert "2 d" in out
    assert out.endswith(f"The predictions are in {tmp_path / 'out.csv'}.\n")


def test_without_labels_the_predicted_classes_are_counted(capsys, tmp_path):
    run_folder(tmp_path / "run")
    (tmp_path / "in.csv").write_text("w,x,y,z\n1,2,3,4\n0,0,0,1\n")
    out = show(capsys, tmp_path / "run" / "checkpoint", data=str(tmp_path / "in.csv"))
    assert "Accuracy" not in out
    assert "Predicted classes" in out
    assert out.endswith("To keep the predictions, give --out FILE.csv.\n")


def test_numbers_are_predicted_as_numbers(capsys, tmp_path):
    model = run_folder(tmp_path / "run", "linear", 2, 0)
    (tmp_path / "in.csv").write_text("a,b,y\n1,2,0.5\n0,1,3\n")
    out = show(capsys, tmp_path / "run", data=str(tmp_path / "in.csv"), out=tmp_path / "out.csv")
    assert "R2" in out
    assert "Confusion" not in out
    rows = rows_of_csv(tmp_path / "out.csv")
    assert list(rows[0]) == ["sample", "label", "predicted"]
    expected = model.logits(model.initial(1), np.float32([[1, 2], [0, 1]]))
    assert [float(row["predicted"]) for row in rows] == pytest.approx(expected.tolist())


def test_json_is_all_there_is(capsys, tmp_path):
    run_folder(tmp_path / "run")
    (tmp_path / "in.csv").write_text("w,x,y,z,label\n1,2,3,4,0\n0,0,0,1,2\n")
    found = json.loads(show(capsys, tmp_path / "run", data=str(tmp_path / "in.csv"), as_json=True))
    assert (found["samples"], found["threads"], found["version"]) == (2, 1, 7)
    assert np.sum(found["confusion"]) == 2
    assert found["accuracy"] == np.trace(found["confusion"]) / 2


def test_a_checkpoint_alone_does_not_say_what_data(tmp_path):
    checkpoint(tmp_path / "alone", "mlp:5", trained().weights)
    arguments = (None, Keys(), None, None, 1, None, None, False)
    assert "Name it with --data." in refusal(predict_and_show, tmp_path / "alone", *arguments)


def test_a_confusion_matrix_fits_into_80_columns():
    rng = np.random.default_rng(0)
    for classes in (2, 3, 10, 17, 20):
        names = [f"a rather long name {number}" for number in range(classes)]
        for count in (30, 10_000, 10_000_000):
            counts = rng.integers(0, count, (classes, classes))
            for given in ([], names):
                lines = confusion_lines(counts, given)
                assert len(lines) == classes + 2
                assert max(map(len, lines)) <= 80
                assert len(set(map(len, lines[1:]))) == 1


def test_a_confusion_matrix_shows_counts_or_percent_of_each_label():
    counts = confusion_counts(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1]), 2)
    assert confusion_lines(counts, ["cat", "dog"])[1:] == ["       0  1", "0 cat  1  .", "1 dog  1  2"]
    many = np.full((20, 20), 1000)
    lines = confusion_lines(many)
    assert lines[0].startswith("Confusion matrix, % of label")
    assert lines[-1] == "19" + "  5" * 20


def test_of_many_classes_the_most_confused_pairs_are_listed():
    counts = np.diag(np.full(30, 9))
    assert confusion_lines(counts)[1:] == ["  none"]
    counts[3, 7], counts[7, 3], counts[1, 2] = 4, 6, 1
    assert confusion_lines(counts)[1:] == ["  7  3  6", "  3  7  4", "  1  2  1"]


def test_servers_that_do_not_answer_are_a_sentence(monkeypatch):
    monkeypatch.setattr("paramserver.cli.predicting.JOIN_SECONDS", 0.1)
    with pytest.raises(JobError, match=r"could not join the job at 127\.0\.0\.1:1 within 0\.1 s"):
        predict_and_show(None, "127.0.0.1:1", Keys(), "digits", None, 1, None, None, False)
