"""The trace file: what is written is read back, and what is no trace of ours is refused with a sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.errors import RequestError
from paramserver.tracing import (
    COLOURS,
    Arrow,
    Recorder,
    Row,
    Span,
    chrome_trace,
    read_chrome_trace,
    read_trace_notes,
)

TIMES = st.integers(0, 10**15)  # eleven days
NOTES = st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False))
ROWS = st.builds(Row, st.text(max_size=3), st.text(max_size=3))
SPANS = st.builds(
    lambda row, name, begin, lasts, notes: Span(row, name, begin, begin + lasts, notes),
    ROWS,
    st.sampled_from(sorted(COLOURS)),
    TIMES,
    TIMES,
    NOTES,
)
ARROWS = st.builds(Arrow, st.text(), st.sampled_from(["leaves", "passes", "arrives"]), ROWS, TIMES)


@given(st.lists(SPANS | ARROWS), st.lists(ROWS, unique=True), NOTES)
def test_what_is_written_is_read_back(records, rows, notes):
    data = chrome_trace(records, rows, notes)
    found_rows, found_records = read_chrome_trace(data)
    assert found_records == tuple(records)
    assert found_rows[: len(rows)] == tuple(rows)
    assert set(found_rows) == {*rows, *(record.row for record in records)}
    assert read_trace_notes(data) == notes
    assert chrome_trace(found_records, found_rows, notes) == data


EVENTS = json.loads(chrome_trace([Span(Row("server0", "shard 0"), "apply", 1, 2)]))["traceEvents"]


def changed(**values):
    return json.dumps({"traceEvents": [*EVENTS[:-1], EVENTS[-1] | values]}).encode()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The trace is not JSON"),
        (b"\xff\xfe\x00", "The trace is not JSON"),
        (b"[" * 100_000, "The trace is not JSON"),
        (b"[]", "no list 'traceEvents'"),
        (b'{"traceEvents": 3}', "no list 'traceEvents'"),
        (b'{"traceEvents": [3]}', "Event 1 of the trace is none that paramserver writes: 3"),
        (changed(ph="B"), "Event 5 of the trace is none"),
        (changed(tid=7), "Event 5"),
        (changed(tid=[]), "Event 5"),
        (changed(name=None), "Event 5"),
        (changed(cat="other"), "Event 5"),
        (changed(ts="now"), "Event 5"),
        (changed(ts=float("inf")), "Event 5"),
        (changed(ts=float("nan")), "Event 5"),
        (changed(dur=-1), "Event 5"),
        (changed(args=[]), "Event 5"),
        (changed(args={"gradients": [1]}), "Event 5"),
    ],
)
def test_what_is_no_trace_of_ours_is_refused(data, sentence):
    with pytest.raises(RequestError, match=sentence) as caught:
        read_chrome_trace(data)
    assert "paramserver train --trace" in str(caught.value)


def test_notes_that_are_none_are_refused():
    with pytest.raises(RequestError, match="notes of the trace"):
        read_trace_notes(b'{"otherData": {"a": []}, "traceEvents": []}')


def test_a_recorder_keeps_the_newest_and_counts_the_others():
    row = Row("server0", "shard 0")
    recorder = Recorder(2)
    spans = [Span(row, "apply", number, number) for number in range(5)]
    for span in spans:
        recorder.add(span)
    assert recorder.records() == tuple(spans[-2:])
    assert recorder.forgotten == 3
