"""The command lines of the two programs, read without starting them."""

from pathlib import Path

import pytest

from paramserver.errors import RequestError
from server.options import read_options as read_server_options
from worker.options import read_options as read_worker_options


@pytest.mark.parametrize("read", [read_server_options, read_worker_options])
def test_an_unknown_option_comes_before_all_that_is_missing(read):
    with pytest.raises(RequestError, match=r"There is no option '--log-levle'|There is no option '--shrads'"):
        read(["--shrads=2"] if read is read_server_options else ["--log-levle", "debug"])


def test_what_a_worker_must_be_told_is_named():
    with pytest.raises(
        RequestError, match=r"The following arguments are required: --connect, --job\. See --help"
    ):
        read_worker_options([])


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--shards", "-1"], "--shards"),
        (["--connect-timeout", "soon"], "'soon'"),
        (["--listen", "here"], "'here'"),
        (["--streams-max", "9" * 32], "of at most 18 digits"),
        (["--waiting-pulls-max", "0"], "a number from 1, and found '0'"),
        (["--silence-seconds", "nan"], "expected seconds, and found 'nan'"),
    ],
)
def test_a_malformed_value_is_quoted(options, found):
    with pytest.raises(RequestError, match=found):
        read_server_options(options)


def test_a_worker_may_be_called_as_its_machine_is(monkeypatch):
    needed = ["--connect", "server0:7070", "--job", "job.toml"]
    monkeypatch.setattr("socket.gethostname", lambda: "c0ffee")
    assert read_worker_options([*needed, "--named-by-host"]).name == "c0ffee"
    assert read_worker_options([*needed, "--worker", "3"]).name == "worker3"
    assert read_worker_options(needed).name == "worker0"
    for besides in (["--worker", "3"], ["--named-in", "names"]):
        with pytest.raises(RequestError, match="all say what this worker is called"):
            read_worker_options([*needed, "--named-by-host", *besides])


def test_an_environment_may_name_the_python_file(monkeypatch):
    needed = ["--connect", "server0:7070", "--job", "job.toml"]
    for value, code in (("my_job.py", Path("my_job.py")), ("", None)):
        monkeypatch.setenv("PARAMSERVER_CODE", value)
        assert read_worker_options(needed).code == code
    assert read_worker_options([*needed, "--code", "other.py"]).code == Path("other.py")


def test_a_server_has_as_many_shards_as_the_job_says_unless_told_otherwise(tmp_path):
    job = tmp_path / "job.toml"
    job.write_text("shards = 5\n")
    assert read_server_options(["--job", str(job)]).shards == 5
    assert read_server_options(["--job", str(job), "--shards", "3"]).shards == 3


def test_a_server_takes_from_the_job_what_it_is_not_told(tmp_path):
    job = tmp_path / "job.toml"
    job.write_text('checkpoint_keep = 7\ndurability = "none"\n')
    needed = ["--job", str(job), "--out", str(tmp_path)]
    told = read_server_options(needed)
    assert (told.checkpoint_keep, told.recovers) == (7, False)
    assert read_server_options([*needed, "--checkpoint-keep", "2"]).checkpoint_keep == 2
    usual = read_server_options(needed[2:])
    assert (usual.shards, usual.checkpoint_keep, usual.recovers) == (1, 3, True)


def test_a_server_that_restarts_goes_on_with_what_is_there(tmp_path):
    told = read_server_options(["--restarts", "--out", str(tmp_path)])
    assert told.recover
    assert told.comes_back
    without = read_server_options(["--restarts", "--no-recovery", "--out", str(tmp_path)])
    assert not without.recover
    assert not without.comes_back
    with pytest.raises(RequestError, match="--restarts goes on with what a run folder has"):
        read_server_options(["--restarts"])
    assert read_server_options([]).shards == 1
    with pytest.raises(RequestError, match="cannot be read"):
        read_server_options(["--job", str(tmp_path / "nowhere.toml")])
