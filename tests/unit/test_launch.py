"""The parts of a launch that need no job: programs, children, signals, progress, histograms."""

import io
import os
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from paramserver.errors import JobError, RequestError
from paramserver.job import Job
from paramserver.job_toml import job_from_toml
from paramserver.launch.children import Children
from paramserver.launch.interruption import Interrupted, Interruption
from paramserver.launch.live import make_reporter
from paramserver.launch.plan import make_plan
from paramserver.launch.programs import _check_is_ours, blas_environment
from paramserver.launch.progress import Moment, PlainLines, Silence, Speed
from paramserver.launch.report import bar, histogram_rows


def never():
    return False


def test_another_package_of_that_name_is_told(tmp_path):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__init__.py").touch()
    with pytest.raises(RequestError, match="Another package named 'server' is installed at") as refusal:
        _check_is_ours("server", [str(tmp_path)])
    assert str(tmp_path) in str(refusal.value)


def test_a_folder_or_nothing_of_that_name_is_told(tmp_path):
    with pytest.raises(RequestError, match="'worker', which is part of paramserver, is not where"):
        _check_is_ours("worker", [str(tmp_path)])
    (tmp_path / "worker").mkdir()
    with pytest.raises(RequestError, match="a folder without code"):
        _check_is_ours("worker", [str(tmp_path)])


def test_blas_threads_0_leaves_the_environment_alone():
    assert blas_environment(0) == {}
    assert set(blas_environment(3).values()) == {"3"}


def test_a_child_that_fails_has_an_epitaph(tmp_path):
    with Children(tmp_path, never) as children:
        child = children.start(
            "server 0", [sys.executable, "-c", "print('so it is'); print(); raise SystemExit(3)"], {}
        )
        while child.code is None:
            os.sched_yield()
        assert children.failed() == [child]
        assert child.epitaph() == "The process of server 0 ended with exit code 3. Its last words: so it is"
    assert (tmp_path / "server0.log").read_text() == "so it is\n\n"


def test_children_that_ignore_being_asked_are_killed_and_hurry_is_heard(tmp_path):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\n"
        "while True: time.sleep(60)"
    )
    with Children(tmp_path, lambda: True) as children:
        child = children.start("server 0", [sys.executable, "-c", stubborn], {})
        while child.find("(ready)") is None:
            assert child.code is None
    assert child.code == -signal.SIGKILL
    assert child.epitaph() == "The process of server 0 was ended by SIGKILL. Its last words: ready"


def test_a_child_holds_a_pipe_that_closes_with_the_parent(tmp_path):
    with Children(tmp_path, never) as children:
        child = children.start(
            "server 0", [sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(5)"], {}
        )
        child.close()
        while child.code is None:
            os.sched_yield()
        assert child.code == 5


def test_a_program_that_cannot_be_started_is_a_sentence(tmp_path):
    with (
        Children(tmp_path, never) as children,
        pytest.raises(JobError, match="server 0 cannot be started"),
    ):
        children.start("server 0", [str(tmp_path / "nothing")], {})


def test_a_signal_wakes_a_wait_and_is_raised_with_its_exit_code():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM") as interrupted:
            interruption.wait(3600)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.count == 2
        with pytest.raises(Interrupted, match="SIGTERM"):  # the first one counts
            interruption.check()
    assert interrupted.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            interruption.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_are_started_before_grpc_is_loaded():
    program = "import sys; import paramserver.launch.run; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_plain_lines_come_every_few_seconds_and_say_what_is_known():
    lines, now = [], [0.0]
    reporter = PlainLines(lines.append, lambda: now[0], line_seconds=3.0)
    reporter.update(Moment(0.0, 0))
    for second in range(1, 8):
        now[0] = float(second)
        reporter.update(Moment(second / 100, second * 50, 0.5, 0.875 if second > 4 else None))
    assert lines == [
        "  1%, 1:39 min to go, loss 0.500, 50 samples/s",
        "  4%, 1:36 min to go, loss 0.500, 50 samples/s",
        "  7%, 1:33 min to go, loss 0.500, validation 0.875, 50 samples/s",
    ]


def test_speed_looks_back_over_its_window_only():
    speed = Speed(window_seconds=10.0)
    assert speed.samples_per_second is None
    for second in range(21):
        speed.see(second, Moment(second / 40, 10 * second if second < 10 else 100 + 30 * (second - 10)))
    assert speed.samples_per_second == pytest.approx(30.0)
    assert speed.seconds_to_go == pytest.approx(20.0)


def test_speed_does_not_fall_between_two_heartbeats_but_in_a_stall():
    speed = Speed()
    speed.see(0.0, Moment(0.0, 0))
    speed.see(1.0, Moment(0.1, 100))
    speed.see(1.9, Moment(0.1, 100))
    assert speed.samples_per_second == pytest.approx(100)
    speed.see(4.0, Moment(0.1, 100))
    assert speed.samples_per_second == pytest.approx(25)


def test_quiet_shows_nothing_and_a_pipe_gets_no_codes():
    stream = io.StringIO()
    assert isinstance(make_reporter(Console(file=stream, force_terminal=False), quiet=True), Silence)
    reporter = make_reporter(Console(file=stream, force_terminal=False, width=80), quiet=False)
    reporter.note(
        "[bold]A path of /more/than/eighty/characters is not broken into two lines by anyone[/bold]."
    )
    reporter.update(Moment(0.5, 10))
    reporter.close()
    first, _, rest = stream.getvalue().partition("\n")
    assert first.startswith("[bold]A path")
    assert first.endswith("[/bold].")
    assert rest == " 50%\n"


def test_a_histogram_of_many_values_has_few_rows_and_loses_none():
    histogram = {str(value): value + 1 for value in range(95)}
    rows = histogram_rows(histogram, bound=None)
    assert len(rows) == 10
    assert sum(count for _, _, count in rows) == sum(histogram.values())
    assert histogram_rows({"0": 4}, bound=1000) == [(0, 0, 4)]
    assert histogram_rows({}, bound=3) == []
    assert histogram_rows({"-1": 2, "1": 2}, bound=1) == [(-1, -1, 2), (0, 0, 0), (1, 1, 2)]


def test_bars_are_never_longer_than_their_cells():
    assert bar(1.0, 30) == "█" * 30
    assert bar(0.0, 30) == ""
    assert bar(1.0, 30, blocks=False) == "#" * 30


def test_a_planned_job_can_be_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = make_plan(Job(epochs=2, data_dir="data"))
    assert job_from_toml(plan.job.to_toml(), "job.toml") == plan.job
    assert plan.job.data_dir == str(tmp_path / "data")
    assert plan.job.lr > 0
    assert len(plan.steps) == 4


def test_the_last_words_are_of_what_failed(tmp_path):
    log = tmp_path / "server0.log"
    with Children(tmp_path, lambda: False) as children:
        child = children.start("server 0", [sys.executable, "-c", "pass"], {})
        child.wait(30)
        log.write_text("10:00:00 ERROR server: No room.\n10:00:01 INFO server: Server 1 was lost.\n")
        assert child.last_line() == "10:00:00 ERROR server: No room."
        log.write_text("10:00:00 ERROR server: The server failed inside.\nTraceback\nValueError: 7\n")
        assert child.last_line() == "ValueError: 7"
