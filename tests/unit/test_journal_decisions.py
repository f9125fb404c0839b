"""What the coordinator has decided comes back, but for a decision that is torn."""

from dataclasses import replace

import pytest

from paramserver.events import (
    Counters,
    CutOrdered,
    JobRecord,
    JobSpec,
    Kept,
    MemberRecord,
    Ordered,
    RoundClosed,
    Standing,
    TensorSpec,
)
from paramserver.storage.journal import DecisionWriter, read_decisions

RECORD = JobRecord(
    JobSpec((TensorSpec("w", (2,)),), durability="journal"), 0, 3, True,
    (MemberRecord(0, "a", "x", 1, Standing.LIVE, False, 0, 2, 9, counters=Counters(loss=0.5)),), None, 1,
    rounds=2, begins={1: 4}, leavers=((1, 7),), gone=((2, 8),), ended="",
)  # fmt: skip
CUT, CLOSED = Ordered(CutOrdered(3, 0)), Ordered(RoundClosed(4, 2, (0, 1)), 1)


def write(run):
    writer = DecisionWriter(run)
    writer.begin(RECORD, [CUT])
    writer.append(None, [CLOSED])
    writer.append(replace(RECORD, orders=4), [])
    writer.sync()
    writer.close()
    (path,) = (run / "journal" / "coordinator").iterdir()
    return path


def test_decisions_come_back(tmp_path):
    write(tmp_path)
    assert read_decisions(tmp_path) == (replace(RECORD, orders=4), [CUT, CLOSED])


def test_a_torn_decision_never_was_one(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    assert read_decisions(tmp_path) == (RECORD, [CUT, CLOSED])


def test_a_new_file_takes_the_place_of_the_old_one(tmp_path):
    write(tmp_path)
    kept = replace(RECORD, kept=Kept(0, 2, {0: 2}))
    writer = DecisionWriter(tmp_path)
    writer.begin(kept, [CLOSED])
    writer.close()
    assert len(list((tmp_path / "journal" / "coordinator").iterdir())) == 1
    assert read_decisions(tmp_path) == (kept, [CLOSED])


@pytest.mark.parametrize("length", [0, 5, 8, 20])
def test_a_new_file_that_was_not_finished_leaves_the_old_one(tmp_path, length):
    old = write(tmp_path)
    old.with_name("000001.journal").write_bytes(old.read_bytes()[:length])
    assert read_decisions(tmp_path) == (replace(RECORD, orders=4), [CUT, CLOSED])


def test_without_a_journal_there_are_no_decisions(tmp_path):
    assert read_decisions(tmp_path) is None
