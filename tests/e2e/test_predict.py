"""``paramserver predict`` as a user runs it: from a run, from a checkpoint, from a running job."""

import csv
import json
import subprocess
import sys

import pytest

HEADER = ",".join(f"x{number}" for number in range(64))


def paramserver(folder, *arguments):
    """Run a command to its end; return exit code, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "paramserver", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few epochs, in a folder of its own."""
    folder = tmp_path_factory.mktemp("predict")
    options = ("--epochs", "5", "--engine", "sequential", "--quiet", "--out", "run")
    assert paramserver(folder, "train", *options)[0] == 0
    return folder / "run"


def test_a_run_predicts_its_own_test_set_as_well_as_it_said(run):
    code, out, err = paramserver(run.parent, "predict", "run")
    assert (code, err) == (0, "")
    summary = json.loads((run / "summary.json").read_text())
    assert f"Accuracy     {summary['accuracy']:.4f}\n" in out
    assert "Confusion matrix, samples" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_csv_is_the_same_with_1_and_8_threads_and_loads_in_pandas(run, tmp_path):
    for threads in (1, 8):
        arguments = ("--data", "digits", "--threads", threads, "--out", tmp_path / f"{threads}.csv")
        assert paramserver(run.parent, "predict", run / "checkpoint", *arguments)[0] == 0
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "8.csv").read_bytes()
    with (tmp_path / "1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    assert right == json.loads((run / "summary.json").read_text())["accuracy"]
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(tmp_path / "8.csv")
    assert len(frame) == 359
    assert frame.filter(like="p_").sum(axis=1).between(0.999, 1.001).all()
    assert (frame.predicted == frame.label).mean() == right


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", "in.csv has 2 columns, but the model was trained on 64 features."),
        (f"{HEADER}\n{'0,' * 63}?\n", "line 2, column 64 ('x63'): expected a number"),
        (f"{HEADER},label\n{'0,' * 64}10\n", "expected a class from 0 to 9"),
    ],
)  # fmt: skip
def test_a_csv_that_does_not_fit_is_one_sentence(run, tmp_path, text, sentence):
    (tmp_path / "in.csv").write_text(text)
    code, out, err = paramserver(run.parent, "predict", "run", "--data", tmp_path / "in.csv")
    assert (code, out) == (2, "")
    assert err.startswith("paramserver: ")
    assert err.count("\n") == 1
    assert sentence in err


def test_the_live_weights_of_a_running_job_predict(launcher):
    with launcher.start("--epochs", "1000000", "--quiet") as process:
        try:
            launcher.until(lambda: launcher.training() or process.poll() is not None)
            log = (launcher.out / "logs" / "server0.log").read_text()
            [address] = [line.split()[1] for line in log.splitlines() if line.startswith("listening ")]
            live = ("--connect", address, "--token-file", str(launcher.out / "token"))
            arguments = (*live, "--data", "digits", "--json")
            code, out, err = paramserver(launcher.folder, "predict", *arguments)
            assert (code, err) == (0, "")
            found = json.loads(out)
            assert found["version"] > 0
            assert found["samples"] == 359
            arguments = (*live, "--data", "synthetic:spirals")
            code, _, err = paramserver(launcher.folder, "predict", *arguments)
            assert (code, err.count("\n")) == (2, 1)
            assert "'synthetic:spirals test' has 2 features" in err
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert launcher.processes() == {}
