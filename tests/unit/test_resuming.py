"""What a run that has ended can go on from, and what is said where it cannot."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from paramserver.cli.resuming import read_resumed_job
from paramserver.errors import RequestError
from paramserver.events import JobRecord
from paramserver.job import Job
from paramserver.launch.progress import Silence
from paramserver.launch.resumption import reopen
from paramserver.storage import create_run_folder, write_job_record

JOB = Job().resolved()
SPEC = JOB.spec({"w": (2,)}, (5, 5, 5, 5))
PLAN = SimpleNamespace(job=JOB, spec=SPEC, steps=(5, 5, 5, 5))
RECORD = JobRecord(SPEC, 0, 1, True, (), None, 0)


def refusal(function, *arguments):
    with pytest.raises(RequestError) as refused:
        function(*arguments)
    return str(refused.value)


def test_a_run_that_goes_on_is_told_nothing_new(tmp_path):
    (tmp_path / "job.toml").write_text("epochs = 3\n")
    given = {"servers": 2, "shards": 3}
    assert read_resumed_job(tmp_path, {"--out": None}, given)[2] == given
    assert "--lr cannot be given with --resume" in refusal(read_resumed_job, tmp_path, {}, {"lr": 0.1})
    assert "--out cannot be given" in refusal(read_resumed_job, tmp_path, {"--out": tmp_path}, {})
    assert "has no job.toml" in refusal(read_resumed_job, tmp_path / "x", {}, {})
    assert "Leave --code out" in refusal(read_resumed_job, tmp_path, {}, {"code": "my.py"})


def test_code_of_ones_own_is_named_again(tmp_path):
    (tmp_path / "job.toml").write_text('code = "/home/me/my.py"\n')
    assert "add --code /home/me/my.py." in refusal(read_resumed_job, tmp_path, {}, {})
    assert read_resumed_job(tmp_path, {}, {"code": "my.py"})[2] == {"code": "my.py"}


@pytest.fixture
def run(tmp_path):
    create_run_folder(tmp_path / "run", 0.0).close()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("summary", "record", "plan", "sentence"),
    [
        ({"outcome": "finished"}, RECORD, PLAN, "has finished, so there is nothing to go on with"),
        ({"outcome": "failed"}, None, PLAN, "ended before its first checkpoint was made"),
        ({}, RECORD, PLAN, "has no checkpoint to go on from"),
        ({}, replace(RECORD, over=True), PLAN, "had done its last step"),
        ({}, RECORD, SimpleNamespace(job=replace(JOB, engine="sequential")), "Only a run of the engine"),
        (
            {},
            replace(RECORD, job=replace(SPEC, seed=7)),
            PLAN,
            "was another job than its job file gives now (now != then): seed: 0 != 7",
        ),
    ],
)
def test_a_run_without_a_way_on_is_refused(run, summary, record, plan, sentence):
    (run / "summary.json").write_text(json.dumps(summary))
    if record is not None:
        write_job_record(run, record)
    assert sentence in refusal(reopen, run, plan, Silence())
    assert (run / "summary.json").exists()
    assert not (run / "run.lock").exists()


def test_a_run_that_goes_on_already_is_refused(tmp_path):
    with create_run_folder(tmp_path / "run", 0.0):
        assert "is still going on" in refusal(reopen, tmp_path / "run", PLAN, Silence())
    assert "There is no folder" in refusal(reopen, tmp_path / "other", PLAN, Silence())
