"""``paramserver scale`` as a user sees it; its figures are tested in tests/simulation/test_scaling.py."""

import json

import pytest

from paramserver.cli import main

WORLD = ["--compute", "10ms", "--network", "ideal"]


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["scale", *arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_a_table_and_the_bottleneck_are_printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(capsys, "--workers", "1..5", "--steps", "10", *WORLD)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "timing, sync, 1 x 1 shards, 1 thread each. Times are virtual."
    assert [line.split()[:4] for line in lines[3:6]] == [
        ["1", "100", "1.00", "100%"],
        ["2", "200", "2.00", "100%"],
        ["5", "500", "5.00", "100%"],
    ]
    assert "With 1 worker the bottleneck is compute" in out
    assert all(line == line.rstrip() and len(line) <= 80 for line in lines)


def test_a_folder_holds_figures_pictures_job_and_world(capsys, tmp_path):
    folder = tmp_path / "out"
    job = ["--problem", "quadratic:1", "--target-accuracy", "0.9", "--lr", "0.2", "--optimizer", "sgd"]
    code, out, _ = run(capsys, "--workers", "2,4", *job, *WORLD, "--out", str(folder))
    assert code == 0
    assert f"The figures are in {folder}." in out
    said = json.loads((folder / "scale.json").read_text())
    assert [point["workers"] for point in said["points"]] == [2, 4]
    assert said["points"][1]["speed_up"] == pytest.approx(4, rel=0.01)
    # 0.8 ** (2 n) <= 0.1 after 6 steps; the weights are looked at after every step or so.
    assert all(0.05 <= point["target_seconds"] <= 0.1 for point in said["points"])
    assert (folder / "scale.svg").read_text().startswith("<svg")
    assert "<svg" in (folder / "scale.html").read_text()
    assert 'engine = "sim"' in (folder / "job.toml").read_text()
    assert 'network = "latency=0s' in (folder / "world.toml").read_text()
    code, _, err = run(capsys, "--workers", "2", *WORLD, "--out", str(folder))
    assert code == 2
    assert str(folder) in err


def test_real_gradients_scale_too(capsys):
    job = ["--data", "digits", "--model", "softmax", "--epochs", "2", "--batch", "64"]
    code, out, _ = run(capsys, "--workers", "1,2", *job, *WORLD, "--json")
    one, two = json.loads(out)["points"]
    assert code == 0
    assert two["speed_up"] == pytest.approx(2, rel=0.1)
    assert (one["steps"], two["replicas"]) == (42, 2)


def test_one_seed_is_one_document(capsys):
    world = ["--compute", "exponential:10ms", "--network", "ideal", "--consistency", "ssp:1"]
    runs = [
        run(capsys, "--workers", "1..10", "--steps", "20", *world, "--seed", seed, "--json")[1]
        for seed in "001"
    ]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--network", "ideal"], "What compute costs is missing, and a missing cost is not taken for zero."),
        (["--compute", "10ms"], "What network costs is missing, and a missing cost is not taken for zero."),
        (["--compute", "10ms", "--network", "latency=1ms"], "does not say what bandwidth"),
        ([*WORLD, "--workers", "9..1"], "Write 1..9"),
        ([*WORLD, "--problem", "quadratc:1"], "Did you mean 'quadratic'?"),
        ([*WORLD, "--consistency", "asink"], "async"),
        ([*WORLD, "--faults", "crash=w0@1s"], "Leave crashes, pauses, partitions, joins and leaves out"),
        ([*WORLD, "--servers", "0"], "'servers' must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(capsys, arguments, sentence):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
