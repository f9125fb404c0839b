"""A chart has every line, label and round tick, and no reference to anything outside."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from paramserver.charts import Axis, Line, line_chart
from paramserver.charts.lines import COLOURS
from paramserver.charts.scale import Scale
from paramserver.charts.ticks import linear_ticks, log_ticks, round_step, time_text, time_ticks

SVG = "{http://www.w3.org/2000/svg}"
X, Y = Axis("seconds"), Axis("accuracy")


def drawn(*lines: Line, x: Axis = X, y: Axis = Y, **more: object) -> ElementTree.Element:
    return ElementTree.fromstring(line_chart("a <title>", x, y, lines, **more))  # type: ignore[arg-type]


def words(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def paths(root: ElementTree.Element, colour: str) -> list[str]:
    return [path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("stroke") == colour]


@pytest.mark.parametrize("low", [0, -3.7, 1e-9, 99.5])
@pytest.mark.parametrize("span", [1e-6, 0.3, 7, 1234.5, 9.99e8])
@pytest.mark.parametrize("steps_max", [2, 5, 12])
def test_linear_ticks_are_round_inside_and_few(low, span, steps_max):
    ticks = linear_ticks(low, low + span, steps_max)
    step = round_step(low, low + span, steps_max)
    assert f"{step:e}"[0] in "125"
    assert 1 <= len(ticks) <= steps_max + 1
    assert len(ticks) >= span / step - 1
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value, _ in ticks)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (1, 1, ["1"]),
        (3, 80, ["5", "10", "20", "50"]),
        (0.01, 100, ["0.01", "0.1", "1", "10", "100"]),
        (1, 1e9, ["1", "1,000", "1,000,000", "1,000,000,000"]),
    ],
)
def test_log_ticks_are_powers_of_ten(low, high, texts):
    assert [text for _, text in log_ticks(low, high, 4)] == texts


@pytest.mark.parametrize(
    ("begin", "end", "texts"),
    [
        (0, 900, ["0 ns", "500 ns"]),
        (1e6, 1.3e6, ["1 ms", "1.1 ms", "1.2 ms", "1.3 ms"]),
        (0, 30e9, ["0 s", "10 s", "20 s", "30 s"]),
        (59e9, 400e9, ["2 min", "4 min", "6 min"]),
        (0, 7200e9 * 2, ["0 h", "2 h", "4 h"]),
    ],
)
def test_time_ticks_have_one_unit(begin, end, texts):
    assert [text for _, text in time_ticks(begin, end, 3)] == texts


def test_a_time_is_short():
    assert [time_text(value) for value in (999, 1500, 12_345_678, 61e9)] == [
        "999 ns",
        "1.5 µs",
        "12.3 ms",
        "61 s",
    ]


def test_a_scale_ends_at_round_numbers_but_where_told():
    assert Scale([0.1, 0.97], None, None, False, 100, 0, 20, rounds=True).place(1.0) == pytest.approx(0)
    assert Scale([0.1, 0.97], 0.1, 0.97, False, 100, 0, 20, rounds=True).place(0.97) == pytest.approx(0)
    assert Scale([5], None, None, False, 0, 100, 20).place(5) == 50
    assert math.isnan(Scale([1, 10], None, None, True, 0, 100, 20).place(0))
    assert math.isnan(Scale([1, 10], None, None, False, 0, 100, 20).place(math.inf))


def test_every_line_is_drawn_and_named_once_in_its_own_colour():
    root = drawn(Line("sync", [(0, 0.1), (1, 0.9)]), Line("a&b", [(0, 0.1), (2, 0.8)]), note="a note")
    assert root.get("aria-label") == "a <title>"
    assert [words(root).count(name) for name in ("sync", "a&b", "a <title>", "seconds")] == [1, 1, 1, 1]
    assert "accuracy · a note" in words(root)
    for colour in COLOURS[:2]:
        line, swatch = paths(root, colour)
        assert re.fullmatch(r"M[\d.]+,[\d.]+ L[\d.]+,[\d.]+", line)
        assert swatch.endswith("h16")
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles == ["sync", "sync: 0.1 at 0", "sync: 0.9 at 1", "a&b", "a&b: 0.1 at 0", "a&b: 0.8 at 2"]


def test_names_do_not_lie_on_one_another_where_lines_end_alike():
    root = drawn(*(Line(f"line {index}", [(0, 0), (1, 0.9 + index / 1e4)]) for index in range(9)))
    heights = {text.text: float(text.get("y", "")) for text in root.iter(f"{SVG}text")}
    found = sorted(heights[f"line {index}"] for index in range(9))
    assert all(low + 15.9 <= high for low, high in pairwise(found))
    assert heights["line 8"] == found[0]  # the highest line has the highest name
    assert found[-1] < 380 - 60


def test_what_is_not_finite_makes_a_gap():
    root = drawn(Line("loss", [(0, 1), (1, math.nan), (2, 3), (3, 2), (4, math.inf)]))
    assert paths(root, COLOURS[0])[0].count("M") == 2
    assert "nan" not in ElementTree.tostring(root, encoding="unicode")


def test_bands_thin_lines_levels_and_references():
    root = drawn(
        Line("sync", [(0, 0.2), (1, 0.8)], band=[(0, 0.1, 0.3), (1, 0.7, 0.9)], thin=[[(0, 0.3), (1, 0.7)]]),
        Line("ideal", [(0, 0), (1, 1)], is_reference=True),
        levels=[(0.75, "target 0.75")],
    )
    shaded = [path for path in root.iter(f"{SVG}path") if path.get("fill-opacity") == "0.18"]
    assert len(shaded) == 1
    assert shaded[0].get("d", "").count("L") == 3
    assert len(paths(root, COLOURS[0])) == 3  # line, thin line, swatch
    assert paths(root, COLOURS[1]) == []  # a reference takes no colour from the others
    assert "target 0.75" in words(root)


def test_the_eighth_line_differs_from_the_first():
    root = drawn(*(Line(str(index), [(0, index), (1, index)]) for index in range(8)))
    same = [
        path.get("stroke-dasharray") for path in root.iter(f"{SVG}path") if path.get("stroke") == COLOURS[0]
    ]
    assert same == [None, "6 3", None, "6 3"] or same == [None, "6 3", "6 3", None]


@pytest.mark.parametrize("lines", [[], [Line("none", [])], [Line("one", [(3, 7)])]])
@pytest.mark.parametrize("log", [False, True])
def test_few_points_are_no_trouble(lines, log):
    text = line_chart("t", Axis("x", log=log), Axis("y", log=log), lines)
    assert text == line_chart("t", Axis("x", log=log), Axis("y", log=log), lines)
    ElementTree.fromstring(text)
    assert "nan" not in text
    assert "url(" not in text
    assert "href" not in text
