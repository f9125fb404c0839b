"""The trace that a real run leaves, beside one of the same job in virtual time."""

import os
import signal
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from paramserver import sim
from paramserver.sim import Machines, parse_problem, world_from_mapping
from paramserver.tracing import COLOURS, Arrow, Span, chrome_trace, read_chrome_trace, read_trace_notes

ROWS = ("shard 0", "shard 1", "worker0/0", "worker0/1", "worker1/0", "worker1/1")
STEPS = 22
"""Of a replica: two epochs of the digits, in batches of 32 among 4 replicas."""


class Run:
    """A trace, and the summary of its run, if it was a real one."""

    def __init__(self, data, summary=None):
        self.data, self.summary = data, summary
        self.rows, self.records = read_chrome_trace(data)
        self.spans = [record for record in self.records if isinstance(record, Span)]
        self.arrows = defaultdict(list)
        for record in self.records:
            if isinstance(record, Arrow):
                self.arrows[record.name].append(record)

    def seconds(self, *names):
        """Return how long spans of these names took together."""
        return sum(span.end - span.begin for span in self.spans if span.name in names) / 1e9


@pytest.fixture(scope="module", params=["sync", "async", "ssp:1"])
def rule(request):
    return request.param


@pytest.fixture(scope="module")
def real(rule, new_launcher):
    launcher = new_launcher()
    code, _, err = launcher.run("--epochs", "2", "--consistency", rule, "--trace", "--quiet")
    assert code == 0, err
    assert not list((launcher.out / "logs").glob("*.json"))
    return Run((launcher.out / "trace.json").read_bytes(), launcher.summary())


@pytest.fixture(scope="module")
def virtual(rule):
    machines = Machines(servers=1, shards=2, workers=2, threads=2)
    network = "latency=100us bandwidth=1Gbit/s server=1Gbit/s rpc=80us lock=5us lock-per-byte=0.3ns"
    network += " between-servers=50us"
    world = world_from_mapping({"compute": "exponential:1ms", "network": network}, "a test")
    problem = parse_problem("timing", machines.shards_in_all)
    run = sim.simulate(world, machines, problem, STEPS, consistency=rule, trace_max=100_000)
    return Run(run.chrome_trace())


def test_both_clocks_show_the_same_rows_in_the_same_order(real, virtual):
    assert real.rows == virtual.rows
    assert tuple(row.thread for row in real.rows) == ROWS


def test_both_clocks_name_colour_and_note_spans_alike(real, virtual):
    def kinds(run):
        return {(span.row, span.name, tuple(span.notes)) for span in run.spans if span.name != "wait"}

    assert kinds(real) == kinds(virtual)
    for run in (real, virtual):
        assert {span.name for span in run.spans} | {"wait"} == set(COLOURS)
        assert {tuple(span.notes) for span in run.spans if span.name == "wait"} <= {("for",)}
        steps = Counter((span.row.thread, span.name) for span in run.spans)
        for thread in ROWS[2:]:
            assert [steps[thread, name] for name in ("pull", "compute", "push")] == [STEPS + 1, STEPS, STEPS]


def test_on_both_clocks_every_push_is_applied_and_seen(real, virtual):
    stations = []
    for run in (real, virtual):
        assert set(run.arrows) == {
            f"{rank}.1.{clock}/{shard}" for rank in range(4) for clock in range(STEPS) for shard in range(2)
        }
        for arrow in run.arrows.values():
            at = {record.stage: record.at for record in arrow}
            assert len(at) == len(arrow) == 3
            assert at["leaves"] < at["passes"] < at["arrives"]
        stations.append(
            {frozenset((each.stage, each.row.process[:6]) for each in arrow) for arrow in run.arrows.values()}
        )
    assert stations[0] <= {
        frozenset({("leaves", "worker"), ("passes", "server"), ("arrives", "worker")}),
    }
    assert stations[0] == stations[1]


def test_every_station_of_an_arrow_is_in_its_span(real):
    spans = defaultdict(list)
    for span in real.spans:
        spans[span.row, span.name].append(span)
    touches = {"leaves": "push", "passes": "apply", "arrives": "pull"}
    for record in (record for arrow in real.arrows.values() for record in arrow):
        found = spans[record.row, touches[record.stage]]
        assert any(span.begin <= record.at <= span.end for span in found)


def test_every_gradient_is_in_an_apply_span(real, rule):
    applied = Counter()
    for span in real.spans:
        if span.name == "apply":
            applied[span.row.thread] += span.notes["gradients"]
    assert applied == {"shard 0": 4 * STEPS, "shard 1": 4 * STEPS}
    each = {span.notes["gradients"] for span in real.spans if span.name == "apply"}
    assert each == ({4} if rule == "sync" else {1})


def test_spans_of_a_row_follow_one_another_and_a_wait_is_inside_its_pull(real):
    for row in real.rows:
        mine = [span for span in real.spans if span.row == row]
        outer = sorted((span for span in mine if span.name != "wait"), key=lambda span: span.begin)
        assert all(one.end <= following.begin for one, following in pairwise(outer))
        pulls = [span for span in outer if span.name == "pull"]
        for wait in (span for span in mine if span.name == "wait"):
            assert any(pull.begin <= wait.begin <= wait.end <= pull.end for pull in pulls)
        if row.process.startswith("worker"):
            assert [span.name for span in outer] == ["pull", "compute", "push"] * STEPS + ["pull"]


def test_the_times_are_those_of_the_time_budget(real):
    # The trace begins with the training, but the budget with the join, so pulls may be longer there.
    budget = real.summary["time_budget"]["total"]
    seconds = real.summary["time_budget"]["replica_seconds"]
    slack = 0.05 * seconds
    for name in ("compute", "push"):
        assert real.seconds(name) == pytest.approx(budget[name] / 100 * seconds, rel=0.2, abs=slack)
    assert real.seconds("pull") <= 1.2 * (budget["pull"] + budget["wait"]) / 100 * seconds + slack
    end = max(span.end for span in real.spans) / 1e9
    assert end == pytest.approx(real.summary["wall_seconds"], rel=0.2, abs=slack)


def test_the_trace_is_that_of_a_real_run_and_whole(real):
    assert read_trace_notes(real.data) == {"time": "real", "forgotten": 0}
    assert chrome_trace(real.records, real.rows, read_trace_notes(real.data)) == real.data
    assert min(record.begin if isinstance(record, Span) else record.at for record in real.records) >= 0


def test_a_killed_worker_leaves_the_trace_of_the_others(launcher):
    with launcher.start("--epochs", "1000000", "--max-restarts", "0", "--trace", "--quiet") as process:
        try:
            launcher.until(lambda: launcher.training() or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            [pid] = [pid for pid, line in launcher.processes().items() if "--worker 1 --threads" in line]
            os.kill(pid, signal.SIGKILL)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "worker 1 was ended by SIGKILL" in err
    data = (launcher.out / "trace.json").read_bytes()
    run = Run(data)
    assert tuple(row.thread for row in run.rows) == ROWS[:4]
    assert read_trace_notes(data)["missing"] == "worker 1"
    # Who waited for the dead at the end is seen to.
    cut = [span for span in run.spans if span.notes.get("unfinished")]
    assert {span.row.thread for span in cut} == {"worker0/0", "worker0/1"}
    assert {"pull", "wait"} <= {span.name for span in cut}


def test_a_run_that_is_interrupted_has_its_trace(launcher):
    with launcher.start("--epochs", "1000000", "--servers", "2", "--trace", "--quiet") as process:
        try:
            launcher.until(lambda: launcher.training() or process.poll() is not None)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    run = Run((launcher.out / "trace.json").read_bytes())
    assert {row.process for row in run.rows} == {"server0", "server1", "worker0", "worker1"}
    assert "missing" not in read_trace_notes(run.data)
    assert len(run.rows) == 8
    assert len(run.spans) > 100
