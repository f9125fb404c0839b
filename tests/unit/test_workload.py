"""A job and what it works on: the model fits the data, and every sample is dealt."""

import numpy as np
import pytest

from paramserver.data import Dataset, generator
from paramserver.datasets import Splits
from paramserver.errors import RequestError
from paramserver.job import Job
from paramserver.job_file import read_job
from paramserver.models import build_for, build_model, classes_of, predicts_a_number
from paramserver.optim import global_norm
from paramserver.workload import Workload, load_workload


def points(samples=20, classes=2):
    rng = generator(0, "points")
    inputs = rng.standard_normal((samples, 4), dtype=np.float32)
    return Dataset(inputs, np.arange(samples) % classes, "points", classes)


def workload(model="mlp:3", **options):
    splits = Splits(points(), points(), points())
    job = Job(model=model, workers=1, threads=3, batch=4, epochs=2, **options).resolved()
    return Workload(job, splits, build_for(model, splits.train))


def test_every_sample_is_dealt_once_an_epoch_whatever_the_split():
    for split in ("iid", "by-label", "dirichlet:0.3"):
        work = workload(split=split)
        dealt = sum(work.step(r).gradient(work.initial(), work.step(r).batch_at(c))[2]
                    for r in range(3) for c in range(work.steps[r]))  # fmt: skip
        assert dealt == 2 * 20
        assert f"An epoch deals 20 samples ({split})" in work.dealing
        assert work.dealing.endswith("None is repeated or left out.")
    assert "6 or 7 to a replica, in batches of 4; the last one of each has 2 or 3." in workload().dealing


def test_a_clipped_gradient_is_no_longer_than_told():
    long, short = workload(), workload(clip_norm=0.01)
    batch = long.step(0).batch_at(0)
    assert global_norm(long.step(0).gradient(long.initial(), batch)[1]) > 0.02
    assert global_norm(short.step(0).gradient(long.initial(), batch)[1]) == pytest.approx(0.01, rel=1e-5)


def test_chance_is_of_the_step_not_of_when_it_is_done():
    work = workload("mlp:3:dropout=0.5")
    first, again = work.step(1), work.step(1)
    values = work.initial()
    losses = [first.gradient(values, first.batch_at(clock))[0] for clock in range(2)]
    assert again.gradient(values, again.batch_at(1))[0] == losses[1]
    other = work.step(2)
    same = first.batch_at(0)._replace(clock=1)
    assert first.gradient(values, same)[0] != losses[0]
    assert other.gradient(values, first.batch_at(0))[0] != losses[0]


def refusal(call, *arguments):
    with pytest.raises(RequestError) as raised:
        call(*arguments)
    return str(raised.value)


def test_a_model_that_does_not_fit_the_data_is_a_sentence_that_names_one_that_does():
    rows = Dataset(np.arange(20).reshape(10, 2), np.arange(10) % 2, "clicks", task="binary", rows=50)
    assert "Choose logistic:50 or embedding:50,8,32." in refusal(build_for, "mlp:3", rows)
    assert "Choose mlp:128 or softmax." in refusal(build_for, "logistic:50", points())
    assert "has the row index" in refusal(build_for, "logistic:5", rows)
    assert build_for("logistic:50", rows).task == "binary"
    assert "predicts a number, but the data has 2 classes" in refusal(build_for, "linear", points())


def test_whole_numbers_of_a_file_may_be_quantities(tmp_path):
    path = tmp_path / "ages.csv"
    path.write_text("x,y\n" + "".join(f"{n},{n % 7}\n" for n in range(40)))
    job = Job(data=str(path), model="linear", batch=4).resolved()
    assert load_workload(job).model.task == "regression"
    assert load_workload(Job(data=str(path), model="softmax").resolved()).model.classes == 7
    assert predicts_a_number(" Linear") is not predicts_a_number("mlp:3")


@pytest.mark.parametrize(
    ("text", "features", "classes"),
    [("softmax", 4, 3), ("mlp:9,5", 4, 2), ("mlp:9", 4, 0), ("linear", 4, 0), ("logistic", 4, 2),
     ("cnn:2", 16, 5), ("logistic:30", 4, 2), ("embedding:30,4,8", 4, 7), ("mlp:5:norm", 4, 11)],
)  # fmt: skip
def test_the_classes_of_a_model_are_known_by_its_tensors(text, features, classes):
    assert classes_of(text, build_model(text, features, classes).shapes) == classes


def test_tensors_of_something_else_have_no_classes():
    assert "are not those of a model 'mlp:3'" in refusal(classes_of, "mlp:3", {"w": (2,)})
    assert "is not one of linear" in refusal(classes_of, "rnn", {"w": (2,)})


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("JOB = {'epochs': 3, 'batch': 8}\ndef model():\n    return 'mlp:3'\n")
    return path


def test_options_win_over_the_job_file_and_that_over_the_users_code(code):
    job, own = read_job("epochs = 4\nbatch = 9", "job.toml", {"code": str(code), "epochs": 5})
    assert (job.epochs, job.batch, job.model, job.data) == (5, 9, "code", "digits")
    assert (job.code, job.code_sha256) == (str(code), own.sha256)
    job, _ = read_job("", "", {"code": str(code)})
    assert (job.epochs, job.batch) == (3, 8)
    again, _ = read_job(job.to_toml(), "job.toml", {"code": str(code)})
    assert again == job


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("JOB = {'epoch': 3}", "no key 'epoch' in a job, but JOB in mine.py has it. Did you mean 'epochs'?"),
        ("JOB = {'epochs': '3'}", "'epochs' in JOB in mine.py must be a whole number"),
        ("JOB = {'blas_threads': 2}", "cannot say 'blas_threads'. Say it on the command line."),
        ("JOB = {'model': 'cnn'}", "mine.py defines 'model', so the model cannot be 'cnn', too."),
    ],
)
def test_options_in_the_users_code_are_checked_like_others(code, said, sentence):
    code.write_text(f"{said}\ndef model():\n    return 'mlp:3'\n")
    assert sentence in refusal(read_job, "", "", {"code": str(code)})


def test_a_model_on_the_command_line_beside_one_of_the_users_is_refused(code):
    given = {"code": str(code), "model": "cnn"}
    assert "so the model cannot be 'cnn', too. Drop one of them." in refusal(read_job, "", "", given)


def test_a_job_file_that_names_code_is_read_but_runs_nothing(code):
    code.write_text("raise RuntimeError('ran')")
    job, own = read_job(f"code = {str(code)!r}\nmodel = 'code'", "job.toml", {})
    assert own is None
    assert "a job file never runs code" in refusal(load_workload, job.resolved())
