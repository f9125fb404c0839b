"""Runs that ended before their last step go on: where they were, if they ended in order or with a journal."""

import os
import signal

import pytest
from test_surviving import EPOCHS, QUICK, check_account, running

from paramserver.storage import newest_checkpoint, read_checkpoint, read_metrics

pytestmark = pytest.mark.chaos


def go_on(launcher, *options):
    """Go on with the run, and return its output and its summary."""
    code, out, err = launcher.command("--resume", str(launcher.out), *options)
    assert code == 0, err
    return out, launcher.summary()


def rounds_told(launcher):
    lines = [line for line in read_metrics(launcher.out / "metrics.jsonl") if line["kind"] == "progress"]
    return lines[-1]["rounds"]


@pytest.mark.parametrize("durability", ["checkpoint", "journal"])
def test_what_ended_in_order_goes_on_where_it_was(launcher, undisturbed, durability):
    # No checkpoint but that of the first weights is made while it runs.
    never = ("--checkpoint-every", "never", "--durability", durability)
    with running(launcher, *EPOCHS, "--lease-seconds", "2", *never, "--quiet") as run:
        run.until(launcher.training)
        run.process.send_signal(signal.SIGINT)
        code, _, _ = run.end()
    assert code == 130
    number, problems = newest_checkpoint(launcher.out)
    assert (number, problems) == (1, [])
    last = read_checkpoint(launcher.out / "checkpoint")
    assert last.manifest.details["rounds"] == rounds_told(launcher)
    out, summary = go_on(launcher, "--servers", "2")
    assert "The run goes on from checkpoint 1, which has " in out
    assert "done again" not in out
    assert summary["weights_sha256"] == undisturbed
    assert summary["gradients"].get("rolled_back", 0) == 0
    check_account(summary)


def test_what_failed_goes_on_where_it_was(launcher, undisturbed):
    options = (*EPOCHS, *QUICK, "--checkpoint-every", "never", "--max-restarts", "0", "--quiet")
    with running(launcher, *options) as run:
        run.until(launcher.training)
        run.hit("-m worker", "--worker 1 ", "--threads")
        code, _, err = run.end()
    assert code == 1
    assert "The process of worker 1 was ended by SIGKILL." in err
    assert newest_checkpoint(launcher.out) == (1, [])
    _, summary = go_on(launcher, "--servers", "3", "--shards", "1")
    assert summary["weights_sha256"] == undisturbed


def test_what_could_not_be_kept_at_the_end_is_said_to_be_done_again(launcher, undisturbed):
    two = ("--servers", "2", "--quiet", "--checkpoint-every", "never")
    with running(launcher, *EPOCHS, *QUICK, *two) as run:
        run.until(launcher.training)
    launcher.until(lambda: not launcher.processes())
    out, summary = go_on(launcher, "--servers", "1")
    assert "The run goes on from checkpoint 0, which has 0 of 440 steps. What came after it, about " in out
    assert " steps, is done again." in out
    assert summary["weights_sha256"] == undisturbed


def test_with_a_journal_it_goes_on_where_it_was_whatever_ended_it(launcher, undisturbed):
    options = (*EPOCHS, "--servers", "2", "--durability", "journal", "--checkpoint-every", "never")
    with running(launcher, *options, "--quiet") as run:
        run.until(launcher.training)
        told = rounds_told(launcher)
        # The launcher and all that it has started, in no order.
        for pid in [run.process.pid, *launcher.processes()]:
            os.kill(pid, signal.SIGKILL)
        run.process.communicate(timeout=30)
    launcher.until(lambda: not launcher.processes())
    out, summary = go_on(launcher)
    assert "What came after it is in its journal." in out
    assert summary["weights_sha256"] == undisturbed
    assert (summary["resumed"], summary["generation"]) == (True, 0)
    assert summary["gradients"].get("rolled_back", 0) == 0
    assert told > 0
    check_account(summary)


def test_with_a_journal_of_other_shards_it_goes_on_from_the_newest_checkpoint(launcher, undisturbed):
    options = (*EPOCHS, *QUICK, "--servers", "2", "--durability", "journal", "--quiet")
    with running(launcher, *options) as run:
        run.reach(3)
    launcher.until(lambda: not launcher.processes())
    out, summary = go_on(launcher, "--servers", "1", "--shards", "1")
    assert "is in its journal" not in out
    assert (summary["weights_sha256"], summary["generation"]) == (undisturbed, 1)


def test_where_every_checkpoint_is_torn_that_is_said(launcher):
    with running(launcher, *EPOCHS, *QUICK, "--quiet") as run:
        run.reach(2)
    launcher.until(lambda: not launcher.processes())
    for path in launcher.out.glob("checkpoints/*/*.safetensors"):
        os.truncate(path, path.stat().st_size - 1)
    code, out, err = launcher.command("--resume", str(launcher.out))
    assert (code, out) == (2, "")
    assert err.startswith(f"paramserver: {launcher.out} has no checkpoint to go on from. ")
    assert "It is torn, was changed, or belongs to another checkpoint." in err
