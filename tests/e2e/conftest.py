"""Real runs of the command line, each in a folder of its own, and a look at what they leave behind."""

import json
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEADLINE_SECONDS = 60.0


class Launcher:
    """Runs ``paramserver train`` in a folder and knows the processes of its runs."""

    def __init__(self, folder):
        self.folder = folder
        self.out = folder / "out"

    def start(self, *options):
        """Start a new run."""
        return self.begin("--out", str(self.out), *options)

    def begin(self, *options):
        """Start ``paramserver train``."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "paramserver", "train", *options],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options, deadline_seconds=100):
        """Do a new run to its end; return exit code, standard output and standard error."""
        return self.command("--out", str(self.out), *options, deadline_seconds=deadline_seconds)

    def command(self, *options, deadline_seconds=100):
        """Do the same with these options alone."""
        with self.begin(*options) as process:
            out, err = process.communicate(timeout=deadline_seconds)
        assert "Traceback" not in out + err
        assert self.processes() == {}
        return process.returncode, out, err

    def summary(self):
        """Read the summary of the run."""
        return json.loads((self.out / "summary.json").read_text())

    def processes(self):
        """Return command lines by process id of all servers and workers of runs in this folder."""
        if Path("/proc/self/cmdline").exists():
            found = {}
            for entry in Path("/proc").glob("[0-9]*"):
                try:
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
                except OSError:
                    continue  # it has ended meanwhile
        else:
            lines = subprocess.run(
                ["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True
            )
            found = {int(line.split()[0]): line for line in lines.stdout.splitlines()}
        programs = (" -m server", " -m worker")
        return {
            pid: line
            for pid, line in found.items()
            if str(self.folder) in line and any(program in line for program in programs)
        }

    def training(self):
        """Say whether training has begun."""
        path = self.out / "metrics.jsonl"
        return path.exists() and '"kind": "progress"' in path.read_text()

    @staticmethod
    def until(condition):
        """Wait until a condition holds; fail after a minute."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "It did not happen in time."
            select.select([], [], [], 0.05)


@pytest.fixture
def launcher(tmp_path):
    return Launcher(tmp_path)


@pytest.fixture(scope="session")
def new_launcher(tmp_path_factory):
    """A function that gives a launcher for a run that several tests look at."""
    return lambda: Launcher(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def sequential_sha256(tmp_path_factory):
    """The hash of the weights that two epochs of the plain loop end with."""
    return _plain_sha256(tmp_path_factory, epochs=2)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The hash of the weights that ten epochs end with which nobody disturbs."""
    return _plain_sha256(tmp_path_factory, epochs=10)


def _plain_sha256(tmp_path_factory, epochs):
    launcher = Launcher(tmp_path_factory.mktemp("sequential"))
    code, _, err = launcher.run("--epochs", str(epochs), "--engine", "sequential", "--quiet")
    assert code == 0, err
    return launcher.summary()["weights_sha256"]
