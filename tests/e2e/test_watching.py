"""A run watched from beside: status, metrics and logs of real processes."""

import json
import signal
import subprocess
import sys
import urllib.request


def status(launcher, *options):
    """Run ``paramserver status`` to its end in the folder of the launcher."""
    command = [sys.executable, "-P", "-m", "paramserver", "status", *options]
    done = subprocess.run(
        command, cwd=launcher.folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def log_lines(launcher):
    """Return every line of every log of a run, by the name of the log."""
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (launcher.out / "logs").glob("*.log")
    }


def test_a_run_can_be_watched_from_another_terminal(launcher):
    launcher.out = launcher.folder / "runs" / "mine"
    options = ("--epochs", "1000000", "--servers", "2", "--metrics-port", "0", "--log-format", "json")
    with launcher.start(*options, "--consistency", "ssp:1") as process:
        try:
            launcher.until(lambda: launcher.training() or process.poll() is not None)
            addresses = json.loads((launcher.out / "servers.json").read_text())
            code, out, err = status(launcher, "--json")  # the newest run in runs/
            assert (code, err) == (0, "")
            told = json.loads(out)
            assert told["state"] == "training"
            assert [row["rank"] for row in told["replicas"]] == [0, 1, 2, 3]
            assert {row["name"].partition("/")[0] for row in told["replicas"]} == {"worker0", "worker1"}
            assert [row["shard"] for row in told["shards"]] == [0, 1, 2, 3]
            code, out, _ = status(launcher, "runs/mine")
            assert code == 0
            assert "\x1b" not in out
            assert max(len(line) for line in out.splitlines()) <= 80
            for index, url in enumerate(addresses["metrics"]):
                with urllib.request.urlopen(url, timeout=60) as answer:
                    assert f'paramserver_shard_version{{shard="{2 * index}"}}' in answer.read().decode()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 143
    said = [json.loads(line) for line in err.splitlines()]
    assert {each["role"] for each in said} == {"train"}
    assert said[0]["message"].startswith("Training mlp:128 on digits")
    assert said[-1]["message"] == "Interrupted by SIGTERM. Every process of the job has ended."
    assert said[-1]["level"] == "error"
    assert not (launcher.out / "servers.json").exists()
    code, _, err = status(launcher, "runs/mine")
    assert code == 1
    assert "The run in runs/mine is over (interrupted)." in err
    logs = log_lines(launcher)
    assert set(logs) == {"server0.log", "server1.log", "worker0.log", "worker1.log", "evaluator.log"}
    for name, lines in logs.items():
        for line in lines:
            assert {"time", "level", "logger", "role", "message"} <= set(line)
            assert f"{line['role']}{line.get('index', '')}" == name.removesuffix(".log")
    joined = [line for line in logs["server0.log"] if "joined as replica" in line["message"]]
    assert sorted(line["rank"] for line in joined) == [0, 1, 2, 3]


def test_with_json_logs_standard_output_is_the_report_alone(launcher):
    code, out, err = launcher.run("--epochs", "1", "--log-format", "json")
    assert code == 0
    assert out.startswith("test accuracy")
    assert all(json.loads(line)["role"] == "train" for line in err.splitlines())
    log_lines(launcher)


def test_bad_input_with_json_logs_is_a_json_line(launcher):
    code, out, err = launcher.run("--log-format", "json", "--data", "nothing")
    assert (code, out) == (2, "")
    assert json.loads(err)["level"] == "error"


def test_a_warning_level_keeps_logs_short(launcher):
    assert launcher.run("--epochs", "1", "--quiet", "--log-level", "warning")[0] == 0
    logs = launcher.out / "logs"
    assert (logs / "worker0.log").read_text() == ""
    assert (logs / "server0.log").read_text().startswith("listening ")
