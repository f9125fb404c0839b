"""``paramserver calibrate``: short real runs, and the world files that come of them."""

import signal
import subprocess
import sys

import pytest

from paramserver import serve
from paramserver.sim import world_from_toml

SECONDS = 100.0


def paramserver(folder, *arguments):
    """Run a command in a folder; return exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "paramserver", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_short_run_gives_a_world_in_which_the_job_runs(tmp_path):
    code, out, err = paramserver(tmp_path, "calibrate", "--seconds", "2", "--model", "mlp:16")
    assert code == 0, err
    assert "The world is in world.toml." in out
    text = (tmp_path / "world.toml").read_text()
    assert text.startswith("# Measured by paramserver calibrate with mlp:16 on digits, batch 32.\n")
    world = world_from_toml(text, "the test")
    network = world.network
    assert world.compute.law.name == "empirical"
    assert world.compute.law.mean > 0
    assert min(network.rpc_ns, network.lock_ns, network.client_ns) > 0
    assert network.cores >= 1
    for name in ("client-per-request", "rpc-per-byte", "lock-per-byte", "between-servers", "cores"):
        assert f"{name}" in text.partition("compute =")[0], "each number has a note"
    code, out, err = paramserver(
        tmp_path,
        *["simulate", "--world", "world.toml", "--model", "mlp:16"],
        *["--epochs", "1", "--servers", "2", "--quiet"],
    )
    assert code == 0, err


@pytest.mark.slow
def test_a_model_of_ones_own_that_waits_needs_little_of_a_core(tmp_path):
    (tmp_path / "waits.py").write_text(
        "import time\n"
        "import numpy as np\n"
        "class Waits:\n"
        "    def initial(self, seed):\n"
        "        return {'w': np.zeros((64, 10), np.float32)}\n"
        "    def gradient(self, values, inputs, labels):\n"
        "        time.sleep(0.02)\n"
        "        return 0.0, {'w': np.zeros((64, 10), np.float32)}\n"
        "    def logits(self, values, inputs):\n"
        "        return inputs @ values['w']\n"
        "def model(features, classes):\n"
        "    return Waits()\n"
    )
    code, _, err = paramserver(tmp_path, "calibrate", "waits.py", "--seconds", "2", "--out", "w.toml")
    assert code == 0, err
    compute = world_from_toml((tmp_path / "w.toml").read_text(), "the test").compute
    assert compute.cpu < 0.5
    assert compute.law.mean > 20e6


@pytest.mark.slow
def test_the_way_to_another_server_is_measured_and_needs_no_cores_of_this_machine(tmp_path):
    with serve() as address:
        code, _, err = paramserver(
            tmp_path, *f"calibrate --seconds 2 --model softmax --connect {address}".split()
        )
    assert code == 0, err
    text = (tmp_path / "world.toml").read_text()
    assert f"the link to {address}" in text
    assert world_from_toml(text, "the test").network.cores is None


@pytest.mark.slow
def test_a_server_with_several_shards_cannot_show_the_way(tmp_path):
    with serve(shards=2) as address:
        code, _, err = paramserver(
            tmp_path, *f"calibrate --seconds 2 --model softmax --connect {address}".split()
        )
    assert code == 2
    assert f"The server at {address} has 2 shards" in err
    assert not (tmp_path / "world.toml").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--seconds 1", "at least 2 seconds to measure, but 1 were given"),
        ("--seconds nan", "at least 2 seconds to measure"),
        ("--out there.toml", "there.toml is there already. Name another file with --out, or remove it."),
        ("--out nowhere/world.toml", "There is no folder"),
        ("--connect nowhere", "HOST:PORT, such as 127.0.0.1:7070, but found 'nowhere'"),
        ("--model mpl:16", "Did you mean"),
        ("--engine sim", "There is no option --engine"),
        ("problem.toml", "A problem has no gradients that take time."),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_a_sentence(tmp_path, options, sentence):
    (tmp_path / "there.toml").write_text("")
    (tmp_path / "problem.toml").write_text('engine = "sim"\nproblem = "quadratic:1"\n')
    code, _, err = paramserver(tmp_path, "calibrate", *options.split())
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert (tmp_path / "there.toml").read_text() == ""
    assert not (tmp_path / "world.toml").exists()


def test_an_interruption_ends_in_a_sentence_and_without_a_file(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "paramserver", "calibrate", "--seconds", "60", "--model", "softmax"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore SIGINT, and these tests may be run there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Measuring"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert (
        err == "paramserver: Interrupted by SIGINT. The servers have ended, and no world file was written.\n"
    )
    assert not (tmp_path / "world.toml").exists()
