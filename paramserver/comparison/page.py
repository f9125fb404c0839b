"""A comparison as one page that needs nothing else: curves, the table, the job, and how to do it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from paramserver.charts import Axis, line_chart
from paramserver.comparison.curves import joined
from paramserver.comparison.measures import (
    MEASURES,
    TO_TARGET,
    Measure,
    Outcome,
    Point,
    Spread,
    Target,
    spreads,
)
from paramserver.svg import FONT

STYLE: Final = f"""
body {{ font: 15px/1.5 {FONT}; color: #1f2933; background: #ffffff; max-width: 76rem;
margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.35rem 1rem 0.35rem 0; text-align: right; border-bottom: 1px solid #dde3ea; }}
th:first-child, td:first-child {{ text-align: left; }}
small {{ color: #52606d; display: block; }}
pre {{ background: #f3f5f8; padding: 0.8rem; overflow-x: auto; font-size: 13px; }}
.charts {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
.charts svg {{ max-width: 100%; height: auto; }}
.failed {{ color: #b3261e; }}
.wide {{ overflow-x: auto; }}
@media (prefers-color-scheme: dark) {{
body {{ color: #e4e7eb; background: #15191f; }}
small {{ color: #a9b4c0; }} pre {{ background: #1e242c; }} th, td {{ border-color: #323a45; }}
.failed {{ color: #ff8a80; }}
}}
""".strip()


DECIMALS_MAX: Final = 6

NEVER: Final = "never"
"""In place of the seconds of a run that did not reach the target before its end."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that a page says.

    Attributes:
        what: what was compared, such as ``mlp:128 on digits, 2 workers x 2 threads``.
        rules: in the order of the columns' rows.
        runs: that have ended, well or not.
        planned: how many runs were meant to be.
        target: to which times are taken.
        is_virtual: the seconds are those of a simulated world.
        notes: sentences that a reader should know.
        files: texts by name: the job, and the world if there is one.
        repeat: the command that does it again.
    """

    what: str
    rules: Sequence[str]
    runs: Sequence[Outcome]
    planned: int
    target: Target
    is_virtual: bool
    notes: Sequence[str]
    files: Mapping[str, str]
    repeat: str

    def finished(self, rule: str) -> list[Outcome]:
        """Return the runs under a rule that finished."""
        return [run for run in self.runs if run.rule == rule and not run.reason]

    def cells(self, rule: str) -> list[tuple[str, str]]:
        """Return the row of a rule: of each measure the median, and the spread or an empty text."""
        found = spreads(self.finished(rule), self.target)
        missing = "none" if self.target.accuracy is None else NEVER
        return [
            spread_text(each, found[each.name], missing if each.name == TO_TARGET else "none")
            for each in MEASURES
        ]


def comparison_page(comparison: Comparison) -> str:
    """Return the page as HTML, with everything in it."""
    title = f"{', '.join(comparison.rules)}: {comparison.what}"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f"<h1>{escape(' · '.join(comparison.rules))}</h1>\n<p>{escape(comparison.what)}.</p>",
        *(f"<p>{escape(note)}</p>" for note in comparison.notes),
        '<div class="charts">',
        *charts(comparison),
        "</div>",
        "<h2>In numbers</h2>",
        '<div class="wide">',
        *_table(comparison),
        "</div>",
        f"<p>{escape(comparison.target.why)}</p>",
        "<p><small>",
        *(f"<b>{escape(each.title)}</b>: {escape(each.meaning)}<br>" for each in MEASURES),
        "</small></p>",
        *_failures(comparison),
        "<h2>Again</h2>",
        f"<pre>{escape(comparison.repeat)}</pre>",
        *(
            f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
            for name, text in comparison.files.items()
        ),
        "</body>\n</html>",
    ]
    return "\n".join(parts) + "\n"


def charts(comparison: Comparison) -> list[str]:
    """Return the curves by time and by update, as SVG; none where nothing was judged."""
    points = [point for run in comparison.runs for point in run.curve]
    by_accuracy = any(point.accuracy is not None for point in points)
    if not points or not (by_accuracy or any(point.loss is not None for point in points)):
        return []
    measured = "validation accuracy" if by_accuracy else "validation loss"

    def read(point: Point) -> float | None:
        return point.accuracy if by_accuracy else point.loss

    several = max(len(comparison.finished(rule)) for rule in comparison.rules) > 1
    note = "median of the seeds, and how far they lie apart" if several else ""
    target = comparison.target.accuracy if by_accuracy else None
    seconds = "virtual seconds" if comparison.is_virtual else "seconds"
    ways: tuple[tuple[str, str, Callable[[Point], float]], ...] = (
        ("by time", seconds, lambda point: point.seconds),
        ("by update", "updates of a shard", lambda point: float(point.version)),
    )
    return [
        line_chart(
            f"{measured[0].upper()}{measured[1:]} {way}",
            Axis(title, low=0.0),
            Axis(measured, low=_floor(target, points), log=not by_accuracy),
            [
                joined(
                    rule,
                    [
                        [(place(point), value) for point in run.curve if (value := read(point)) is not None]
                        for run in comparison.finished(rule)
                    ],
                )
                for rule in comparison.rules
            ],
            note=note,
            levels=[(target, f"target {target:g}")] if target is not None else [],
            width=600,
            height=400,
        )
        for way, title, place in ways
    ]


def _floor(target: float | None, points: Sequence[Point]) -> float | None:
    """Return where the axis begins: low enough to see curves rise, high enough to tell them apart."""
    if target is None:
        return None
    best = max(point.accuracy for point in points if point.accuracy is not None)
    return max(0.0, math.floor((target - 5 * (1 - min(best, target))) * 10) / 10)


def spread_text(each: Measure, found: Spread, missing: str) -> tuple[str, str]:
    """Write a number of several runs: the median, and the least and the greatest.

    Args:
        each: what is measured.
        found: over the runs.
        missing: what stands for a number that is not there.

    Returns:
        The median, and the spread, which is empty where there is one run or none.

    Example:
        >>> spread_text(MEASURES[0], Spread(3.25, 3.0, None, 3, 1), "never")
        ('3.25', '3.00-never')
    """
    if found.count == 0:
        return "-", ""
    low, middle, high = (
        missing if value is None else _number(value, each) for value in (found.low, found.middle, found.high)
    )
    return middle, "" if found.count == 1 or low == high else f"{low}-{high}"


def _number(value: float, each: Measure) -> str:
    if each.decimals is not None:
        return f"{value:,.{each.decimals}f}"
    power = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(0, each.digits - 1 - power), DECIMALS_MAX)}f}"


def _table(comparison: Comparison) -> Iterator[str]:
    yield "<table>\n<tr><th>rule</th>"
    titles = [
        f"{each.title} {comparison.target.accuracy:g}"
        if each.name == TO_TARGET and comparison.target.accuracy is not None
        else each.title
        for each in MEASURES
    ]
    yield "".join(f"<th>{escape(title)}</th>" for title in titles) + "<th>runs</th></tr>"
    for rule in comparison.rules:
        runs = comparison.finished(rule)
        ended = sum(run.rule == rule for run in comparison.runs)
        failed = f'<small class="failed">{ended - len(runs)} failed</small>' if ended > len(runs) else ""
        yield (
            f"<tr><td>{escape(rule)}</td>"
            + "".join(
                f"<td>{escape(one)}<small>{escape(two)}</small></td>" for one, two in comparison.cells(rule)
            )
            + f"<td>{len(runs)}{failed}</td></tr>"
        )
    yield "</table>"


def _failures(comparison: Comparison) -> Iterator[str]:
    failed = [run for run in comparison.runs if run.reason]
    if len(comparison.runs) < comparison.planned:
        yield (
            f'<p class="failed">Only {len(comparison.runs)} of {comparison.planned} runs have ended: the '
            "comparison was interrupted.</p>"
        )
    if failed:
        yield '<h2 class="failed">Failed</h2>\n<ul>'
        for run in failed:
            yield f"<li>{escape(run.rule)}, seed {run.seed}: {escape(run.reason)} ({escape(run.folder)})</li>"
        yield "</ul>"
