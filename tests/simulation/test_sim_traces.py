"""Traces of worlds in which something goes wrong."""

from itertools import pairwise

from virtual import LAN, simulate

from paramserver.tracing import Span, read_chrome_trace, read_trace_notes


def spans_by_row(records):
    rows = {}
    for record in records:
        if isinstance(record, Span):
            rows.setdefault(record.row.thread, []).append(record)
    return rows


def test_a_pull_that_is_sent_again_is_one_pull():
    run = simulate("1ms", LAN, "lose=5%", consistency="async", steps=50, seed=3, trace_max=100_000)
    rows = spans_by_row(run.trace)
    for thread in ("worker0/0", "worker1/0", "worker2/0", "worker3/0"):
        main = sorted((span for span in rows[thread] if span.name != "wait"), key=lambda span: span.begin)
        assert [span.name for span in main] == ["pull", "compute", "push"] * 50 + ["pull"]
        assert all(one.end == following.begin for one, following in pairwise(main))
    slow = [
        span for row in rows.values() for span in row if span.name == "pull" and span.end - span.begin > 5e7
    ]
    assert slow  # else no pull was sent again


def test_a_crash_cuts_off_what_the_replica_was_about():
    run = simulate("10ms", LAN, "crash=w1@55ms", consistency="async", steps=20, trace_max=100_000)
    rows = spans_by_row(run.trace)
    cut = [span for row in rows.values() for span in row if "unfinished" in span.notes]
    assert [(span.row.thread, span.end) for span in cut] == [("worker1/0", 55_000_000)]
    assert cut[0] is rows["worker1/0"][-1]


def test_the_file_counts_from_the_beginning_of_training_and_says_what_it_lost():
    run = simulate("10ms", LAN, steps=20, trace_max=100_000)
    assert run.began_ns > 0
    _, records = read_chrome_trace(run.chrome_trace())
    begins = [record.begin for record in records if isinstance(record, Span)]
    assert min(begins) == 0
    assert max(record.end for record in records if isinstance(record, Span)) < run.ended_ns
    short = simulate("10ms", LAN, steps=20, trace_max=30)
    assert read_trace_notes(short.chrome_trace()) == {"time": "virtual", "forgotten": short.forgotten}
    assert short.forgotten > 0
