"""The cluster of compose.yaml in real containers; `run.sh` beside this file brings what it needs."""

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid

import pytest

from paramserver.errors import RequestError
from paramserver.launch.containers import Containers, ask, find_compose_file, find_tools
from paramserver.storage import read_checkpoint

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

SECONDS = 200.0
JOB = "epochs = 3\nworkers = 2\nthreads = 2\nservers = 2\n"
CODE = "def model():\n    return 'mlp:16'\n"


@pytest.fixture(scope="module")
def tools():
    """A container engine, with the image of the cluster."""
    try:
        found = find_tools()
    except RequestError as error:
        pytest.skip(str(error))
    if not os.environ.get("PARAMSERVER_IMAGE"):
        pytest.skip("PARAMSERVER_IMAGE names no image. tests/compose/run.sh makes one.")
    return found


@pytest.fixture
def mine(tmp_path):
    """A folder with a job file and a Python file, as a person has them."""
    (tmp_path / "job.toml").write_text(JOB)
    (tmp_path / "my_job.py").write_text(CODE)
    return tmp_path


def start(folder, *options):
    command = [sys.executable, "-P", "-m", "paramserver", "train", "job.toml", *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def summary(path):
    return json.loads((path / "summary.json").read_text())


def left_behind(tools):
    """Return what there is of any cluster of paramserver."""
    label = "label=com.docker.compose.project"
    return [
        line
        for what in (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        for line in ask(tools.container, *what, "--filter", label).splitlines()
        if "paramserver-" in line
    ]


def test_the_same_files_give_the_same_weights_in_every_engine(tools, mine):
    found = {}
    for engine in ("sequential", "local", "compose"):
        with start(mine, "--code", "my_job.py", "--engine", engine, "--out", engine) as process:
            said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said
        found[engine] = summary(mine / engine)["weights_sha256"]
    assert found["sequential"]
    assert len(set(found.values())) == 1, found
    assert {path.name for path in (mine / "compose" / "logs").iterdir()} == {
        "evaluator.log", "server0.log", "server1.log", "worker0.log", "worker1.log"
    }  # fmt: skip
    assert left_behind(tools) == []


def test_containers_may_start_in_any_order_and_a_trained_run_is_in_the_volume(tools, mine):
    """Names of servers that are not there yet cannot be looked up at all."""
    with start(mine, "--code", "my_job.py", "--engine", "sequential", "--out", "sequential") as process:
        process.communicate(timeout=SECONDS)
    mine.chmod(0o755)
    environment = {"PARAMSERVER_JOB": str(mine), "PARAMSERVER_CODE": "my_job.py", "PARAMSERVER_RUN": "mine"}
    project = f"paramserver-{uuid.uuid4().hex[:8]}"
    cluster = Containers(tools, find_compose_file(), project, 2, lambda _: None)
    try:
        workers = [cluster.start("worker", rank, environment) for rank in range(2)]
        evaluator = cluster.start("evaluator", 0, environment)
        deadline = time.monotonic() + SECONDS
        while not all("still waits to join" in each.logs() for each in (*workers, evaluator)):
            assert time.monotonic() < deadline
            select.select([], [], [], 0.2)
        last = cluster.start("server", 1, environment)
        first = cluster.start("server", 0, environment)
        for each in (*workers, evaluator, last, first):
            assert each.wait(SECONDS) == 0, each.logs()
        (mine / "out").mkdir()
        cluster.fetch(first, "/runs/mine", mine / "out")
    finally:
        cluster.stop()
        cluster.remove()
    assert summary(mine / "out")["outcome"] == "finished"
    assert summary(mine / "out")["accuracy"] is not None
    assert summary(mine / "out")["weights_sha256"] == summary(mine / "sequential")["weights_sha256"]
    assert (mine / "out" / "job.toml").read_text() == JOB
    # Replicas of one service have names of their own.
    assert len(summary(mine / "out")["time_budget"]["workers"]) == 2
    assert left_behind(tools) == []


def test_a_cluster_that_is_interrupted_saves_the_run_and_leaves_no_container(tools, mine):
    with start(mine, "--engine", "compose", "--epochs", "1000000", "--out", "out") as process:
        try:
            while "to go" not in (line := process.stdout.readline()):
                assert line, "It ended by itself."
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert summary(mine / "out")["outcome"] == "interrupted"
    assert summary(mine / "out")["samples"]["applied"] > 0
    assert len(read_checkpoint(mine / "out" / "checkpoint").versions) == 4
    assert "stopped by SIGTERM" in (mine / "out" / "logs" / "server0.log").read_text()
    assert "stopped by SIGTERM" in (mine / "out" / "logs" / "worker1.log").read_text()
    assert left_behind(tools) == []
