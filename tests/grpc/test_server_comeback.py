"""A server that comes back goes on from the newest checkpoint that is not void."""

from __future__ import annotations

import select
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from raw import SECONDS, RawReplica, ServerProcess, wait_serving

from paramserver.events import (
    Cut,
    JobRecord,
    JobSpec,
    Kept,
    MemberRecord,
    Slice,
    Snapshot,
    Standing,
    TensorSpec,
)
from paramserver.storage import (
    checkpoint_folder,
    finish_checkpoint,
    read_job_record,
    write_cut,
    write_job_record,
)

JOB = JobSpec((TensorSpec("w", (2,)),))
PART = Slice("w", 0, 2, 0)


def write(run: Path, number: int) -> Kept:
    """Write a checkpoint after so many rounds."""
    folder = checkpoint_folder(run, number)
    weights = Snapshot(number, number, {PART: np.full(2, number, np.float32)})
    file = write_cut(folder, Cut(0, weights, {PART: {}}, {0: number}, {}), 1, 0)
    finish_checkpoint(folder, JOB, [file], 0, number)
    return Kept(number, number, {0: number})


def test_a_checkpoint_of_a_generation_that_is_over_is_passed_over(tmp_path: Path) -> None:
    # Checkpoint 5 became whole while a server was lost, and the job went on from 4.
    kept, _ = write(tmp_path, 4), write(tmp_path, 5)
    replica = MemberRecord(0, "w/0", "first", 1, Standing.LIVE, False, 0, 6, 9)
    write_job_record(tmp_path, JobRecord(JOB, 1, 20, True, (replica,), kept, cuts=6))
    with ServerProcess("--out", str(tmp_path), "--recover") as server:
        wait_serving(server)
        back = RawReplica(server, JOB)
        assert (back.replica.incarnation, back.clock) == (2, 4)
        header, values = back.pull(generation=2)
        back.close()
    assert (header.version, header.rounds) == (4, 4)
    assert np.frombuffer(values["w"], "<f4").tolist() == [4, 4]


def test_without_room_for_more_the_newest_checkpoint_takes_the_place_of_the_one_before(
    tmp_path: Path,
) -> None:
    kept = write(tmp_path, 4)
    replica = MemberRecord(0, "w/0", "first", 1, Standing.LIVE, False, 0, 4, 9)
    job = replace(JOB, checkpoint_updates=1)
    write_job_record(tmp_path, JobRecord(job, 0, 20, True, (replica,), kept, cuts=5))
    with ServerProcess("--out", str(tmp_path), "--recover", "--checkpoint-keep", "1") as server:
        wait_serving(server)
        back = RawReplica(server, job)
        back.pull(generation=1)
        back.push(generation=1, version=4)
        deadline = time.monotonic() + SECONDS
        while checkpoint_folder(tmp_path, 4).exists() and time.monotonic() < deadline:
            select.select([], [], [], 0.02)
        back.close()
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["000005"]
    assert read_job_record(tmp_path).kept == Kept(5, 5, {0: 5})
