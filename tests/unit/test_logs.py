"""Logs as lines for people, and as JSON for whatever collects them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from paramserver.errors import RequestError
from paramserver.job import Job
from paramserver.launch.loglines import LogLines
from paramserver.launch.progress import Moment
from paramserver.launch.telemetry import Telemetry
from paramserver.logs import JsonFormatter, announce, complain, fields, said, set_up_logs

log = logging.getLogger("server")


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """Give the root logger back what it had."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_a_json_line_has_time_level_process_message_and_what_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logs("json", "info", "server", 1, "server")
    log.info("Replica %d joined.\nReally.", 3, extra=fields(rank=3, shard=None))
    log.debug("Nobody hears this.")
    [line] = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "info",
        "logger": "server",
        "role": "server",
        "index": 1,
        "process": "server",
        "message": "Replica 3 joined.\nReally.",
        "rank": 3,
    }


def test_a_traceback_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("json", "info", "worker", None, "host")
    try:
        raise ValueError("so it is")
    except ValueError:
        log.exception("It failed.")
    [line] = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert "ValueError: so it is" in told["traceback"]
    assert "index" not in told


def test_time_is_of_the_record() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "", None, None)
    record.created, record.msecs = 0.25, 250.0
    assert (
        json.loads(JsonFormatter("train", None, "train").format(record))["time"] == "1970-01-01T00:00:00.250Z"
    )


def test_a_text_line_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("text", "warning", "worker", 0, "worker0")
    log.info("Nobody hears this.")
    log.warning("Attention.", extra=fields(rank=3))
    line = capsys.readouterr().err
    assert line.endswith(" WARNING worker0: Attention.\n")
    assert line[2] == line[5] == ":"


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_is_announced_or_complained_of_is_in_the_form_of_the_logs(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logs(form, "info", "server", 0, "server")
    announce("listening h:1")
    complain("Why.")
    out, err = capsys.readouterr()
    assert said(out.rstrip("\n")) == "listening h:1"
    assert said(err.rstrip("\n")) == ("Why." if form == "json" else "paramserver: Why.")
    assert out.startswith("{") == err.startswith("{") == (form == "json")


@pytest.mark.parametrize("line", ["", "{", "{not json}", '{"level": 1}', "[1]", "{1: 2}"])
def test_what_is_no_json_says_itself(line: str) -> None:
    assert said(line) == line


def test_progress_is_a_log_line_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("json", "info", "train", None, "train")
    lines = LogLines()
    lines.note("Training.\nThe run folder is x.")
    lines.update(Moment(0.0, 0))
    lines.update(Moment(0.25, 80, 0.5))
    lines.update(Moment(0.5, 160, 0.5))  # too soon after
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [each["message"].partition(",")[0] for each in told] == [
        "Training.",
        "The run folder is x.",
        "25%",
    ]
    assert (told[2]["fraction"], told[2]["samples"], told[2]["loss"]) == (0.25, 80, 0.5)
    assert "accuracy" not in told[2]


def test_ports_of_metrics_follow_each_other() -> None:
    telemetry = Telemetry("json", "debug", 9100)
    assert telemetry.options(2)[-2:] == ["--metrics-port", "9102"]
    assert telemetry.options() == ["--log-format", "json", "--log-level", "debug"]
    assert Telemetry(metrics_port=0).options(2)[-2:] == ["--metrics-port", "0"]


@pytest.mark.parametrize(
    ("port", "job", "sentence"),
    [
        (65535, Job(servers=2), "from 0 to 65535"),
        (-1, Job(), "from 0 to 65535"),
        (0, Job(engine="sequential"), "the engine of this job is 'sequential'"),
    ],
)
def test_metrics_that_cannot_be_are_refused(port: int, job: Job, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        Telemetry(metrics_port=port).check(job)
    Telemetry(metrics_port=65535).check(Job())


def test_metrics_without_their_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'paramserver\[metrics\]'"):
        Telemetry(metrics_port=0).check(Job())
    Telemetry().check(Job())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--log-format", "jsn"), "--log-format is one of text, json, not 'jsn'. Did you mean 'json'?"),
        (("--log-level", "loud"), "--log-level is one of debug, info, warning, error, not 'loud'."),
    ],
)
def test_a_misspelt_form_of_logs_is_told(options: tuple[str, ...], sentence: str) -> None:
    command = [sys.executable, "-P", "-m", "paramserver", "train", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, f"paramserver: {sentence}\n")
