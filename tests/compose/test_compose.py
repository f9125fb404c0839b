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
    assert set(summary(mine / "out")["time_budget"]["workers"]) == {"worker0", "worker1"}
    assert left_behind(tools) == []


def test_what_dies_is_started_again_and_an_interrupted_run_is_saved(tools, mine):
    with start(mine, "--engine", "compose", "--epochs", "1000000", "--out", "out") as process:
        try:
            while "to go" not in (line := process.stdout.readline()):
                assert line, "It ended by itself."
            struck = subprocess.run(
                [sys.executable, "-P", "-m", "paramserver", "chaos", "kill", "w1", "--run", "out"],
                cwd=mine,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            assert struck.stdout.startswith("worker1 (container "), struck.stderr
            again = "The container of worker 1 was ended by SIGKILL. It is started again (1 of 3)."
            while again not in (line := process.stdout.readline()):
                assert line, "It ended by itself."
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert summary(mine / "out")["outcome"] == "interrupted"
    assert summary(mine / "out")["samples"]["applied"] > 0
    assert len(read_checkpoint(mine / "out" / "checkpoint").versions) == 4
    for name in ("server0", "server1", "worker0"):
        assert "server 0 was stopped by SIGINT" in (mine / "out" / "logs" / f"{name}.log").read_text()
    assert left_behind(tools) == []


FAULTY = """
epochs = 25
servers = 2
lease_seconds = 3.0
restart_timeout = 60.0
checkpoint_every = "5"
"""
SLOWLY = "--chaos delay=100%+30ms"
"""Of servers: so a small job lasts as long as containers take to come and to come back."""


class Cluster:
    """The services of compose.yaml, as `docker compose up` has them, and what befalls them."""

    def __init__(self, tools, folder, run="mine", **environment):
        self.tools, self.run = tools, run
        self.environment = {"PARAMSERVER_JOB": str(folder), "PARAMSERVER_RUN": run, **environment}
        self.containers = Containers(
            tools, find_compose_file(), f"paramserver-{uuid.uuid4().hex[:8]}", 2, lambda _: None
        )

    def __enter__(self):
        self.server = [self._start("server", rank) for rank in range(2)]
        self._start("evaluator", 0)
        self.worker = [self._start("worker", rank) for rank in range(2)]
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            for each in self.containers.all:
                print(f"== {each.name}\n{each.logs()}", file=sys.stderr)
        self.containers.stop()
        self.containers.remove()

    def _start(self, role, rank):
        return self.containers.start(role, rank, self.environment)

    def add_worker(self):
        """Have one more worker, as `PARAMSERVER_WORKERS=3 docker compose up --detach worker` does."""
        self.environment["PARAMSERVER_WORKERS"] = str(len(self.worker) + 1)
        self.worker.append(self._start("worker", len(self.worker)))

    def ask(self, *words):
        return ask(self.tools.container, *words).strip()

    def kill(self, container):
        """Kill the program in a container, which is the end of that, and wait until it is started again."""
        before = int(self.ask("inspect", "--format", "{{.RestartCount}}", container.number))
        self.ask("exec", container.number, "sh", "-c", "kill -KILL -1")
        self.until(
            lambda: int(self.ask("inspect", "--format", "{{.RestartCount}}", container.number)) > before
        )

    def steps(self):
        """Return how many steps each replica has finished; of none while the first server is away."""
        lines = self.server[0].run("tail", "-n", "50", f"/runs/{self.run}/metrics.jsonl").splitlines()
        found = [json.loads(line) for line in lines if line.startswith('{"kind": "progress"')]
        return found[-1]["clocks"] if found else []

    def advance(self, replicas=4):
        """Wait until the job has come further, with so many replicas."""
        before = sum(self.steps())
        self.until(lambda: len(now := self.steps()) == replicas and sum(now) > before + 2 * replicas)

    @staticmethod
    def until(condition):
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline
            select.select([], [], [], 0.2)


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:2"])
def test_containers_die_and_come_and_the_job_goes_on(tools, mine, consistency):
    (mine / "job.toml").write_text(f'{FAULTY}consistency = "{consistency}"\n')
    with start(mine, "--engine", "sequential", "--out", "sequential") as process:
        process.communicate(timeout=SECONDS)
    mine.chmod(0o755)
    with Cluster(tools, mine, PARAMSERVER_SERVER_OPTIONS=SLOWLY) as cluster:
        cluster.advance()
        cluster.kill(cluster.worker[1])
        replicas = 4
        if consistency != "sync":  # there the weights tell that nothing else was done than without all this
            cluster.add_worker()
            replicas = 6
        cluster.advance(replicas)
        cluster.ask("restart", cluster.server[1].number)
        cluster.until(lambda: "goes on from checkpoint" in cluster.server[0].logs())
        assert "stopped by SIGTERM. The job waits" in cluster.server[1].logs()
        cluster.advance(replicas)
        cluster.kill(cluster.server[0])
        for each in cluster.containers.all:
            assert each.wait(SECONDS) == 0, each.logs()
        (mine / "out").mkdir()
        cluster.containers.fetch(cluster.server[0], "/runs/mine", mine / "out")
        found = summary(mine / "out")
        assert found["outcome"] == "finished"
        assert found["generation"] == 2
        assert found["validation"][-1]["accuracy"] > 0.5
        assert len(found["time_budget"]["workers"]) == replicas / 2
        if consistency == "sync":
            assert found["weights_sha256"] == summary(mine / "sequential")["weights_sha256"]
            assert found["visits"]["share"] == 1.0
    assert left_behind(tools) == []
