"""``paramserver train`` as a user runs it, to its end."""

import json
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from paramserver.storage import read_checkpoint, read_metrics
from paramserver.types import tensors_sha256

SHORT = ("--epochs", "2")


def test_the_first_command_trains_the_digits_well(launcher):
    code, out, err = launcher.run()
    assert (code, err) == (0, "")
    summary = launcher.summary()
    assert summary["accuracy"] >= 0.96
    assert summary["samples"]["computed"] == summary["samples"]["applied"] > 0
    assert summary["time_budget"]["total"]["compute"] > 0
    assert {path.name for path in launcher.out.iterdir()} == {
        "job.toml", "summary.json", "metrics.jsonl", "checkpoint", "logs",
        "checkpoints", "coordinator.json", "journal",
    }  # fmt: skip
    assert {path.name for path in (launcher.out / "logs").iterdir()} == {
        "server0.log", "worker0.log", "worker1.log", "evaluator.log",
    }  # fmt: skip
    checkpoint = read_checkpoint(launcher.out / "checkpoint")
    assert tensors_sha256(checkpoint.weights) == summary["weights_sha256"]
    assert list(checkpoint.versions) == summary["versions"]
    scores = [record for record in read_metrics(launcher.out / "metrics.jsonl") if record["kind"] == "score"]
    assert [score["split"] for score in scores].count("test") == 1
    assert scores[-1]["accuracy"] == summary["accuracy"]
    _check_report(out, summary)


def _check_report(out, summary):
    """Compare what is printed with the summary; a pipe gets 80 columns of plain text."""
    lines = out.splitlines()
    assert "\x1b" not in out
    assert "\r" not in out
    table = lines[next(row for row, line in enumerate(lines) if line.startswith("test accuracy")) :]
    assert max(len(line) for line in table[:-1]) <= 80
    assert f"{summary['accuracy']:.4f}" in table[0]
    assert any("samples/s" in line and "%" in line for line in lines)  # progress
    budget = [line.split() for line in table if line.startswith(("worker", "all"))]
    assert [row[0] for row in budget] == ["worker0", "worker1", "all"]
    for row in budget:
        assert sum(round(10 * float(percent)) for percent in row[1:]) == 1000


@pytest.mark.parametrize(
    ("workers", "threads", "servers", "shards"), [(1, 4, 1, 1), (2, 2, 1, 2), (4, 1, 2, 1), (2, 2, 1, 5)]
)
def test_sync_gives_the_same_bytes_however_it_is_spread(
    launcher, sequential_sha256, workers, threads, servers, shards
):
    options = zip(
        ("--workers", "--threads", "--servers", "--shards"), (workers, threads, servers, shards), strict=True
    )
    code, _, err = launcher.run("--quiet", *SHORT, *(text for option in options for text in map(str, option)))
    assert code == 0, err
    summary = launcher.summary()
    assert summary["weights_sha256"] == sequential_sha256
    assert len(summary["versions"]) == servers * shards
    assert summary["staleness"]["max"] == 0


def test_a_job_of_one_step_is_scored_once_whether_the_evaluator_is_in_time_or_not(launcher):
    code, _, err = launcher.run("--quiet", "--epochs", "1", "--batch", "4000", "--model", "softmax")
    assert code == 0, err
    scores = [record for record in read_metrics(launcher.out / "metrics.jsonl") if record["kind"] == "score"]
    [score] = [score for score in scores if score["split"] == "test"]
    assert score["accuracy"] == launcher.summary()["accuracy"] > 0
    assert score["version"] == 1


@pytest.mark.parametrize("consistency", ["async", "ssp:1"])
def test_without_rounds_every_gradient_is_applied_and_bounds_are_kept(launcher, consistency):
    code, out, err = launcher.run("--json", "--consistency", consistency, *SHORT)
    assert code == 0, err
    summary = json.loads(out)
    assert summary == launcher.summary()
    gradients, samples = summary["gradients"], summary["samples"]
    assert gradients["computed"] == gradients["applied"] == sum(summary["staleness"]["histogram"].values())
    assert samples["computed"] == samples["applied"] == 2 * summary["data_samples"]["train"]
    assert set(summary["versions"]) == {gradients["applied"]}
    if consistency == "ssp:1":
        assert summary["clock_gap"]["max"] <= summary["clock_gap"]["bound"] == 1
        assert summary["staleness"]["max"] <= summary["staleness"]["bound"] == 9


@pytest.mark.parametrize(
    ("program", "word"),
    [("server", "There is no option '--thread-count'."), ("worker", "Did you mean '--threads'?")],
)
def test_the_programs_keep_their_own_exit_codes_and_sentences(tmp_path, program, word):
    line = [sys.executable, "-P", "-m", "paramserver", program, "--thread-count", "3"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_who_goes_away_ends_the_run_quietly(launcher):
    with launcher.start("--epochs", "1000000") as process:
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == ""
    assert launcher.processes() == {}


def test_json_is_all_there_is_on_standard_output(launcher):
    code, out, err = launcher.run("--json", "--engine", "sequential", *SHORT)
    assert code == 0
    assert json.loads(out) == launcher.summary()
    assert "Training mlp:128 on digits" in err
    assert "\x1b" not in err


def test_quiet_leaves_the_report_only(launcher):
    code, out, err = launcher.run("--quiet", "--engine", "sequential", *SHORT)
    assert (code, err) == (0, "")
    assert out.startswith("test accuracy")


def test_the_job_file_of_a_run_can_be_run_again_and_options_win(launcher, tmp_path):
    options = ("--engine", "sequential", "--seed", "3", "--model", "mlp:16", "--threads", "1", *SHORT)
    assert launcher.run("--quiet", *options)[0] == 0
    first, job_file = launcher.summary(), launcher.out / "job.toml"
    launcher.out = tmp_path / "again"
    assert launcher.run("--quiet", str(job_file))[0] == 0
    assert launcher.summary()["weights_sha256"] == first["weights_sha256"]
    assert tomllib.loads((launcher.out / "job.toml").read_text()) == tomllib.loads(job_file.read_text())
    launcher.out = tmp_path / "other"
    assert launcher.run("--quiet", str(job_file), "--seed", "4")[0] == 0
    assert launcher.summary()["weights_sha256"] != first["weights_sha256"]
    assert launcher.summary()["job"] == {**first["job"], "seed": 4}


def test_a_users_own_data_is_found_again_from_elsewhere(launcher, tmp_path):
    inputs = np.arange(80, dtype=np.float32).reshape(40, 2) / 80
    np.savez(tmp_path / "mine.npz", x=inputs, y=np.arange(40) % 2)
    options = ("--engine", "sequential", "--data", "mine.npz", "--model", "softmax", *SHORT)
    assert launcher.run("--quiet", *options)[0] == 0
    job = tomllib.loads((launcher.out / "job.toml").read_text())
    assert job["data"] == str(tmp_path / "mine.npz")


THREE_WIDE = {"x_test": np.zeros((9, 3)), "y_test": np.arange(9) % 3}


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.zeros((9, 2)), "y": np.zeros(9, int)}, "needs at least two classes"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "must be (samples, ...)"),
        ({"x": np.full((9, 2), np.nan), "y": np.arange(9) % 3}, "needs finite inputs"),
        ({"x": np.zeros((9, 2)), "y": np.arange(9) + 70_000}, "needs labels from 0 to"),
        ({"x": np.zeros((6, 2)), "y": np.arange(6) % 2}, "samples are too few for 4 replicas"),
        ({"x_train": np.zeros((9, 2)), "y_train": np.arange(9) % 3, **THREE_WIDE}, "same features"),
    ],
)
def test_bad_data_is_a_sentence_before_anything_is_started(launcher, tmp_path, arrays, sentence):
    np.savez(tmp_path / "bad.npz", **arrays)
    code, out, err = launcher.run("--data", "bad.npz")
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.startswith("paramserver: ")
    assert err.count("\n") == 1
    assert not launcher.out.exists()


def test_an_output_folder_with_something_in_it_is_left_alone(launcher):
    launcher.out.mkdir()
    (launcher.out / "thesis.txt").write_text("mine")
    code, _, err = launcher.run(*SHORT)
    assert code == 2
    assert "should be new or empty, but it holds thesis.txt" in err
    assert [path.name for path in launcher.out.iterdir()] == ["thesis.txt"]


def test_a_job_that_diverges_fails_with_a_sentence(launcher):
    code, _, err = launcher.run(
        "--engine", "sequential", "--quiet", "--optimizer", "sgd", "--lr", "1e30", "--epochs", "5"
    )
    assert code == 1
    assert "were not finite" in err
    assert err.count("\n") == 1
    summary = launcher.summary()
    assert summary["outcome"] == "failed"
    assert "were not finite" in summary["reason"]
