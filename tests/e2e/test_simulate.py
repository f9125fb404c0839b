"""Jobs in virtual time: the bytes of real runs, the folder of real runs, and bad worlds refused in time."""

import json
import shlex
import signal
import subprocess
import sys
from itertools import pairwise

import pytest

from paramserver.cli import main
from paramserver.errors import JobError, RequestError
from paramserver.job import Job
from paramserver.launch.run import run
from paramserver.prediction import read_trained
from paramserver.sim import world_from_mapping, world_from_toml
from paramserver.storage import json_text, read_checkpoint, read_metrics

LAN = "latency=100us bandwidth=1Gbit/s server=1Gbit/s rpc=80us lock=5us lock-per-byte=0.3ns"
TINY = {"problem": "quadratic:1", "steps": 20, "workers": 2, "threads": 1, "optimizer": "sgd", "lr": 0.1}
DONE, FAILED, USAGE = 0, 1, 2


def world(compute="20ms", network=LAN, faults="", seed=0):
    values = {"compute": compute, "network": network, "faults": faults, "seed": seed}
    return world_from_mapping(values, "a test")


def simulated(out, job, here=None):
    summary, folder = run(Job(engine="sim", **job), out, world=here or world())
    assert folder == out
    return summary


def command(folder, *words):
    """Run the program in a folder; return exit code, standard output and standard error."""
    line = [sys.executable, "-P", "-m", "paramserver", *words]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def refused(capsys, sentence, *words):
    """See that a command line is refused with a sentence."""
    with pytest.raises(SystemExit) as exit_:
        main(list(words))
    captured = capsys.readouterr()
    assert (exit_.value.code, captured.out) == (USAGE, "")
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


# ------------------------------------------------------------------------------- what a run is and leaves


@pytest.mark.parametrize(
    "here",
    [
        world("constant:20ms", "ideal"),
        world("lognormal:20ms,0.8", seed=7),
        world("exponential:20ms w1=x5"),
        world(faults="lose=2% duplicate=5% reorder=5%+1ms..20ms", seed=3),
        world(faults="pause=w0@200ms+2s partition=w1@500ms+3s"),
    ],
    ids=["ideal", "jitter", "slow worker", "losses", "pause"],
)
def test_sync_gets_the_bytes_of_the_plain_loop_in_every_world(tmp_path, sequential_sha256, here):
    summary = simulated(tmp_path / "out", {"epochs": 2}, here)
    assert (summary["outcome"], summary["engine"]) == ("finished", "sim")
    assert summary["weights_sha256"] == sequential_sha256
    assert summary["samples"]["applied"] == summary["samples"]["computed"] == 2 * 1295


def test_a_simulated_run_leaves_what_a_real_run_leaves(tmp_path):
    out = tmp_path / "out"
    summary = simulated(out, {"epochs": 3, "consistency": "ssp:1", "trace": True}, world("20ms w1=x2"))
    assert json.loads((out / "summary.json").read_text()) == json.loads(json_text(summary))
    assert world_from_toml((out / "world.toml").read_text(), "world.toml") == world("20ms w1=x2")
    assert summary["job"]["trace"] is True
    # The slow worker needs 3 epochs x 11 steps x 40 ms, and some network.
    assert 1.32 < summary["wall_seconds"] < 1.5
    checkpoint = read_checkpoint(out / "checkpoint")
    assert checkpoint.manifest.weights_sha256 == summary["weights_sha256"]
    assert set(checkpoint.state) == set(checkpoint.weights), "the optimizer's state is there, too"
    assert summary["virtual"]["world"]["compute"] == "constant:20ms w1=x2"
    assert len(summary["virtual"]["shards"]) == 2
    assert 0 < summary["virtual"]["servers"][0]["link_out_busy_seconds"] < summary["wall_seconds"]
    assert max(summary["virtual"]["waited_for"], key=lambda wait: wait["seconds"])["rank"] in (2, 3)
    assert json.loads((out / "trace.json").read_text())["traceEvents"]


def test_the_diary_is_a_curve_over_virtual_time(tmp_path):
    summary = simulated(tmp_path / "out", {"epochs": 10})
    records = read_metrics(tmp_path / "out" / "metrics.jsonl")
    scores = [record for record in records if record["kind"] == "score"]
    times = [score["seconds"] for score in scores]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(summary["wall_seconds"], abs=0.1)
    assert 15 <= len(scores) <= 45
    assert [score["split"] for score in scores].count("test") == 1
    assert scores[-1]["split"] == "test"
    assert scores[-1]["accuracy"] == summary["accuracy"] > 0.8
    assert scores[-2]["version"] == scores[-1]["version"] == max(summary["versions"])
    assert scores[0]["accuracy"] < 0.5, "the curve begins where training begins"
    clocks = [record["clocks"] for record in records if record["kind"] == "progress"]
    assert clocks == sorted(clocks)
    assert clocks[-1] == [110, 110, 110, 110]


def test_a_target_ends_the_job(tmp_path):
    job = {"epochs": 100_000, "schedule": "constant", "target_accuracy": 0.8}
    summary = simulated(tmp_path / "out", job)
    assert summary["outcome"] == "finished"
    assert summary["validation"][-1]["accuracy"] >= 0.8
    assert any("reached the target 0.8." in note for note in summary["notes"])
    assert summary["wall_seconds"] < 10, "an epoch is 11 steps, and scored"


def test_a_problem_is_judged_by_its_solution(tmp_path):
    # Gradient descent by hand: every one of the two weights is 1 at the beginning.
    job = Job(engine="sim", **TINY, schedule="constant")
    summary, _ = run(job, tmp_path / "constant", world=world())
    assert summary["model"] == "quadratic:1"
    assert summary["loss"] == pytest.approx(2 * (0.9**20) ** 2, rel=1e-4)
    assert summary["accuracy"] == pytest.approx(1 - (0.9**20) ** 2, rel=1e-4)
    with pytest.raises(RequestError, match="trained the problem quadratic:1, which predicts nothing"):
        read_trained(tmp_path / "constant")
    timing, _ = run(Job(engine="sim", problem="timing", steps=5), tmp_path / "timing", world=world())
    assert (timing["accuracy"], timing["validation"], timing["versions"]) == (None, [], [5, 5])


def test_what_befalls_workers_is_in_the_notes(tmp_path):
    faults = "crash=w1@105ms pause=w0@50ms+10ms"
    job = TINY | {"consistency": "async", "steps": 3000, "lease_seconds": 2.0}
    summary = simulated(tmp_path / "out", job, world(faults=faults))
    assert "At 0.105 s: worker1 is down." in summary["notes"]
    assert "At 0.050 s: worker0 is paused until 0.060 s." in summary["notes"]
    assert any("lease" in note for note in summary["notes"])
    assert (tmp_path / "out" / "logs" / "world.log").read_text().splitlines()[0] in summary["notes"]


def test_the_diary_forgets_no_earlier_life(tmp_path):
    job = TINY | {"consistency": "async", "steps": 300, "on_death": "restart"}
    simulated(tmp_path / "out", job, world("10ms", faults="crash=w1@1500ms+500ms"))
    records = read_metrics(tmp_path / "out" / "metrics.jsonl")
    computed = [record["gradients"].get("computed", 0) for record in records if record["kind"] == "progress"]
    assert len(computed) > 20
    # What was counted after the last heartbeat of the first life, half a second of it, nobody has heard.
    falls = [before - after for before, after in pairwise(computed) if before > after]
    assert sum(falls) <= 50
    assert computed[-1] >= 600 - 50


def test_a_worker_that_joins_late_trains_on_real_data_too(tmp_path):
    job = {"epochs": 2, "workers": 2, "threads": 1, "consistency": "async"}
    summary = simulated(tmp_path / "out", job, world(faults="join=w2@200ms"))
    assert summary["outcome"] == "finished"
    assert set(summary["time_budget"]["workers"]) == {"worker0", "worker1", "worker2"}
    assert summary["samples"]["applied"] == 2 * 1295  # it has a share of its own of the second epoch
    assert summary["visits"]["share"] == 1.0


# --------------------------------------------------------------------------------- failures, seen again


def test_a_failing_run_says_how_to_see_it_again_and_that_command_does(tmp_path):
    bad = tmp_path / "a folder"
    here = world("exponential:20ms", faults="crash=w1@105ms", seed=5)
    with pytest.raises(JobError, match=r"was not restarted within .* To see it again: paramserver simulate"):
        run(Job(engine="sim", seed=3, **TINY), bad, world=here)
    summary = json.loads((bad / "summary.json").read_text())
    assert summary["outcome"] == "failed"
    assert summary["reason"].startswith("The job gave up")
    assert "To see it again" not in summary["reason"]
    assert summary["gradients"]["applied"] > 0, "what was done until then is told"
    words = shlex.split(summary["replay"])
    assert words[:2] == ["paramserver", "simulate"]
    assert words[-4:] == ["--seed", "3", "--world-seed", "5"]
    code, _, err = command(tmp_path, *words[1:], "--out", "again")
    assert code == FAILED
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert (again["reason"], again["versions"]) == (summary["reason"], summary["versions"])
    assert again["reason"] in err
    assert shlex.join(words)[:40] not in err, "the new run has a folder of its own"
    assert str(tmp_path / "again" / "job.toml") in err


def test_one_seed_is_one_trace_in_two_processes(tmp_path):
    (tmp_path / "world.toml").write_text(world("exponential:20ms", faults="lose=2%", seed=4).to_toml())
    words = ("--world", "world.toml", "--epochs", "1", "--consistency", "async", "--trace", "--quiet")
    for name in ("one", "two"):
        code, _, err = command(tmp_path, "simulate", *words, "--out", name)
        assert (code, err) == (DONE, "")
    assert (tmp_path / "one/trace.json").read_bytes() == (tmp_path / "two/trace.json").read_bytes()
    assert (tmp_path / "one/metrics.jsonl").read_bytes() == (tmp_path / "two/metrics.jsonl").read_bytes()
    code, _, _ = command(tmp_path, "simulate", *words, "--out", "three", "--world-seed", "5")
    assert (tmp_path / "one/trace.json").read_bytes() != (tmp_path / "three/trace.json").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_simulation_at_once(tmp_path, number, code):
    words = [
        "simulate",
        "--problem",
        "timing",
        "--steps",
        "1000000",
        "--compute",
        "1ms",
        "--network",
        "ideal",
    ]
    line = [sys.executable, "-P", "-m", "paramserver", *words, "--out", str(tmp_path / "out")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "virtual" not in (shown := process.stdout.readline()):
            assert shown, process.stderr.read()
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert err.count("\n") == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["outcome"] == "interrupted"
    assert summary["gradients"]["applied"] > 0


# --------------------------------------------------------------------------------------- the command line


def test_a_thousand_virtual_workers_train_the_digits(tmp_path):
    words = ("--workers", "1000", "--threads", "1", "--shards", "1", "--batch", "1", "--epochs", "1")
    job = (*words, "--quiet", "--seed", "1")
    here = ("--compute", "exponential:20ms", "--network", "ideal")
    code, out, err = command(tmp_path, "simulate", *job, *here, "--out", "sim")
    assert (code, err) == (DONE, "")
    assert "virtual time" in out
    assert "and 988 more" in out
    assert max(map(len, out.splitlines())) <= 80
    code, _, err = command(tmp_path, "train", "--engine", "sequential", *job, "--out", "loop")
    assert (code, err) == (DONE, "")
    hashes = [
        json.loads((tmp_path / name / "summary.json").read_text())["weights_sha256"]
        for name in ("sim", "loop")
    ]
    assert hashes[0] == hashes[1]


def test_options_win_over_the_world_file_and_predict_reads_the_result(tmp_path):
    (tmp_path / "w.toml").write_text('compute = "exponential:20ms"\nnetwork = "ideal"\nseed = 9\n')
    words = ("--world", "w.toml", "--compute", "10ms", "--epochs", "2", "--out", "out", "--json")
    code, out, _ = command(tmp_path, "train", "--engine", "sim", *words)
    assert code == DONE
    summary = json.loads(out)
    assert summary["virtual"]["world"]["compute"] == "constant:10ms"
    assert summary["virtual"]["world_seed"] == 9
    assert summary["wall_seconds"] == pytest.approx(22 * 0.01)
    code, out, err = command(tmp_path, "predict", "out", "--json")
    assert (code, err) == (DONE, "")
    assert json.loads(out)["accuracy"] == summary["accuracy"]


BOTH = ["--compute", "20ms", "--network", "ideal"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "What compute costs is missing, and a missing cost is not taken for zero. Give --compute, such"),
        (["--compute", "20ms"], "What network costs is missing"),
        (["--compute", "20ms", "--network", "latency=1ms"], "does not say what bandwidth and server and"),
        (["--compute", "20", "--network", "ideal"], "'20' has no unit"),
        (["--compute", "exponental:20ms", "--network", "ideal"], "Did you mean 'exponential'?"),
        (["--compute", "-5ms", "--network", "ideal"], "must be 0 or more"),
        (["--compute", "20ms", "--network", LAN.replace("100us", "-1us")], "must be 0 or more"),
        (["--compute", "20ms", "--network", LAN.replace("1Gbit/s", "0Gbit/s")], "nothing would ever arrive"),
        (["--compute", "20ms", "--network", LAN.replace("rpc", "rcp")], "Did you mean 'rpc'?"),
        (
            ["--compute", "20ms w7=x2", "--network", "ideal"],
            "There is no worker w7, but 'w7=x2' of the compute",
        ),
        (
            [*BOTH, "--faults", "crash=w7@1s"],
            "There is no worker w7, but 'crash=w7@1s' of the faults names it",
        ),
        ([*BOTH, "--faults", "crsh=w1@1s"], "Did you mean 'crash'?"),
        ([*BOTH, "--faults", "join=w5@1s"], "Late workers are numbered on from the last one"),
        ([*BOTH, "--servers", "2", "--network", LAN], "Give between-servers=50us"),
        ([*BOTH, "--world-seed", "-1"], "'seed' in the command line must be 0 or more"),
        ([*BOTH, "--problem", "quadratc:1"], "Did you mean 'quadratic'?"),
        ([*BOTH, "--problem", "quadratic"], "Expected quadratic:CURVATURE"),
        (
            [*BOTH, "--problem", "timing", "--data", "digits"],
            "--problem is trained in place of data and model",
        ),
        ([*BOTH, "--steps", "5"], "'steps' are those of a problem"),
        ([*BOTH, "--consistency", "asnyc"], "Did you mean 'async'?"),
        (["--world", "none.toml"], "The world file none.toml cannot be read: No such file"),
        ([*BOTH, "--engine", "sim"], "There is no option --engine"),
        ([*BOTH, "--word", "w.toml"], "Did you mean '--world'?"),
    ],
)
def test_a_world_that_cannot_be_is_one_sentence_before_anything_is_made(
    capsys, monkeypatch, tmp_path, words, sentence
):
    monkeypatch.chdir(tmp_path)
    refused(capsys, sentence, "simulate", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--compute", "20ms"],
            "--compute is about a simulated world, but the engine is local. Add --engine sim",
        ),
        (["--engine", "sequential", "--world-seed", "3"], "--world-seed is about a simulated world"),
        (["--problem", "timing"], "is for virtual time, but the engine is local"),
        (["--engine", "sim"], "What compute costs is missing"),
        (["--engine", "sin"], "Did you mean 'sim'?"),
    ],
)
def test_a_world_is_for_virtual_time_alone(capsys, monkeypatch, tmp_path, words, sentence):
    monkeypatch.chdir(tmp_path)
    refused(capsys, sentence, "train", *words)
    assert list(tmp_path.iterdir()) == []
