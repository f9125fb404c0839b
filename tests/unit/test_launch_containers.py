"""The engine of containers without one: what is found, what is refused, what is laid ready, what is shown."""

import signal
from dataclasses import fields, replace
from pathlib import Path

import pytest

from paramserver.errors import JobError, RequestError
from paramserver.job import Job
from paramserver.job_toml import job_from_toml
from paramserver.launch import cluster, containers
from paramserver.launch.engine import start_all
from paramserver.launch.log_cap import LOG_BYTES_MIN
from paramserver.launch.processes import find_process, write_containers
from paramserver.launch.telemetry import Telemetry
from paramserver.storage import create_run_folder

COMPOSE = Path(__file__).parents[2] / "compose.yaml"


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """Make a container engine of a shell script that answers nothing but its version."""

    def make(*names, answers=True):
        for name in names:
            script = tmp_path / "bin" / name
            script.parent.mkdir(exist_ok=True)
            script.write_text("#!/bin/sh\necho it is\n" if answers else "#!/bin/sh\nexit 1\n")
            script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COMPOSE_FILE", str(COMPOSE))
    return make


def test_without_an_engine_there_is_a_sentence(engine):
    with pytest.raises(RequestError, match="needs a container engine, and none answers here"):
        containers.find_tools()
    engine("docker", answers=False)
    with pytest.raises(RequestError, match="none answers here"):
        containers.find_tools()


def test_docker_comes_before_podman(engine):
    engine("podman", "podman-compose")
    assert containers.find_tools() == containers.Tools(("podman-compose",), "podman")
    engine("docker")
    assert containers.find_tools() == containers.Tools(("docker", "compose"), "docker")


def scripted(monkeypatch, tmp_path, script):
    """Make a container engine of a shell script, which can use $words, its arguments."""
    path = tmp_path / "bin" / "podman"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nwords="$*"\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return containers.Container("worker 1", "c0ffee", containers.Tools(("podman-compose",), "podman"))


@pytest.mark.parametrize(
    ("state", "code", "ending"),
    [
        ("running 0", None, "is still running"),
        ("exited 0", 0, "ended with exit code 0"),
        ("exited 137", -9, "was ended by SIGKILL"),
        ("exited 255", 255, "ended with exit code 255"),
    ],
)
def test_how_a_container_ended(monkeypatch, tmp_path, state, code, ending):
    container = scripted(
        monkeypatch, tmp_path, f'case "$words" in inspect*) echo {state};; *) echo So long.;; esac'
    )
    assert container.code == code
    assert container.epitaph() == f"The container of worker 1 {ending}. Its last words: So long."


def test_a_container_that_cannot_be_started_again_ends_the_job(monkeypatch, tmp_path):
    container = scripted(monkeypatch, tmp_path, "exit 1")
    with pytest.raises(JobError, match="worker 1 cannot be started again"):
        container.start_again()


def test_a_container_of_a_run_is_struck_by_its_engine(monkeypatch, tmp_path):
    script = f'echo "$words" >>{tmp_path}/said; echo true'
    container = scripted(monkeypatch, tmp_path, script)
    with create_run_folder(tmp_path / "out", 0.0) as folder:
        write_containers(folder, [container])
        found = find_process(folder.path, "w1")
        assert (found.name, found.where) == ("worker1", "container c0ffee")
        found.send(signal.SIGSTOP)
        assert (tmp_path / "said").read_text().splitlines()[
            -1
        ] == f"exec c0ffee sh -c kill -{signal.SIGSTOP.value} -1"
        scripted(monkeypatch, tmp_path, "echo false")
        with pytest.raises(JobError, match=r"The container of worker1 \(c0ffee\) has ended"):
            found.send(signal.SIGKILL)


def test_logs_of_containers_have_no_limit_of_ours():
    with pytest.raises(RequestError, match="those of containers are kept by their engine"):
        Telemetry(log_bytes_max=LOG_BYTES_MIN).check(Job(engine="compose"))


def test_a_cluster_has_as_many_servers_as_its_file(engine, monkeypatch, tmp_path):
    engine("docker")
    assert containers.servers_of(containers.find_compose_file()) == 2
    cluster.check_cluster(Job(servers=2))
    with pytest.raises(RequestError, match="has 2 servers, and the job wants 3"):
        cluster.check_cluster(Job(servers=3))
    with pytest.raises(RequestError, match="records no trace"):
        cluster.check_cluster(Job(trace=True))
    monkeypatch.setenv("COMPOSE_FILE", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(RequestError, match=r"There is no .*nowhere\.yaml"):
        cluster.check_cluster(Job())


def test_what_a_job_needs_is_laid_where_anybody_may_read_it(tmp_path):
    mine, stage = tmp_path / "mine", tmp_path / "stage"
    mine.mkdir(mode=0o700)
    stage.mkdir(mode=0o700)
    for name in ("my_job.py", "beside.py", "table.csv", "secret.txt"):
        (mine / name).write_text(name)
        (mine / name).chmod(0o600)
    job = Job(data=str(mine / "table.csv"), model="code", code=str(mine / "my_job.py"))
    cluster._stage(job, stage)
    assert {path.name for path in stage.iterdir()} == {"job.toml", "my_job.py", "beside.py", "table.csv"}
    assert job_from_toml((stage / "job.toml").read_text(), "job.toml").data == "table.csv"
    assert all(path.stat().st_mode & 0o004 for path in [stage, *stage.iterdir()])


def test_every_key_of_a_job_reaches_the_cluster(tmp_path):
    """A key that is added to a job is among these by itself."""
    changed = {str: lambda value: f"{value}x", int: lambda value: value + 1, float: lambda value: value + 1.0}
    changed[bool] = lambda value: not value
    job = Job(**{each.name: changed[type(each.default)](each.default) for each in fields(Job)})
    cluster._stage(replace(job, data="digits", code=""), tmp_path)
    staged = job_from_toml((tmp_path / "job.toml").read_text(), "job.toml")
    assert staged == replace(job, data="digits", code="", data_dir="")


def test_a_diary_that_is_cut_or_new_is_understood():
    assert cluster.moment_of("", 10) is None
    assert cluster.moment_of('{"kind": "sco', 10) is None
    score = '{"kind": "score", "split": "validation", "accuracy": 0.75}'
    progress = '{"kind": "progress", "clocks": [9, 9], "samples": {}, "loss": null}'
    moment = cluster.moment_of(f"oss: 1}}\n{progress}\n{score}\n", 10)
    assert moment is not None
    assert (moment.fraction, moment.samples, moment.accuracy) == (1.0, 0, 0.75)


def test_programs_are_started_in_order_with_their_environment():
    started = []

    class Notes:
        def start(self, role, rank, environment):
            started.append((role, rank, dict(environment)))
            return len(started)

    assert start_all(Notes(), 2, 2, {"A": "1"}) == [1, 2, 3, 4, 5]
    assert [(role, rank) for role, rank, _ in started] == [
        ("server", 0),
        ("server", 1),
        ("evaluator", 0),
        ("worker", 0),
        ("worker", 1),
    ]
    assert all(environment == {"A": "1"} for _, _, environment in started)


def test_the_compose_file_publishes_no_port_and_waits_for_its_keys_alone():
    text = COMPOSE.read_text()
    assert "ports:" not in text
    assert "--insecure" not in text
    assert text.count("condition:") == 1
    assert "depends_on: &after_certs\n    certs:\n      condition: service_completed_successfully" in text
