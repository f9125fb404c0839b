"""A comparison has the median and the spread of each number, a target that it explains, and one page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from paramserver.comparison import (
    MEASURES,
    Comparison,
    Outcome,
    Point,
    Spread,
    Target,
    choose_target,
    comparison_page,
    measure,
    spreads,
)
from paramserver.comparison.curves import joined
from paramserver.comparison.page import charts, spread_text

NO_TARGET = Target(None, "")


def a_run(rule="sync", seed=0, seconds=10.0, scores=(0.1, 0.5, 0.9), accuracy=0.9, **more) -> Outcome:
    summary = {
        "wall_seconds": seconds,
        "versions": [100, 90],
        "samples_per_second": 640.0,
        "staleness": {"mean": 1.5},
        "time_budget": {"total": {"wait": 12.5}},
        "accuracy": accuracy,
        **more,
    }
    curve = [Point(seconds * (at + 1) / 10, 10 * at, score, 1.0) for at, score in enumerate(scores)]
    return Outcome(rule, seed, f"{rule}-seed{seed}", summary=summary, curve=curve)


def a_comparison(*runs: Outcome, target=Target(0.5, "Why <not>."), planned=None, **more) -> Comparison:  # noqa: B008
    rules = tuple(dict.fromkeys(run.rule for run in runs))
    told = {"notes": (), "files": {"job.toml": 'data = "<digits>"\n'}, "repeat": "paramserver compare <x>"}
    return Comparison(
        "a <model> on data",
        rules,
        runs,
        planned or len(runs),
        target,
        more.pop("virtual", False),
        **told | more,
    )


class Page(HTMLParser):
    """What a page has: its tags, and the text of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert name not in ("src", "href", "onclick"), value  # nothing from outside, nothing that runs
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data
        if "td" in self.open:
            self.cells[-1] += ("|" if self.open[-1] == "small" else "") + data


def test_a_run_is_measured():
    assert measure(a_run(), Target(0.5, "")) == {
        "seconds_to_target": 2.0,
        "updates_per_second": 10.0,
        "samples_per_second": 640.0,
        "mean_staleness": 1.5,
        "wait_percent": 12.5,
        "accuracy": 0.9,
    }
    assert measure(a_run(), Target(0.95, ""))["seconds_to_target"] is None
    assert measure(a_run(scores=(None, None)), NO_TARGET)["seconds_to_target"] is None
    assert set(measure(a_run(), NO_TARGET)) == {each.name for each in MEASURES}


def test_the_target_is_reached_by_the_best_of_every_run():
    runs = [a_run(scores=(0.2, 0.9551, 0.93)), a_run(scores=(0.99,))]
    target = choose_target(runs, 0)
    assert target.accuracy == 0.945
    assert "0.99 of 0.9551" in target.why
    assert all(measure(run, target)["seconds_to_target"] for run in runs)


@pytest.mark.parametrize("scores", [(None,), (), (-0.5, 0.0)])
def test_without_an_accuracy_of_every_run_there_is_no_target(scores):
    target = choose_target([a_run(), a_run(scores=scores)], 0)
    assert target.accuracy is None
    assert "no target" in target.why


def test_a_given_target_stays():
    assert choose_target([a_run()], 0.97) == Target(
        0.97, "Times are taken to the given validation accuracy, 0.97."
    )


def test_the_spread_is_over_runs_and_what_was_not_reached_counts_as_late():
    target = Target(0.9, "")
    runs = [a_run(seconds=10), a_run(seconds=20), a_run(scores=(0.1,))]
    assert spreads(runs, target)["seconds_to_target"] == Spread(6.0, 3.0, None, 3, 1)
    assert spreads(runs[1:], target)["seconds_to_target"] == Spread(None, 6.0, None, 2, 1)
    assert spreads([], target)["accuracy"] == Spread(None, None, None, 0, 0)


@pytest.mark.parametrize(
    ("name", "found", "texts"),
    [
        ("seconds_to_target", Spread(None, 1.234, None, 2, 1), ("never", "1.23-never")),
        ("updates_per_second", Spread(1234.5, 900.0, 12345.0, 3, 0), ("1,234", "900-12,345")),
        ("updates_per_second", Spread(0.5, 0.5, 0.5, 3, 0), ("0.500", "")),
        ("accuracy", Spread(0.97, 0.97, 0.97, 1, 0), ("0.970", "")),
        ("wait_percent", Spread(None, None, None, 0, 0), ("-", "")),
    ],
)
def test_numbers_are_short(name, found, texts):
    [each] = [each for each in MEASURES if each.name == name]
    assert spread_text(each, found, "never") == texts


def test_one_curve_is_itself_and_several_are_their_median():
    assert joined("a", [[(0, 1), (2, 3)]]).points == [(0, 1), (2, 3)]
    assert joined("a", []).points == []
    fine = [[(x, height + x) for x in range(10)] for height in (0, 1, 5)]
    line = joined("a", fine)
    assert line.points[0] == (0, 1)
    assert line.points[-1] == (9, 10)
    assert line.band[0] == (0, 0, 5)
    coarse = joined("a", [[(0, 0), (4, 4)], [(1, 2), (2, 8)]])
    assert coarse.points[0][0] == 1  # before, one of them has no value yet
    assert coarse.points[-1] == (4, 6)  # the one that has ended keeps its last
    assert coarse.band == ()
    assert len(coarse.thin) == 2


def test_the_page_stands_alone_and_has_all():
    page = Page(
        comparison_page(
            a_comparison(
                a_run("sync", 0),
                a_run("sync", 1, seconds=20.0),
                a_run("ssp:3", 0),
                notes=["One after another."],
            )
        )
    )
    assert page.tags.count("svg") == 4  # two charts, each with an inner one
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.cells[:2] == ["sync", "3.00|2.00-4.00"]
    assert page.cells[8] == "ssp:3"
    for said in (
        "a <model> on data", "One after another.", "Why <not>.", 'data = "<digits>"',
        "paramserver compare <x>",
        "Validation accuracy by time", "Validation accuracy by update", "s to target 0.5",
    ):  # fmt: skip
        assert said in page.words
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", comparison_page(a_comparison(a_run())))


def test_failed_and_missing_runs_are_said():
    failed = Outcome("async", 1, "async-seed1", reason="The disk is <full>.")
    page = Page(comparison_page(a_comparison(a_run(), failed, planned=4)))
    assert "async, seed 1: The disk is <full>. (async-seed1)" in page.words
    assert "Only 2 of 4 runs have ended" in page.words
    assert page.cells[8:16] == ["async", *["-"] * 6, "0|1 failed"]


def test_charts_of_what_was_judged():
    assert charts(a_comparison(a_run(scores=()))) == []
    by_time, _ = charts(a_comparison(a_run(scores=(None, None)), target=NO_TARGET, virtual=True))
    assert "Validation loss by time" in by_time
    assert "virtual seconds" in by_time
