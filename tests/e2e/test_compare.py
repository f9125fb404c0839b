"""Comparisons as a user runs them: table, folder, interruption, failure; and a trace as a picture."""

import json
import select
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

from paramserver.cli import main
from paramserver.errors import JobError

SECONDS = 100.0
WORLD = ("--engine", "sim", "--compute", "exponential:20ms", "--network", "ideal")
SMALL = ("--epochs", "2", "--workers", "2", "--threads", "1", "--shards", "1")


@pytest.fixture
def start(tmp_path):
    """Start a command line in an empty folder."""

    def started(*arguments):
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "paramserver", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.fixture
def run(start):
    """Run a command line to its end."""

    def ran(*arguments):
        with start(*arguments) as process:
            out, err = process.communicate(timeout=SECONDS)
        assert "Traceback" not in out + err
        return process.returncode, out, err

    return ran


def compared(folder):
    return json.loads((folder / "compare.json").read_text())


def test_rules_stand_side_by_side_in_virtual_time(run, tmp_path):
    code, out, err = run("compare", "sync", "ssp:2", *WORLD, *SMALL, "--seeds", "5,1", "--out", "c")
    assert (code, err) == (0, "")
    assert "4 of 4: ssp:2, seed 1: " in out
    assert "The page is c/compare.html." in out
    assert max(map(len, out[out.index("s to target") :].splitlines())) <= 80
    found = compared(tmp_path / "c")
    assert [(each["rule"], each["seed"]) for each in found["runs"]] == [
        ("sync", 5), ("ssp:2", 5), ("sync", 1), ("ssp:2", 1),
    ]  # fmt: skip
    assert found["time"] == "virtual"
    for each in found["runs"]:
        summary = json.loads((tmp_path / "c" / each["folder"] / "summary.json").read_text())
        assert summary["consistency"] == each["rule"]
        assert summary["seed"] == each["seed"]
        assert each["wait_percent"] == summary["time_budget"]["total"]["wait"]
        assert each["seconds_to_target"] <= summary["wall_seconds"]
        assert len(each["curve"]) > 3
    assert found["rules"]["sync"]["mean_staleness"]["high"] == 0
    assert found["rules"]["ssp:2"]["accuracy"]["count"] == 2
    page = (tmp_path / "c" / "compare.html").read_text()
    assert page.count("<svg xmlns") == 2
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "compare.html", "compare.json", "job.toml", "ssp-2-seed1", "ssp-2-seed5", "sync-seed1", "sync-seed5",
        "world.toml",
    ]  # fmt: skip
    # The command on the page does the same again, to the bit.
    program, *again = shlex.split(found["repeat"])
    assert program == "paramserver"
    assert run(*again, "--out", "again", "--quiet")[0] == 0
    assert compared(tmp_path / "again")["runs"] == found["runs"]


def test_real_runs_follow_one_another_and_go_on_after_the_target(run, tmp_path):
    (tmp_path / "job.toml").write_text("epochs = 2\nworkers = 2\nthreads = 1\ntarget_accuracy = 0.5\n")
    options = ("--seed", "3", "--seeds", "1", "--target-accuracy", "0.01", "--json", "--out", "c")
    code, out, _ = run("compare", "sync", "job.toml", "async", *options)
    assert code == 0
    found = json.loads(out)
    assert found == compared(tmp_path / "c")
    assert found["target_accuracy"] == 0.01
    assert "followed one another" in found["notes"][0]
    assert [each["seed"] for each in found["runs"]] == [3, 3]
    for each in found["runs"]:
        summary = json.loads((tmp_path / "c" / each["folder"] / "summary.json").read_text())
        assert summary["gradients"]["computed"] == 2 * 2 * 21  # epochs x replicas x steps of an epoch


def test_an_interrupted_comparison_keeps_what_has_finished(start, tmp_path):
    problem = ("--problem", "quadratic:1", "--optimizer", "sgd", "--lr", "0.1", "--steps", "200")
    with start("compare", "async", "sync", *WORLD, *problem, "--seeds", "400", "--out", "c") as process:
        deadline = time.monotonic() + SECONDS
        while not (tmp_path / "c" / "compare.json").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            select.select([], [], [], 0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    found = compared(tmp_path / "c")
    ended = len(found["runs"])
    assert 1 <= ended < found["planned"] == 800
    assert err == f"paramserver: Interrupted; {ended} of 800 runs had ended.\n"
    assert f"Only {ended} of 800 runs have ended" in (tmp_path / "c" / "compare.html").read_text()
    assert "s to target" in out


def test_a_failed_run_is_shown_and_the_others_go_on(capsys, monkeypatch, tmp_path):
    from paramserver.launch import compare

    real = compare.run

    def run(job, *rest):
        if job.consistency == "async":
            raise JobError("The disk is full.")
        return real(job, *rest)

    monkeypatch.setattr(compare, "run", run)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "async", "sync", *WORLD, *SMALL, "--seeds", "1", "--out", "c"])
    captured = capsys.readouterr()
    assert exit_.value.code == 1
    assert "1 of 2: async, seed 0: failed: The disk is full." in captured.out
    assert captured.err == "paramserver: 1 of 2 runs failed.\n"
    assert [each["outcome"] for each in compared(tmp_path / "c")["runs"]] == ["failed", "finished"]
    assert "The disk is full." in (tmp_path / "c" / "compare.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["synch"], "Did you mean 'sync'?"),
        (["sync", "sync"], "sync is there twice"),
        (["a.toml", "b.py"], "a.toml and b.py are both files"),
        (["--engine", "sequential"], "Choose --engine local or sim."),
        (["--seeds", "0"], "1 to 1,000 seeds"),
        (["--seeds", "1,1"], "has one twice"),
        (["--seeds", "few"], "it is 'few'"),
        (["--seeds", "900"], "2,700 runs"),
        (["--engine", "sim"], "What compute costs is missing"),
        (["--target-accuracy", "95"], "from 0 to 1"),
        (["none.toml"], "none.toml cannot be read"),
        (["--data", "digit"], "Did you mean 'digits'?"),
    ],
)
def test_bad_input_is_a_sentence_and_begins_nothing(capsys, monkeypatch, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["compare", *arguments])
    captured = capsys.readouterr()
    assert (exit_.value.code, captured.out) == (2, "")
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", [("simulate", *WORLD[2:]), ("train",)])
def test_the_trace_of_a_run_is_drawn(run, tmp_path, engine):
    assert run(*engine, *SMALL, "--trace", "--quiet", "--out", "out")[0] == 0
    code, out, err = run("timeline", "out", "--from", "100ms", "--to", "200ms")
    assert (code, err) == (0, "")
    assert out.endswith("The timeline is in out/timeline.svg.\n")
    text = (tmp_path / "out" / "timeline.svg").read_text()
    words = {
        element.text for element in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")
    }
    assert {"sync, 2 replicas, mlp:128", "worker0/0", "worker1/0", "compute", "apply"} <= words
    kind = "virtual" if engine[0] == "simulate" else "real"
    assert f"{kind} time, 100 ms to 200 ms" in words
