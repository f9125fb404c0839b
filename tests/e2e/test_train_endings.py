"""Runs that do not reach their end leave a sentence, an exit code and no process."""

import os
import signal

import pytest

ENDLESS = ("--epochs", "1000000", "--quiet", "--max-restarts", "0")


@pytest.fixture
def endless(launcher):
    """A run that is training and would go on for hours."""
    with launcher.start(*ENDLESS) as process:
        try:
            launcher.until(lambda: launcher.training() or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            yield process
        finally:
            process.kill()


def find(launcher, *words):
    """Return the process id of the one child whose command line has these words."""
    [pid] = [pid for pid, line in launcher.processes().items() if all(word in line for word in words)]
    return pid


def test_kill_9_of_the_launcher_leaves_no_process(launcher, endless):
    assert len(launcher.processes()) == 4
    endless.kill()
    launcher.until(lambda: not launcher.processes())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_in_order(launcher, endless, number, code):
    endless.send_signal(number)
    out, err = endless.communicate(timeout=60)
    assert endless.returncode == code
    assert (out, err) == (
        "",
        f"paramserver: Interrupted by {number.name}. Every process of the job has ended.\n",
    )
    assert launcher.processes() == {}
    assert launcher.summary()["outcome"] == "interrupted"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("-m server",), "server 0"),
        (("-m worker", "--worker 1", "--threads"), "worker 1"),
        (("-m worker", "--evaluate"), "evaluator"),
    ],
)
def test_a_process_that_dies_ends_the_job_and_is_named(launcher, endless, words, name):
    os.kill(find(launcher, *words), signal.SIGKILL)
    _, err = endless.communicate(timeout=60)
    assert endless.returncode == 1
    assert err.startswith(f"paramserver: The process of {name} was ended by SIGKILL.")
    assert err.count("\n") == 1
    assert launcher.processes() == {}
    assert launcher.summary()["outcome"] == "failed"


def test_two_runs_cannot_share_a_folder(launcher, endless):
    with launcher.start("--epochs", "1") as second:
        _, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "is in use by another run" in err
    assert endless.poll() is None


def test_an_interrupted_loop_ends_at_once(launcher):
    with launcher.start("--engine", "sequential", *ENDLESS) as process:
        launcher.until(launcher.training)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("paramserver: Interrupted by SIGINT.")
