"""Traces of processes: each a bounded file of its own, and one of them all on one clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from paramserver.diaries import replica_row, shard_row
from paramserver.errors import JobError, RequestError
from paramserver.storage import trace_file
from paramserver.storage.trace_file import TraceFile, merge_traces
from paramserver.tracing import (
    Arrow,
    Note,
    Record,
    Row,
    Span,
    chrome_trace,
    read_chrome_trace,
    read_trace_notes,
)

SHARD, REPLICA = shard_row(0, 0), replica_row("worker0/0")


def part(row: Row, *records: Record, **notes: Note) -> bytes:
    """Return what one process writes."""
    known: dict[str, Note] = {"clock": "here", "monotonic_ns": 0, "unix_ns": 0, "forgotten": 0}
    return chrome_trace(records, [row], {**known, **notes})


def times(data: bytes) -> list[tuple[str, int, int]]:
    """Return thread, beginning and end of every span."""
    _, records = read_chrome_trace(data)
    return [(each.row.thread, each.begin, each.end) for each in records if isinstance(each, Span)]


def test_a_process_writes_its_rows_in_order_and_when_training_began(tmp_path: Path) -> None:
    rows = [shard_row(1, 3), shard_row(1, 2)]
    trace = TraceFile(tmp_path / "t.json", rows)
    begin = trace.now()
    span = Span(rows[0], "apply", begin, trace.now(), {"gradients": 1})
    trace.recorders[rows[0]].add(span)
    trace.write(training_began=1e6)
    data = (tmp_path / "t.json").read_bytes()
    assert read_chrome_trace(data) == (tuple(rows), (span,))
    notes = read_trace_notes(data)
    assert notes["training_began_ns"] == 10**15 - int(notes["monotonic_ns"])
    assert notes["forgotten"] == 0
    assert 0 <= begin <= span.end
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_a_process_keeps_the_newest_of_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_file, "RECORDS_MAX", 4)
    trace = TraceFile(tmp_path / "t.json", [SHARD, REPLICA])
    for at in range(5):
        trace.recorders[SHARD].add(Span(SHARD, "apply", at, at))
    trace.recorders[REPLICA].add(Span(REPLICA, "pull", 9, 9))
    trace.write()
    data = (tmp_path / "t.json").read_bytes()
    assert times(data) == [("shard 0", 3, 3), ("shard 0", 4, 4), ("worker0/0", 9, 9)]
    assert read_trace_notes(data)["forgotten"] == 3


def test_a_trace_has_to_have_a_folder_and_a_disk_that_takes_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no folder"):
        TraceFile(tmp_path / "none" / "t.json", [SHARD])
    (tmp_path / "t.json").mkdir()
    with pytest.raises(JobError, match="cannot be written"):
        TraceFile(tmp_path / "t.json", [SHARD]).write()


def test_processes_of_one_machine_share_its_steady_clock() -> None:
    server = part(SHARD, Span(SHARD, "apply", 60, 70), monotonic_ns=1000, unix_ns=5, training_began_ns=50)
    worker = part(REPLICA, Span(REPLICA, "pull", 0, 5), monotonic_ns=1060, unix_ns=999)
    assert times(merge_traces([server, worker], {})) == [("shard 0", 10, 20), ("worker0/0", 10, 15)]


def test_processes_of_two_machines_are_brought_together_by_the_calendar() -> None:
    server = part(SHARD, Span(SHARD, "apply", 60, 70), monotonic_ns=1000, unix_ns=7000, training_began_ns=50)
    worker = part(REPLICA, Span(REPLICA, "pull", 1, 5), clock="there", monotonic_ns=3, unix_ns=7055)
    assert times(merge_traces([server, worker], {})) == [("worker0/0", 6, 10), ("shard 0", 10, 20)]


def test_time_counts_from_the_beginning_of_training() -> None:
    server = part(SHARD, training_began_ns=50)
    pull, wait = Span(REPLICA, "pull", 10, 60), Span(REPLICA, "wait", 20, 55)
    worker = part(REPLICA, Span(REPLICA, "pull", 1, 9), pull, wait, Arrow("x", "arrives", REPLICA, 40))
    data = merge_traces([server, worker], {"missing": "worker 1"})
    assert times(data) == [("worker0/0", 0, 10), ("worker0/0", 0, 5)]
    assert read_chrome_trace(data)[0] == (SHARD, REPLICA)
    assert read_trace_notes(data) == {"time": "real", "missing": "worker 1", "forgotten": 0}


def test_without_the_coordinator_time_counts_from_the_first_record() -> None:
    files = [
        part(replica_row(f"worker{i}/0"), Span(replica_row(f"worker{i}/0"), "pull", 7 - i, 9)) for i in (0, 1)
    ]
    assert times(merge_traces(files, {})) == [("worker1/0", 0, 3), ("worker0/0", 1, 3)]


def test_the_whole_keeps_the_newest_and_counts_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_file, "MERGED_MAX", 3)
    one = part(SHARD, *(Span(SHARD, "apply", at, at) for at in (0, 10, 20)), forgotten=5)
    two = part(REPLICA, *(Span(REPLICA, "pull", at, at) for at in (5, 15)), forgotten=1)
    data = merge_traces([one, two], {})
    assert times(data) == [("shard 0", 0, 0), ("worker0/0", 5, 5), ("shard 0", 10, 10)]
    assert read_trace_notes(data)["forgotten"] == 8


def test_no_process_left_anything() -> None:
    data = merge_traces([], {"missing": "server 0, worker 0"})
    assert read_chrome_trace(data) == ((), ())


@pytest.mark.parametrize("data", [b"{}", chrome_trace([], [SHARD]), part(SHARD, monotonic_ns="soon")])
def test_what_is_no_trace_of_a_process_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError, match=r"--trace"):
        merge_traces([data], {})
