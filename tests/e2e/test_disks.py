"""A disk that is full or may not be written: a sentence, nothing half, and what was trained is there."""

import subprocess
from contextlib import suppress

import pytest
from test_surviving import EPOCHS, QUICK, running

from paramserver.storage import newest_checkpoint, read_checkpoint, read_job_record, read_metrics

pytestmark = pytest.mark.chaos

FULL = "cannot be written: No space left on device. Free some space"


@pytest.fixture
def disk(tmp_path, launcher):
    """A small disk of its own for the run folder."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    launcher.out = place / "run"
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk):
    """Leave no room on a disk."""
    with (disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def check_folder(launcher):
    """See that all that has a final name is whole."""
    for manifest in launcher.out.glob("checkpoint*/**/manifest.json"):
        read_checkpoint(manifest.parent)
    read_job_record(launcher.out)
    read_metrics(launcher.out / "metrics.jsonl")
    assert list(launcher.out.rglob("*.partial")) == []


def go_on(launcher):
    code, _, err = launcher.command("--resume", str(launcher.out))
    assert code == 0, err
    return launcher.summary()["weights_sha256"]


def test_a_disk_that_gets_full_stops_no_training_and_costs_nothing_that_was_kept(launcher, disk, undisturbed):
    with running(launcher, *EPOCHS, *QUICK, "--servers", "2", "--max-restarts", "0") as run:
        run.reach(2)
        fill(disk)
        code, out, err = run.end()
    # At the end there is no room for what has to be remembered.
    assert code == 1
    assert "Checkpoint " in out
    assert " could not be kept. " in out
    assert FULL in out
    assert "The training goes on, and tries again with the next one." in out
    assert FULL in err
    assert err.count("\n") == 1
    check_folder(launcher)
    kept, problems = newest_checkpoint(launcher.out)
    assert kept >= 2
    assert not problems
    (disk / "ballast").unlink()
    assert go_on(launcher) == undisturbed


def test_once_there_is_room_again_checkpoints_are_kept_again(launcher, disk, undisturbed):
    with running(launcher, *EPOCHS, *QUICK) as run:
        run.reach(2)
        fill(disk)
        run.read("could not be kept")
        kept = max(int(path.parent.name) for path in launcher.out.glob("checkpoints/*/manifest.json"))
        (disk / "ballast").unlink()
        run.reach(kept + 1)
        code, out, err = run.end()
    assert code == 0, err
    assert "Checkpoints are kept again." in out
    assert launcher.summary()["weights_sha256"] == undisturbed
    check_folder(launcher)


def test_a_journal_that_finds_no_room_ends_the_run_and_loses_nothing(launcher, disk, undisturbed):
    options = (*EPOCHS, *QUICK, "--durability", "journal", "--max-restarts", "0", "--quiet")
    with running(launcher, *options) as run:
        run.until(launcher.training)
        fill(disk)
        code, _, err = run.end()
    assert code == 1
    assert "cannot be written: No space left on device" in err
    assert err.count("\n") == 1
    check_folder(launcher)
    (disk / "ballast").unlink()
    assert go_on(launcher) == undisturbed


def test_a_disk_that_may_only_be_read_is_refused_before_anything_is_started(launcher, disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, out, err = launcher.run("--epochs", "1")
    assert (code, out) == (2, "")
    assert f"The folder {launcher.out} cannot be created: Read-only file system. Name another one." in err
