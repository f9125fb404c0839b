"""The judgement of predictions, and the page that is made of it."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.fidelity import Cell, Figures, Result, Row, cells, predict
from benchmarks.fidelity_page import page
from paramserver.sim import world_from_mapping

CELL = Cell("padded", "ssp:2", 2, 3)
MEASURED = Figures(step_ms=10.0, samples=1000.0, staleness=1.0, wait=20.0)


def row(predicted, measured=(MEASURED,) * 5):
    return Row(CELL, predicted, list(measured))


def figures(**changes):
    return Figures(**{name: getattr(MEASURED, name) for name in Figures.__dataclass_fields__} | changes)


@pytest.mark.parametrize(
    ("predicted", "missed"),
    [
        (MEASURED, []),
        (figures(step_ms=11.4, samples=860.0, staleness=1.19, wait=29.0), []),
        (figures(step_ms=11.6), ["step time"]),
        (figures(samples=840.0), ["samples/s"]),
        (figures(staleness=0.79), ["staleness"]),
        (figures(wait=9.0), ["wait share"]),
    ],
)
def test_a_figure_holds_within_its_band(predicted, missed):
    assert row(predicted).misses() == missed


def test_where_runs_differ_the_band_is_twice_their_spread():
    runs = [figures(step_ms=step) for step in (8.0, 9.0, 10.0, 11.0, 12.0)]
    assert row(figures(step_ms=13.9), runs).misses() == []
    assert row(figures(step_ms=14.1), runs).misses() == ["step time"]


def test_a_large_staleness_may_be_off_by_a_share_of_it():
    runs = [figures(staleness=4.0)] * 5
    assert row(figures(staleness=4.59), runs).misses() == []
    assert row(figures(staleness=4.61), runs).misses() == ["staleness"]


def test_every_rule_meets_each_number_of_servers_and_replicas():
    wanted = {(cell.rule, cell.servers, cell.replicas) for cell in cells(quick=False)}
    assert wanted >= {
        (rule, servers, replicas)
        for rule in ("sync", "async", "ssp:2")
        for servers in (1, 2)
        for replicas in (1, 2, 3, 4)
    }
    assert sum(cell.slow for cell in cells(quick=False)) == sum(cell.link for cell in cells(quick=False)) == 3


def test_the_page_says_what_misses_and_what_was_not_measured():
    held, missed = row(MEASURED), row(figures(step_ms=20.0))
    skipped = Row(Cell("CPU-bound", "sync", 1, 2, link=True), MEASURED, [], "there are no namespaces")
    text = page(Result([held, missed, skipped], {"padded": "seed = 0\n"}, [0.1, 0.3]), "a machine")
    assert "Of 2 cells 1 hold in all four figures." in text
    flat = " ".join(text.split())
    assert "| ssp:2, 2 servers, 3 replicas | 10.0 (0.0) → 20.0 | +100 % |" in text
    assert "* padded, ssp:2, 2 servers, 3 replicas: step time 20.0 predicted, 10.0 measured, " in flat
    assert "not measured: there are no namespaces" in text
    assert "Other programs used 0.20 cores in the median before a run, and 0.30 at most." in flat
    assert "```toml\nseed = 0\n```" in text


def test_a_slow_worker_and_a_slow_link_are_put_into_the_measured_world():
    network = (
        "latency=0s bandwidth=unlimited server=unlimited rpc=100us lock=0s lock-per-byte=0s client=100us "
        "client-per-request=0s client-per-byte=0s rpc-per-byte=0s cores=2 between-servers=50us"
    )
    world = world_from_mapping({"compute": "20ms cpu=1%", "network": network}, "a test")
    slow = predict(Cell("padded", "sync", 1, 2, slow=True), world)
    assert slow.step_ms == pytest.approx(61, abs=1)
    assert slow.wait == pytest.approx(33, abs=2)
    # 669 kB in each direction at 80 Mbit/s are 2 x 66.9 ms.
    link = predict(Cell("CPU-bound", "sync", 1, 2, link=True), world)
    assert link.step_ms == pytest.approx(134 + 21, abs=2)
